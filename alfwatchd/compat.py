"""`make_parquet_db` and `remove_missing_datasets` with the signatures of ``one.alf.cache``, without its defects.

docs/formats.md names every intended difference; ``tests/system/test_upstream.py`` compares both side by side.
"""

from __future__ import annotations

import datetime
import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from alfwatchd import prune, pruning, store
from alfwatchd.core import encode, kept
from alfwatchd.core.prune_plan import PruneOutcome, Reference, make_plan
from alfwatchd.core.rows import unpack_signature
from alfwatchd.core.tables import Snapshot
from alfwatchd.errors import PruneRefused
from alfwatchd.lock import hold_out_dir
from alfwatchd.once import index, run_hashing
from alfwatchd.settings import Settings, load
from alfwatchd.startup import Start, prepare
from alfwatchd.state import State

if TYPE_CHECKING:
    import pandas as pd

PathLike = str | Path


def make_parquet_db(
    root_dir: PathLike,
    out_dir: PathLike | None = None,
    hash_ids: bool = True,  # noqa: FBT001, FBT002 - upstream's signature
    hash_files: bool = False,  # noqa: FBT001, FBT002
    lab: str | None = None,
) -> tuple[Path, Path]:
    """Index the ALF datasets below a folder and write the two tables.

    Parameters
    ----------
    root_dir : str or Path
        Folder to index. A missing one gives empty tables, with a warning.
    out_dir : str or Path, optional
        Existing folder for the tables; default: the root.
    hash_ids : bool
        Whether ids are UUIDs, as One needs them. Theirs never change for the same paths. If not, they are paths.
    hash_files : bool
        Whether to fill the hash column with md5; else it is null.
    lab : str, optional
        Lab of the sessions in no lab folder.

    Returns
    -------
    tuple of Path
        The sessions table and the datasets table.

    Raises
    ------
    OutDirError
        The output folder is missing (an ``AssertionError``, as upstream).
    LabConflict
        A lab folder has another name than `lab` (an ``AssertionError``, as upstream).
    Locked
        A daemon keeps these tables.
    """
    root = Path(root_dir).resolve()
    target = Path(out_dir).resolve() if out_dir else root
    with tempfile.TemporaryDirectory(prefix="alfwatchd-") as state_dir:
        settings = load(
            {
                "root": str(root),
                "out_dir": str(target),
                "state_dir": state_dir,
                "hash_files": hash_files,
                "lab": lab or "",
            },
            environ={},
        ).settings
        state = State(settings.state_dir)
        try:
            return _make(settings, state, hash_ids=hash_ids)
        finally:
            state.close()


def remove_missing_datasets(
    cache_dir: PathLike,
    tables: Mapping[str, pd.DataFrame] | None = None,
    remove_empty_sessions: bool = True,  # noqa: FBT001, FBT002 - upstream's signature
    dry: bool = True,  # noqa: FBT001, FBT002
) -> list[Path]:
    """Remove dataset files and session folders that are not in the tables.

    Only valid ALF regular files below session folders are removed, at any depth, never through a link. Session
    folders go if they are not in the sessions table and hold nothing.

    Parameters
    ----------
    cache_dir : str or Path
        Folder that was indexed.
    tables : dict of str to pandas.DataFrame, optional
        ``sessions`` and ``datasets``, as ``one.alf.cache.load_tables`` gives them, or with ids as plain columns;
        default: the tables in `cache_dir`.
    remove_empty_sessions : bool
    dry : bool
        If true, print what would be removed and remove nothing.

    Returns
    -------
    list of Path
        What was, or would be, removed; sorted.

    Raises
    ------
    PruneRefused
        There are no tables, or a part of the folder cannot be read.
    """
    root = Path(cache_dir).resolve()
    reference = pruning.read_reference(root) if tables is None else _reference(tables)
    with tempfile.TemporaryDirectory(prefix="alfwatchd-") as state_dir:
        settings = load({"root": str(root), "out_dir": state_dir, "state_dir": state_dir}, environ={}).settings
        start = prepare(settings, None)
        index(start)
    if start.indexer.unreadable:
        folder = next(iter(start.indexer.unreadable))
        raise PruneRefused(f"{root}/{folder.path}: cannot be read, so nothing is removed; make it readable first")
    plan = make_plan(
        start.indexer.tables.snapshot(),
        reference,
        lab="",
        remove_empty_sessions=remove_empty_sessions,
        max_fraction=None,
    )
    if dry:
        paths = _paths(root, prune.preview_plan(root, plan, may_continue=_go_on))
        print("The following session and datasets would be removed:", end="\n\t")  # noqa: T201 - upstream's contract
        print("\n\t".join(map(str, paths)))  # noqa: T201
        return paths
    return _paths(root, prune.apply_plan(root, plan, may_continue=_go_on, log=_keep_quiet))


def _make(settings: Settings, state: State, *, hash_ids: bool) -> tuple[Path, Path]:
    start = prepare(settings, state)
    if settings.root.is_dir():
        index(start, accept_root=True)
    start.check_lab()
    if settings.hash_files:
        run_hashing(settings, state, start)
    store.check_out_dir(settings.out_dir)
    counts = start.indexer.tables.counts
    if not counts.n_datasets:
        warnings.warn(f"No {'datasets' if counts.n_sessions else 'sessions'} found", RuntimeWarning, stacklevel=4)
    with hold_out_dir(settings.out_dir):
        if hash_ids:
            start.indexer.tables.generation += 1
            store.Store(settings.out_dir, str(settings.root)).write(start.indexer.tables.snapshot(), start.encoding)
        else:
            _write_with_paths_as_ids(settings, start)
    return settings.out_dir / store.SESSIONS, settings.out_dir / store.DATASETS


def _write_with_paths_as_ids(settings: Settings, start: Start) -> None:
    """Write tables whose ids are paths, as upstream does with ``hash_ids=False``: a RangeIndex, sorted by path."""
    # one.alf.cache._metadata
    created = datetime.datetime.now().isoformat(sep=" ", timespec="minutes")
    metadata = {b"one_metadata": json.dumps({"date_created": created, "origin": str(settings.root)}).encode()}
    snapshot = start.indexer.tables.snapshot()
    for name, table in (
        (store.SESSIONS, _sessions_by_path(snapshot, settings.lab)),
        (store.DATASETS, _datasets_by_path(snapshot, with_hashes=settings.hash_files)),
    ):
        store.write_atomically(settings.out_dir / name, table.replace_schema_metadata(metadata))


def _sessions_by_path(snapshot: Snapshot, lab: str) -> pa.Table:
    """Make upstream's seven columns; the id is ``(lab/)subject/date/number``, spelled as on disk."""
    keys = {path: snapshot.sessions[path].key for path in sorted(snapshot.sessions, key=_by_parts)}
    columns = {
        "id": pa.array([path.replace("/Subjects/", "/", 1) for path in keys], pa.string()),
        "lab": pa.array([key.lab or lab for key in keys.values()], pa.string()),
        "subject": pa.array([key.subject for key in keys.values()], pa.string()),
        "date": pa.array([key.date for key in keys.values()], pa.date32()),
        "number": pa.array([key.number for key in keys.values()], pa.uint16()),
        "task_protocol": pa.array([""] * len(keys), pa.string()),
        "projects": pa.array([""] * len(keys), pa.string()),
    }
    return pa.table(columns)


def _datasets_by_path(snapshot: Snapshot, *, with_hashes: bool) -> pa.Table:
    rows = [
        (path, rel_path, value)
        for path in sorted(snapshot.sessions, key=_by_parts)
        for rel_path, value in sorted(snapshot.sessions[path].datasets(), key=lambda row: _by_parts(row[0]))
    ]
    digests = [encode.hex_digest(value) for *_, value in rows]
    qc = pa.DictionaryArray.from_arrays(
        pa.array([0] * len(rows), pa.int8()), pa.array(encode.QC_CATEGORIES), ordered=True
    )
    columns: dict[str, Any] = {
        "eid": pa.array([path.replace("/Subjects/", "/", 1) for path, *_ in rows], pa.string()),
        "id": pa.array([rel_path for _, rel_path, _ in rows], pa.string()),
        "rel_path": pa.array([rel_path for _, rel_path, _ in rows], pa.string()),
        "file_size": pa.array([unpack_signature(value).file_size for *_, value in rows], pa.uint64()),
        "hash": pa.array(digests, pa.string()) if with_hashes else pa.nulls(len(rows)),
        "exists": pa.array([True] * len(rows), pa.bool_()),
    }
    if rows:
        columns["qc"] = qc
    return pa.table(columns)


def _by_parts(path: str) -> list[str]:
    """Return the sort key of pathlib: by component, as upstream sorts."""
    return path.split("/")


def _reference(tables: Mapping[str, pd.DataFrame]) -> Reference:
    """Read reference tables from DataFrames, with ids in the index or as columns."""
    sessions, datasets = (_arrow(tables[name]) for name in ("sessions", "datasets"))
    keys = kept.session_keys(sessions)
    listed: dict[str, set[str]] = {key.eid_path: set() for key in keys if key is not None}
    for key, rel_path, _ in kept.dataset_rows(sessions, datasets, keys):
        listed[key.eid_path].add(rel_path)
    return Reference("the given tables", listed)


def _arrow(frame: pd.DataFrame) -> pa.Table:
    """Turn a frame into a table with its index as columns, ids as text."""
    import pandas as pd

    plain = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
    wanted = [name for name in plain.columns if name in {"id", "eid", "lab", "subject", "date", "number", "rel_path"}]
    plain = plain[wanted].copy()
    for name in {"id", "eid"} & set(wanted):
        plain[name] = plain[name].map(str)
    return pa.Table.from_pandas(plain, preserve_index=False)


def _paths(root: Path, outcome: PruneOutcome) -> list[Path]:
    return sorted(root / path for path in (*(file.path for file in outcome.deleted), *outcome.removed))


def _go_on() -> None:
    """Nothing watches the root here: the walk itself is as careful as it can be."""


def _keep_quiet(_: str) -> None:
    """The caller gets the list."""
