"""The two Parquet files: snapshots are written by atomic replace, tables of any origin are read.

A reader never sees half a file, and every dataset row has its session at every moment.
"""

from __future__ import annotations

import datetime
import json
import os
from bisect import insort
from collections.abc import Iterable, Iterator, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import alfwatchd
from alfwatchd.atomic import FileMark, file_mark, write_atomically
from alfwatchd.core import arrow, encode, ids
from alfwatchd.core.encode import Encoding
from alfwatchd.core.folder import Changes
from alfwatchd.core.partition import Digests, Partition, Plan, digest_groups, leave_out_equal, plan_all, plan_changes
from alfwatchd.core.tables import Snapshot
from alfwatchd.errors import OutDirError, TablesError
from alfwatchd.grouped import GroupedFile
from alfwatchd.layout import Layout, load_layout, save_layout

SESSIONS = "sessions.pqt"
DATASETS = "datasets.pqt"
LAYOUT = "tables.layout"
"""Name of the file in the state folder that says what the tables hold; see `Store`."""
METADATA_KEY = b"alfwatchd"
"""Schema metadata of our own; `one_metadata` stays exactly what ONE writes."""


@dataclass(frozen=True, slots=True)
class _Written:
    """What is on disk, so that `Store.write` writes only what differs.

    Parameters
    ----------
    encoding : Encoding
    marks : tuple of FileMark
        Of both files.
    n_bits : int
    digests : Digests or None
        None where nothing is noted for the next process.
    partition : Partition or None
        None where an earlier process wrote it.
    """

    encoding: Encoding
    marks: tuple[FileMark | None, FileMark | None]
    n_bits: int
    digests: Digests | None
    partition: Partition | None

    def is_encoded_by(self, encoding: Encoding) -> bool:
        """Tell whether rows would be made into the same columns."""
        return self.encoding == encoding and self.encoding.kept is encoding.kept


def use_system_memory() -> None:
    """Let Arrow allocate as all else in the process does: its own pool keeps 20 to 50 MB more, and saves no time."""
    pa.set_memory_pool(pa.system_memory_pool())


class Store:
    """Writes the tables of one root into one folder. Used by one thread at a time.

    Parameters
    ----------
    out_dir : Path
        Existing folder.
    origin : str
        Root that the tables describe, as ONE records it.
    layout : Path or None
        File in which to note what the tables hold, so that even the first write of the next process writes only what
        differs; None to note nothing.
    """

    def __init__(self, out_dir: Path, origin: str, layout: Path | None = None) -> None:
        self.out_dir = out_dir
        self.origin = origin
        self._layout = layout
        self._files = {name: GroupedFile(out_dir / name) for name in (SESSIONS, DATASETS)}
        self._written: _Written | None = None

    def write(self, snapshot: Snapshot, encoding: Encoding) -> bool:
        """Replace both files so that every dataset row has its session at every moment.

        Returns
        -------
        bool
            Whether rows may differ from those that were there.

        Raises
        ------
        TablesError
            Nothing was replaced, or the file that is older than the other one is the one that hides nothing.
        """
        last = self._take_last(encoding)
        plan = plan_changes(last.partition, snapshot, encoding) if last is not None and last.partition else None
        if plan is None:
            plan = plan_all(snapshot, encoding, last.n_bits if last is not None else None)
        if last is not None and last.n_bits != plan.partition.n_bits:
            self._forget()
            last = None
        digests = digest_groups(plan) if self._layout is not None and not encoding.has_kept else None
        if last is not None and last.digests is not None and digests is not None:
            plan, digests = leave_out_equal(plan, last.digests, digests), last.digests.update(digests)
        if self._files[DATASETS].would_waste(plan.datasets):
            self._forget()
            every = set(plan.partition.members)
            plan = replace(plan, sessions=every, datasets=every)
        try:
            marks = self._write_files(last.partition if last is not None else None, plan, snapshot, encoding)
        except OSError as error:
            raise TablesError(
                f"{error.filename or self.out_dir}: the tables could not be written ({error.strerror or error}); "
                "they stay as they were, the next attempt follows"
            ) from error
        self._written = _Written(encoding, marks, plan.partition.n_bits, digests, plan.partition)
        if self._layout is not None and digests is not None:
            groups = {name: file.groups for name, file in self._files.items()}
            save_layout(self._layout, Layout(self._made_for(encoding, marks), plan.partition.n_bits, digests, groups))
        return bool(plan.sessions or plan.datasets)

    def _take_last(self, encoding: Encoding) -> _Written | None:
        """Return what is on disk, if it is known and made in the same way; None where everything is to be written."""
        last, self._written = self._written, None
        marks = self._marks()
        if last is None or last.marks != marks:
            last = self._load_last(encoding, marks)
        if last is None or not last.is_encoded_by(encoding):
            self._forget()
            return None
        return last

    def _load_last(self, encoding: Encoding, marks: tuple[FileMark | None, FileMark | None]) -> _Written | None:
        """Return what an earlier process noted, or this one before a write failed."""
        made_for = self._made_for(encoding, marks)
        noted = load_layout(self._layout, made_for) if self._layout is not None and not encoding.has_kept else None
        if noted is None:
            return None
        for name, file in self._files.items():
            file.groups = noted.groups[name]
        return _Written(encoding, marks, noted.n_bits, noted.digests, None)

    def _forget(self) -> None:
        for file in self._files.values():
            file.groups = {}

    def _write_files(
        self, old: Partition | None, plan: Plan, snapshot: Snapshot, encoding: Encoding
    ) -> tuple[FileMark, FileMark]:
        """Write both files in the right order, and return their marks."""
        before: Set[bytes] = frozenset()
        after: Set[bytes] = frozenset()
        if old is not None:
            before, after = ({eid for eid, _ in members} for members in (plan.gone, plan.added))
        elif plan.sessions:
            before, after = _read_ids(self.out_dir / SESSIONS), set(plan.partition.eids.values())
        metadata = self._metadata(snapshot, encoding)
        if before - after and after - before:  # until the datasets are replaced, sessions of either must be there
            self._write_both(old, plan, before - after, encoding, metadata)
            plan = plan if old is not None else replace(plan, sessions=set(plan.partition.members))
        if before - after:
            datasets = self._write_datasets(plan, snapshot, encoding, metadata)
            return self._write_sessions(plan, encoding, metadata), datasets
        sessions = self._write_sessions(plan, encoding, metadata)
        return sessions, self._write_datasets(plan, snapshot, encoding, metadata)

    def _write_sessions(self, plan: Plan, encoding: Encoding, metadata: dict[bytes, bytes]) -> FileMark:
        rows = plan.partition.sessions_of
        tables = ((group, encode.session_rows(rows(group), encoding)) for group in sorted(plan.sessions))
        return self._replace(SESSIONS, encode.sessions_schema(encoding), metadata, tables)

    def _write_datasets(
        self, plan: Plan, snapshot: Snapshot, encoding: Encoding, metadata: dict[bytes, bytes]
    ) -> FileMark:
        def make(group: int) -> pa.Table:
            return encode.for_readers(encode.dataset_rows(plan.partition.sessions_of(group), encoding))

        tables = ((group, make(group)) for group in sorted(plan.datasets))
        return self._replace(DATASETS, encode.datasets_schema(snapshot, encoding), metadata, tables)

    def _write_both(
        self, old: Partition | None, plan: Plan, gone: Set[bytes], encoding: Encoding, metadata: dict[bytes, bytes]
    ) -> None:
        """Write the sessions of before and after, of no generation: nobody shall take them for one half of a pair."""
        parts = plan.partition
        if old is not None:
            rows = {group: parts.sessions_of(group) for group in sorted(plan.sessions)}
            for eid, path in plan.gone:
                if eid in gone:
                    insort(rows[parts.group_of(eid)], (eid, old.sessions[path]), key=itemgetter(0))
            tables = {group: encode.session_rows(each, encoding) for group, each in rows.items()}
        else:
            every = [member for group in sorted(parts.members) for member in parts.sessions_of(group)]
            tables = dict.fromkeys(self._files[SESSIONS].groups, encode.session_rows([], encoding))
            tables[0] = self._with_old_sessions(encode.session_rows(every, encoding), gone)
        unpaired = {**metadata, METADATA_KEY: b'{"generation": 0}'}
        self._replace(SESSIONS, encode.sessions_schema(encoding), unpaired, tables.items())

    def is_untouched(self) -> bool:
        """Tell whether both files are as `write` left them; False if another program replaced or removed one."""
        return self._written is not None and self._marks() == self._written.marks

    def _marks(self) -> tuple[FileMark | None, FileMark | None]:
        return file_mark(self.out_dir / SESSIONS), file_mark(self.out_dir / DATASETS)

    def _made_for(self, encoding: Encoding, marks: tuple[FileMark | None, FileMark | None]) -> dict[str, Any]:
        """Return what must be equal for a layout to hold, but for what is kept, with which none is noted."""
        return {
            "version": alfwatchd.__version__,
            "files": [str(self.out_dir / name) for name in (SESSIONS, DATASETS)],
            "marks": [list(mark) if mark else None for mark in marks],
            "namespace": str(encoding.namespace),
            "lab": encoding.lab,
            "with_hashes": encoding.with_hashes,
        }

    def _replace(
        self, name: str, schema: pa.Schema, metadata: dict[bytes, bytes], tables: Iterable[tuple[int, pa.Table]]
    ) -> FileMark:
        """Put a new version of a file in place, in which these row groups are replaced."""
        described = schema.with_metadata({**metadata, **schema.metadata})
        return write_atomically(self.out_dir / name, lambda target: self._files[name].write(target, described, tables))

    def _metadata(self, snapshot: Snapshot, encoding: Encoding) -> dict[bytes, bytes]:
        # one.alf.cache._metadata: local time, in minutes
        created = datetime.datetime.now().isoformat(sep=" ", timespec="minutes")
        own = {
            "generation": snapshot.generation,
            "namespace": str(encoding.namespace),
            "lab": encoding.lab,
            "with_hashes": encoding.with_hashes,
            "has_kept": encoding.has_kept,
        }
        return {
            b"one_metadata": json.dumps({"date_created": created, "origin": self.origin}).encode(),
            METADATA_KEY: json.dumps(own).encode(),
        }

    def _with_old_sessions(self, sessions: pa.Table, gone: Set[bytes]) -> pa.Table:
        """Add sessions that are on disk; where another program made them in another way, do without."""
        old = _read_file(self.out_dir / SESSIONS)
        is_gone = pa.array([ids.parse_id(eid) in gone for eid in old.column("id").to_pylist()], pa.bool_())
        try:
            kept = old.filter(is_gone).select(sessions.column_names).cast(sessions.schema)
        except (KeyError, pa.ArrowException):
            return sessions
        return pa.concat_tables([sessions, kept]).sort_by("id").combine_chunks()


def write_table(path: Path, table: pa.Table) -> FileMark:
    """Write a whole table as `write_atomically` does."""

    def write(target: Path) -> None:
        with target.open("wb") as file:
            pq.write_table(table, file)

    return write_atomically(path, write)


@dataclass(frozen=True, slots=True)
class StoredTables:
    """Tables as they are on disk.

    Parameters
    ----------
    sessions, datasets : pyarrow.Table
        With their index as plain columns; `datasets` may be older or newer than `sessions`.
    generation : int
        0 if the files are not ours.
    metadata : dict
        What `Store.write` recorded about the datasets; empty if the file is not ours.
    """

    sessions: pa.Table
    datasets: pa.Table
    generation: int
    metadata: dict[str, Any]
    modified: float
    """When the datasets file was last written, in seconds since 1970."""


def read_tables(folder: Path) -> StoredTables | None:
    """Read the tables in a folder; None if one of the two is not there.

    Raises
    ------
    TablesError
        A file is there but is no table that ONE could use.
    """
    sessions_path, datasets_path = folder / SESSIONS, folder / DATASETS
    if not (sessions_path.exists() and datasets_path.exists()):
        return None
    sessions, datasets = (_read(path) for path in (sessions_path, datasets_path))
    metadata = _own_metadata(datasets)
    generation = max(int(metadata.get("generation", 0)), int(_own_metadata(sessions).get("generation", 0)))
    return StoredTables(sessions, datasets, generation, metadata, datasets_path.stat().st_mtime)


def read_sessions(folder: Path) -> pa.Table | None:
    """Read the sessions table in a folder, which is small; None if there is none that can be read."""
    try:
        return _read_file(folder / SESSIONS)
    except (OSError, pa.ArrowException):
        return None


def read_generation(folder: Path) -> tuple[int, dict[str, Any]]:
    """Return generation and own metadata of the tables in a folder without reading rows; (0, {}) if not ours."""
    found = []
    for name in (SESSIONS, DATASETS):
        try:
            with _open(folder / name) as raw:
                found.append(json.loads((pq.read_metadata(raw).metadata or {}).get(METADATA_KEY, b"{}")))
        except (OSError, pa.ArrowException, ValueError):
            return 0, {}
    return max(int(metadata.get("generation", 0)) for metadata in found), found[1]


@contextmanager
def open_datasets(folder: Path) -> Iterator[pq.ParquetFile | None]:
    """Open the datasets in a folder, to be read even after another file has replaced them; None if there are none."""
    with ExitStack() as stack:
        file = None
        with suppress(OSError, pa.ArrowException):
            raw = stack.enter_context(_open(folder / DATASETS))
            file = stack.enter_context(pq.ParquetFile(raw))
        yield file


def read_ids_and_sizes(datasets: pq.ParquetFile | None) -> pa.Table | None:
    """Return what identifies datasets, and their sizes.

    Returns
    -------
    pyarrow.Table or None
        Columns id (fixed-size binary, the 16 bytes of the UUID, or of a digest of an id that is none) and file_size
        (uint64, bytes), `n_datasets` rows, in 24 bytes a row; None if there is no table that has them.
    """
    if datasets is None:
        return None
    parts = []
    try:
        for number in range(datasets.num_row_groups):
            part = datasets.read_row_group(number, ["id", "file_size"])
            own_ids = part.column("id").cast(pa.string()).combine_chunks()
            sizes = part.column("file_size").cast(pa.uint64()).combine_chunks()
            parts.append(pa.table({"id": _pack_ids(own_ids), "file_size": sizes}))
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    schema = pa.schema([("id", pa.binary(16)), ("file_size", pa.uint64())])
    return pa.concat_tables(parts) if parts else schema.empty_table()


def _pack_ids(texts: pa.StringArray) -> pa.FixedSizeBinaryArray:
    try:
        return arrow.parse_uuids(texts)
    except ValueError:
        digests = b"".join(ids.md5(str(text).encode()).digest() for text in texts.to_pylist())
        return pa.Array.from_buffers(pa.binary(16), len(texts), [None, pa.py_buffer(digests)])


def compare(old: pa.Table | None, new: pa.Table | None) -> Changes:
    """Count the dataset rows that differ between two results of `read_ids_and_sizes`.

    Rows are the same if their ids are; tables by ONE itself have other ids at every run.
    """
    n_old, n_new = (0 if table is None else len(table) for table in (old, new))
    if old is None or new is None:
        return Changes(n_new, 0, n_old)
    places = pc.index_in(new.column("id"), value_set=old.column("id").combine_chunks())
    n_both = n_new - places.null_count
    changed = pc.sum(pc.not_equal(old.column("file_size").take(places), new.column("file_size"))).as_py() or 0
    return Changes(n_new - n_both, changed, n_old - n_both)


def check_out_dir(out_dir: Path) -> None:
    """Make sure that tables can be written to a folder.

    Raises
    ------
    OutDirError
        It is missing, no folder, or not writable.
    """
    if not out_dir.is_dir():
        raise OutDirError(f"{out_dir}: the output folder does not exist or is not a folder; make it first")
    if not os.access(out_dir, os.W_OK | os.X_OK):
        raise OutDirError(f"{out_dir}: the output folder is not writable for this user; choose another out_dir")


def _read_file(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file; unlike `pyarrow.parquet.read_table`, without importing half of pyarrow."""
    with _open(path) as raw, pq.ParquetFile(raw) as file:
        return file.read(columns)


def _open(path: Path) -> pa.OSFile:
    """Open a file for Arrow, which takes a text path for a URI, and no name that is not UTF-8."""
    return pa.OSFile(os.fsencode(path))


def _read(path: Path) -> pa.Table:
    """Read a table, with ids as plain strings, whoever wrote it."""
    try:
        table = _read_file(path)
    except (OSError, pa.ArrowException) as error:
        raise TablesError(f"{path}: not a readable Parquet file ({error}); remove it to have it made anew") from error
    for name in {"eid", "id"} & set(table.column_names):
        if pa.types.is_dictionary(table.schema.field(name).type):
            column = table.column(name).cast(pa.string())
            table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _read_ids(path: Path) -> frozenset[bytes]:
    """Return the session ids in a file; none if there is no such file or it is broken, as nobody can read it then."""
    try:
        column = _read_file(path, ["id"]).column("id").to_pylist()
    except (OSError, pa.ArrowException, KeyError):
        return frozenset()
    return frozenset(eid for eid in map(ids.parse_id, column) if eid is not None)


def _own_metadata(table: pa.Table) -> dict[str, Any]:
    try:
        loaded = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}
