"""The two Parquet files: snapshots are written by atomic replace, tables of any origin are read.

A reader never sees half a file. ``.ONE.lock`` is ONE's own lock file (``iblutil.io.params.FileLock``), which
``One.save_cache`` takes as well.
"""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alfwatchd.core import encode, ids
from alfwatchd.core.encode import Encoding
from alfwatchd.core.folder import Changes
from alfwatchd.core.partition import Partition, plan_groups
from alfwatchd.core.tables import Snapshot
from alfwatchd.errors import OutDirError, TablesError
from alfwatchd.grouped import GroupedFile

SESSIONS = "sessions.pqt"
DATASETS = "datasets.pqt"
METADATA_KEY = b"alfwatchd"
"""Schema metadata of our own; `one_metadata` stays exactly what ONE writes."""

_LOCK_NAME = ".ONE.lock"
_LOCK_STALE_SECONDS = 5.0
_LOCK_POLL_SECONDS = 0.05

FileMark = tuple[int, int, int]
"""Inode, size in bytes and mtime_ns of a file: enough to see that another program replaced it."""


@dataclass(frozen=True, slots=True)
class _Written:
    """What the last `Store.write` left on disk, so that the next one writes only what differs."""

    partition: Partition
    encoding: Encoding
    marks: tuple[FileMark, FileMark]

    def is_encoded_by(self, encoding: Encoding) -> bool:
        """Tell whether rows would be made into the same columns."""
        return self.encoding == encoding and self.encoding.kept is encoding.kept


class Store:
    """Writes the tables of one root into one folder. Used by one thread at a time.

    Parameters
    ----------
    out_dir : Path
        Existing folder.
    origin : str
        Root that the tables describe, as ONE records it.
    """

    def __init__(self, out_dir: Path, origin: str) -> None:
        self.out_dir = out_dir
        self.origin = origin
        self._files = {name: GroupedFile(out_dir / name) for name in (SESSIONS, DATASETS)}
        self._written: _Written | None = None

    def write(self, snapshot: Snapshot, encoding: Encoding) -> None:
        """Replace both files so that every dataset row has its session at every moment.

        Raises
        ------
        TablesError
            Nothing was replaced, or the file that is older than the other one is the one that hides nothing.
        """
        last, self._written = (self._written if self.is_untouched() else None), None
        old = frozenset(last.partition.eids.values()) if last is not None else _read_ids(self.out_dir / SESSIONS)
        if last is None or not last.is_encoded_by(encoding) or self._files[DATASETS].is_wasteful:
            last = None
        partition, groups = plan_groups(last.partition if last is not None else None, snapshot, encoding)
        if last is None or partition.n_bits != last.partition.n_bits:
            for file in self._files.values():
                file.forget()
        new = frozenset(partition.eids.values())
        sessions = encode.sessions_table(snapshot, encoding)
        steps = [SESSIONS, DATASETS] if not old - new else [DATASETS, SESSIONS]
        metadata = self._metadata(snapshot, encoding)
        marks = {}
        try:
            if old - new and new - old:  # until the datasets are replaced, sessions of either must be there
                both = self._with_old_sessions(sessions)
                self._replace(SESSIONS, both.schema, {0: both}, metadata)
            for name in steps:
                if name == SESSIONS:
                    marks[name] = self._replace(name, sessions.schema, {0: sessions}, metadata)
                else:
                    tables = {group: encode.dataset_rows(members, encoding) for group, members in groups.items()}
                    schema = encode.datasets_schema(snapshot, encoding)
                    marks[name] = self._replace(name, schema, tables, metadata)
        except OSError as error:
            raise TablesError(
                f"{error.filename or self.out_dir}: the tables could not be written ({error.strerror or error}); "
                "they stay as they were, the next attempt follows"
            ) from error
        self._written = _Written(partition, encoding, (marks[SESSIONS], marks[DATASETS]))

    def is_untouched(self) -> bool:
        """Tell whether both files are as `write` left them; False if another program replaced or removed one."""
        marks = tuple(_file_mark(self.out_dir / name) for name in (SESSIONS, DATASETS))
        return self._written is not None and marks == self._written.marks

    def _replace(
        self, name: str, schema: pa.Schema, tables: Mapping[int, pa.Table], metadata: dict[bytes, bytes]
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
            "has_kept": bool(encoding.kept.sessions or encoding.kept.datasets),
        }
        return {
            b"one_metadata": json.dumps({"date_created": created, "origin": self.origin}).encode(),
            METADATA_KEY: json.dumps(own).encode(),
        }

    def _with_old_sessions(self, sessions: pa.Table) -> pa.Table:
        """Add the sessions that are on disk; where another program made them in another way, do without."""
        old, new = _read_file(self.out_dir / SESSIONS), set(sessions.column("id").to_pylist())
        gone = pa.array([eid not in new for eid in old.column("id").to_pylist()], pa.bool_())
        try:
            kept = old.filter(gone).select(sessions.column_names).cast(sessions.schema.remove_metadata())
        except (KeyError, pa.ArrowException):
            return sessions
        both = pa.concat_tables([sessions, kept]).sort_by("id")
        # Of no generation, so that nobody takes it for one half of a pair.
        return both.replace_schema_metadata({**sessions.schema.metadata, METADATA_KEY: b'{"generation": 0}'})


def write_table(path: Path, table: pa.Table) -> FileMark:
    """Write a whole table as `write_atomically` does."""

    def write(target: Path) -> None:
        with target.open("wb") as file:
            pq.write_table(table, file)

    return write_atomically(path, write)


def write_atomically(path: Path, write: Callable[[Path], None]) -> FileMark:
    """Write a Parquet file under a temporary name, make it durable, and rename it under ONE's lock.

    The temporary name does not end in ``.pqt``: One loads every file that does.

    Parameters
    ----------
    path : Path
    write : callable
        Writes to the path that it is given.

    Returns
    -------
    tuple
        By which the file can be told from one that another program puts in its place, however soon.

    Raises
    ------
    OSError
        Nothing was replaced.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
            mark = _mark(os.fstat(file.fileno()))
        with one_lock(path.parent):
            temporary.replace(path)
        _sync_folder(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return mark


@contextmanager
def one_lock(folder: Path) -> Iterator[None]:
    """Hold ``.ONE.lock`` in a folder; one that is older than five seconds was left behind and is taken over."""
    lock = folder / _LOCK_NAME
    fd = _make_lock(lock)
    try:
        with os.fdopen(fd, "w") as file:
            json.dump({"pid": os.getpid(), "program": "alfwatchd"}, file)
        yield
    finally:
        lock.unlink(missing_ok=True)


def _make_lock(lock: Path) -> int:
    """Return a descriptor of the lock file, made as soon as no other process holds it."""
    seen, since = None, time.monotonic()
    while True:
        try:
            return os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            mark = _file_mark(lock)
        if mark != seen:
            seen, since = mark, time.monotonic()
        # Its own time tells of an old one at once; the wait, where clocks differ (the folder may be on a server).
        is_old = seen is not None and time.time() - seen[2] / 1e9 > _LOCK_STALE_SECONDS
        if seen is not None and (is_old or time.monotonic() - since > _LOCK_STALE_SECONDS):
            lock.unlink(missing_ok=True)
        else:
            time.sleep(_LOCK_POLL_SECONDS)


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


def read_ids_and_sizes(folder: Path) -> pa.Table | None:
    """Return the columns id and file_size of the datasets in a folder; None if there is no table that has them."""
    schema = pa.schema([("id", pa.string()), ("file_size", pa.uint64())])
    try:
        return _read_file(folder / DATASETS, schema.names).select(schema.names).cast(schema)
    except (OSError, pa.ArrowException, KeyError):
        return None


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
    try:
        return _read_file(path)
    except (OSError, pa.ArrowException) as error:
        raise TablesError(f"{path}: not a readable Parquet file ({error}); remove it to have it made anew") from error


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


def _file_mark(path: Path) -> FileMark | None:
    try:
        return _mark(path.stat())
    except OSError:
        return None


def _mark(about: os.stat_result) -> FileMark:
    return about.st_ino, about.st_size, about.st_mtime_ns


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
