"""`make_parquet_db` and `remove_missing_datasets` with the signatures of ``one.alf.cache``, without its defects.

docs/reference/upstream.md names every intended difference; ``tests/system/test_upstream.py`` compares both.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from alfwatchd.alf import grammar
from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.atomic import write_atomically
from alfwatchd.errors import PruneRefused, RootOffline, TablesError
from alfwatchd.index.lab import lab_problems
from alfwatchd.index.state_db import StateDb
from alfwatchd.prune import executor, operations, reference_files
from alfwatchd.prune.links import find_link_targets
from alfwatchd.prune.plan import PruneOutcome, PrunePlan
from alfwatchd.prune.reference import Origin, Reference, make_reference
from alfwatchd.service import surroundings
from alfwatchd.service.configuration import load
from alfwatchd.service.locks import Held, hold_out_dir
from alfwatchd.service.once import index, no_garbage_collection, run_hashing
from alfwatchd.service.startup import Start, prepare
from alfwatchd.settings import Settings
from alfwatchd.store.one_lock import one_lock
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables import path_ids
from alfwatchd.tree.sessions import TablesView

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)

_MAX_PROBLEMS = 20
_PATIENCE_SECONDS = 3600.0
"""How long one job waits for others that write the same tables, as the jobs of an array do."""
_NOWHERE = Path("/nonexistent")
"""Stands for paths that a run without a daemon does not use; the default socket could have too long a path."""
_KEYS = ("id", "eid", "lab", "subject", "date", "number", "rel_path", "session_path", "file_size")

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
        Folder to index. One without sessions gives empty tables, with a ``RuntimeWarning``.
    out_dir : str or Path, optional
        Existing folder for the tables; default: the root.
    hash_ids : bool
        Whether ids are UUIDs, as One needs them; the same paths always have the same ones. If not, ids are paths.
    hash_files : bool
        Whether to fill the hash column with md5; else it is null.
    lab : str, optional
        Lab of the sessions that are in no lab folder: letters, digits and '_'.

    Returns
    -------
    tuple of Path
        The sessions table and the datasets table.

    Raises
    ------
    OutDirError
        The output folder is missing (an ``AssertionError``, as upstream) or not writable.
    LabConflict
        A lab folder has another name than `lab` (an ``AssertionError``, as upstream).
    Locked
        A daemon keeps these tables. Another call, in whichever process, is waited for.
    RootOffline
        The root is missing or empty, and the tables in another folder hold sessions of it.
    TablesError
        A table cannot be written.
    """
    root = Path(root_dir).resolve()
    target = Path(out_dir or root)
    surroundings.require()
    with _hold(target, root), no_garbage_collection():
        settings = _settings(root, target, hash_files=hash_files, lab=lab or "")
        written_at = datetime.datetime.now(datetime.UTC)
        start = _index(settings)
        if hash_files:
            with tempfile.TemporaryDirectory(prefix="alfwatchd-") as folder, closing(StateDb(Path(folder))) as state:
                run_hashing(settings, state, start)
        _warn(start, settings)
        _write(start, settings, written_at, hash_ids=hash_ids)
    return target / SESSIONS, target / DATASETS


def remove_missing_datasets(
    cache_dir: PathLike,
    tables: Mapping[str, pd.DataFrame] | None = None,
    remove_empty_sessions: bool = True,  # noqa: FBT001, FBT002 - upstream's signature
    dry: bool = True,  # noqa: FBT001, FBT002
    *,
    newer: bool = False,
) -> list[Path]:
    """Remove dataset files and session folders that are not in the tables.

    Only valid ALF regular files below session folders are removed, at any depth, never through a link. Session
    folders go if they are not in the sessions table and hold nothing. What is newer than the tables stays, as does what
    they nearly list: see docs/guide/prune.md.

    Parameters
    ----------
    cache_dir : str or Path
        Folder that was indexed.
    tables : dict of str to pandas.DataFrame, optional
        ``sessions`` and ``datasets``, as ``one.alf.cache.load_tables`` gives them, or with ids as plain columns;
        default: the tables in `cache_dir`.
    remove_empty_sessions : bool
    dry : bool
        If true, print what would be removed, and remove nothing.
    newer : bool
        Whether to remove also files that are newer than the tables in `cache_dir`. Upstream has no such argument.

    Returns
    -------
    list of Path
        The files and folders that were, or would be, removed; sorted.

    Raises
    ------
    PruneRefused
        There are no tables, they make no sense, nothing tells how old they are, or a part of the folder cannot be
        read. Nothing was removed.
    Locked
        A daemon keeps the tables in `cache_dir`.
    RootOffline
        The folder does not exist, or another one has taken its place meanwhile.
    """
    root = Path(cache_dir).resolve()
    if not root.is_dir():
        raise RootOffline(f"{root}: the folder does not exist; check its path, or mount it")
    with nullcontext() if dry else _hold(root), closing(operations.RootCheck(root)) as guard:
        view = _look(root)
        reference = reference_files.read_reference(root) if tables is None else _reference(root, tables, view)
        if reference is None:
            return []
        if not (dry or newer) and reference.origin.date is None:
            raise PruneRefused(
                f"{root}: there are no tables here, so nothing tells how old the given ones are, and files that were "
                "recorded since then would be removed; write them here, too, or pass newer=True. Nothing was removed"
            )
        plan = _plan(root, view, reference, remove_empty_sessions=remove_empty_sessions, newer=newer)
        return _remove(root, Path(cache_dir), plan, guard, dry=dry)


def _plan(root: Path, view: TablesView, reference: Reference, *, remove_empty_sessions: bool, newer: bool) -> PrunePlan:
    """Make a plan. Files that are newer than the reference stay, unless `newer` is set or nothing dates it."""
    is_dated = reference.origin.date is not None
    return operations.plan_for(
        root,
        view,
        reference,
        remove_empty_sessions=remove_empty_sessions,
        margin_seconds=_settings(root, _NOWHERE).prune.margin_seconds if is_dated and not newer else None,
    )


def _remove(root: Path, cache_dir: Path, plan: PrunePlan, guard: operations.RootCheck, *, dry: bool) -> list[Path]:
    """Carry a plan out, or print what it would remove; return the paths."""
    for item in plan.kept:
        _log.info("kept path=%s reason=%s", root / item.path, item.reason)
    if dry:
        paths = _paths(cache_dir, executor.preview_plan(root, plan, may_continue=guard.check))
        print("The following session and datasets would be removed:", end="\n\t")  # noqa: T201 - upstream's contract
        print("\n\t".join(sorted(map(str, paths))))  # noqa: T201
        return paths
    outcome = executor.apply_plan(
        root, plan, may_continue=guard.check, log=_log.debug, find_protected=lambda: find_link_targets(root)
    )
    for item in outcome.kept:
        _log.warning("not removed path=%s reason=%s", root / item.path, item.reason)
    if outcome.stopped is not None:
        raise outcome.stopped
    return _paths(cache_dir, outcome)


def _look(root: Path) -> TablesView:
    start = prepare(_settings(root, _NOWHERE), None)
    with no_garbage_collection():
        _scan(start)
    if start.indexer.unreadable:
        folder = next(iter(start.indexer.unreadable))
        raise PruneRefused(f"{root}/{folder.path}: cannot be read, so nothing is removed; make it readable first")
    return TablesView(start.indexer.tables.snapshot(), ())


def _settings(root: Path, out_dir: Path, *, hash_files: bool = False, lab: str = "") -> Settings:
    places = {"root": root, "out_dir": out_dir, "state_dir": _NOWHERE, "socket": _NOWHERE}
    return load({**places, "hash_files": hash_files, "lab": lab}, environ={}).settings


def _index(settings: Settings) -> Start:
    """Index the root, unless it seems to be away: missing or empty, while the tables have sessions of it."""
    start = prepare(settings, None)
    # Where the tables lie in the root, they prove that it is there.
    is_there = settings.out_dir.is_relative_to(settings.root) or (
        settings.root.is_dir() and any(entry.is_dir() for entry in settings.root.iterdir())
    )
    if not start.indexer.known.is_empty() and not is_there:
        raise RootOffline(
            f"{settings.root}: is missing or empty, but the tables in {settings.out_dir} hold sessions of it; they "
            "were left as they are: mount it, or remove the tables if the data are really gone"
        )
    if settings.root.is_dir():
        _scan(start)
    start.check_lab()
    return start


def _scan(start: Start) -> None:
    try:
        index(start, accept_root=True)
    except RootOffline as error:
        raise RootOffline(str(error.__cause__ or error)) from error


def _warn(start: Start, settings: Settings) -> None:
    """Log what a person should act on. Warn, as upstream does, if nothing was found; and if many sessions are gone."""
    tables = start.indexer.tables
    if start.losses:
        text = f"{settings.root}: {start.losses[0]}; their rows are removed from the tables in {settings.out_dir}"
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    problems = [*lab_problems(settings.lab, tables.snapshot()), *start.indexer.problems()]
    for problem in problems[:_MAX_PROBLEMS]:
        _log.warning("%s: %s", os.path.normpath(settings.root / problem.path), problem.message)  # it may be `..`
    if len(problems) > _MAX_PROBLEMS:
        _log.warning("%s: %d more problems", settings.root, len(problems) - _MAX_PROBLEMS)
    counts = tables.counts
    if not counts.n_datasets:
        what = "datasets" if counts.n_sessions else "sessions"
        hints = [problem.message for problem in problems if problem.kind != "nothing_found"] or [
            start.indexer.why_empty
        ]
        text = f"No {what} found in {settings.root}" + "".join(f": {hint}" for hint in hints[:1] if hint)
        warnings.warn(text, RuntimeWarning, stacklevel=3)


def _write(start: Start, settings: Settings, written_at: datetime.datetime, *, hash_ids: bool) -> None:
    """Write the two tables, with ids that are UUIDs or, as upstream can, paths."""
    snapshot = start.indexer.tables.snapshot()
    if hash_ids:
        with closing(TableWriter(settings.out_dir, str(settings.root))) as tables:
            tables.write(start.indexer.tables.snapshot(), start.rules, written_at)
        return
    # one.alf.cache._metadata
    created = datetime.datetime.now().isoformat(sep=" ", timespec="minutes")
    metadata = {b"one_metadata": json.dumps({"date_created": created, "origin": str(settings.root)}).encode()}
    for name, table in (
        (SESSIONS, path_ids.sessions_by_path(snapshot, start.rules)),
        (DATASETS, path_ids.datasets_by_path(snapshot, start.rules)),
    ):
        try:
            _write_table(settings.out_dir / name, table.replace_schema_metadata({**metadata, **table.schema.metadata}))
        except OSError as error:
            raise TablesError(f"{settings.out_dir / name}: cannot be written ({error.strerror})") from error


def _write_table(path: Path, table: pa.Table) -> None:
    """Write a whole table as `write_atomically` does."""

    def write(target: Path) -> None:
        with target.open("wb") as file:
            pq.write_table(table, file)

    write_atomically(path, write, lock=one_lock, keeps_access=True)


def _hold(folder: Path, root: Path | None = None) -> AbstractContextManager[Held]:
    """Hold the lock on the folder of the tables; wait for others that write them, unless that is a daemon."""
    return hold_out_dir(folder, root, patience_seconds=_PATIENCE_SECONDS)


def _reference(root: Path, tables: Mapping[str, pd.DataFrame], view: TablesView) -> Reference | None:
    """Make a reference from DataFrames with ids in the index or as columns; its date is that of the tables in the root.

    None if the root has no session: upstream accepts even empty frames then.
    """
    missing = {"sessions", "datasets"} - tables.keys()
    if missing:
        raise PruneRefused(f"the given tables lack {' and '.join(sorted(missing))}, so nothing is removed")
    if not view.snapshot.sessions:
        return None
    stored_here = reference_files.read_date(root)
    origin = Origin("the given tables", stored_here.date if stored_here is not None else None)
    return make_reference(origin, *(_arrow(tables[name]) for name in ("sessions", "datasets")))


def _arrow(frame: pd.DataFrame) -> pa.Table:
    """Turn a frame into a table with its index as columns, ids and dates as alfwatchd reads them."""
    columns = {name: list(frame[name]) for name in _KEYS if name in frame.columns}
    columns |= {name: list(frame.index.get_level_values(name)) for name in _KEYS if name in frame.index.names}
    for name in {"id", "eid"} & columns.keys():
        columns[name] = list(map(str, columns[name]))
    if "date" in columns:
        columns["date"] = list(map(_date, columns["date"]))
    try:
        return pa.table({name: pa.array(column, from_pandas=True) for name, column in columns.items()})
    except pa.ArrowException as error:
        raise PruneRefused(f"the given tables cannot be understood ({error}), so nothing is removed") from error


def _date(value: Any) -> Any:
    """Return the date that a text stands for; any other value stays as it is."""
    return (grammar.parse_date(value) or value) if isinstance(value, str) else value


def _paths(cache_dir: Path, outcome: PruneOutcome) -> list[Path]:
    return sorted(cache_dir / path for path in (*(file.path for file in outcome.deleted), *outcome.removed))
