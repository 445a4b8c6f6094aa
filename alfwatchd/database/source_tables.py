"""The two tables of a database in files of any origin: read whole, checked, and with plain texts."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.database.download import MOST_BYTES
from alfwatchd.errors import SourceError
from alfwatchd.files import open_regular
from alfwatchd.store.reader import read_file
from alfwatchd.store.zip_files import check_member, open_zip

SourceVersion: TypeAlias = dict[str, Any]
"""What tells a source from a later version of it. Plain JSON, equal after it was saved and loaded."""

_DAMAGES = (
    OSError, pa.ArrowException, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip
"""What reading damaged files raises; RuntimeError: a member of a zip file is encrypted."""


@dataclass(frozen=True, slots=True)
class Source:
    """The tables of a database, as they are.

    Parameters
    ----------
    sessions : pyarrow.Table
        Of the columns ``id`` or ``id_0`` and ``id_1``, lab, subject, date, number, and where the source has them,
        task_protocol, projects or project; `n_sessions` rows, at least one.
    datasets : pyarrow.Table
        Of the columns ``id`` or ``id_0`` and ``id_1``, ``eid`` or ``eid_0`` and ``eid_1``, rel_path, and where the
        source has them, session_path, file_size, hash, qc, default_revision and exists; `n_datasets` rows.
    version : dict
        For the next `read_source`.
    origin : str
        Path or address of what was read, without secrets.

    Notes
    -----
    Types are those of the source, except that categories become plain texts.
    """

    sessions: pa.Table
    datasets: pa.Table
    version: SourceVersion
    origin: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tables that were read, checked.

    Parameters
    ----------
    sessions, datasets : pyarrow.Table
        See `Source`.
    date_created : str
        What ONE's metadata of the sessions say; empty where they say nothing.
    """

    sessions: pa.Table
    datasets: pa.Table
    date_created: str = ""


def read_pair(paths: Sequence[Path], told: Sequence[str]) -> Pair:
    """Read sessions and datasets; `told` is what an error calls each.

    Raises
    ------
    SourceError
        One of them is damaged, or no table that Alyx or ONE makes.
    """
    sessions, date = _read_sessions(paths[0], told[0])
    return Pair(sessions, _read_table(paths[1], _DATASETS, told[1]), date)


def check_pair(sessions: pa.Table, datasets: pa.Table, told: str) -> Pair:
    """Do what `read_pair` does, with two tables in memory."""
    return Pair(_check(sessions, _SESSIONS, told), _check(datasets, _DATASETS, told))


def read_zip_at(path: Path, scratch: Path | None) -> Pair:
    """Do what `read_zip` does, with a file on this computer."""
    with _told_of(str(path)), open_regular(path) as file:
        return read_zip(file, str(path), scratch)


def read_zip(file: BinaryIO, told: str, scratch: Path | None) -> Pair:
    """Read the two tables in a zip file. What else is in it is not touched; raises as `read_pair`."""
    with _told_of(told), open_zip(file) as zipped:
        with _unpacked(zipped, SESSIONS, told, scratch) as path:
            sessions, date = _read_sessions(path, f"{SESSIONS} in {told}")
        with _unpacked(zipped, DATASETS, told, scratch) as path:
            return Pair(sessions, _read_table(path, _DATASETS, f"{DATASETS} in {told}"), date)


@contextmanager
def _unpacked(zipped: zipfile.ZipFile, name: str, told: str, scratch: Path | None) -> Iterator[Path]:
    """Yield a path that leads to a member's content as long as the context lasts."""
    members = [member for member in zipped.infolist() if member.filename == name]
    if len(members) != 1:
        raise SourceError(f"{told}: holds {len(members)} files named {name} instead of one; check adopt.source")
    with tempfile.TemporaryFile(dir=scratch) as unpacked:
        free = shutil.disk_usage(f"/proc/self/fd/{unpacked.fileno()}").free
        if (size := members[0].file_size) > min(MOST_BYTES, free):
            raise SourceError(f"{told}: {name} would take {size} bytes, more than tables need, or more than are free")
        check_member(members[0])
        with zipped.open(members[0]) as packed:  # gives no more bytes than the size that was told
            shutil.copyfileobj(packed, unpacked, 1 << 20)
        unpacked.flush()
        yield Path(f"/proc/self/fd/{unpacked.fileno()}")


@contextmanager
def _told_of(told: str) -> Iterator[None]:
    """Say of which file an error is, and what to do."""
    try:
        yield
    except _DAMAGES as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise SourceError(f"{told}: is damaged or cannot be read: {reason}; have it written again") from error


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a table must have, the names of its ids, which may be in two columns of integers, and what it may have."""

    required: tuple[str, ...]
    ids: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """All that is read."""
        spellings = [spelling for name in self.ids for spelling in (name, f"{name}_0", f"{name}_1")]
        return [*spellings, *self.required, *self.optional]


_SESSIONS = _Wanted(("lab", "subject", "date", "number"), ("id",), ("task_protocol", "projects", "project"))
_DATASETS = _Wanted(
    ("rel_path",), ("id", "eid"), ("session_path", "file_size", "hash", "qc", "default_revision", "exists")
)


_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_NUMBERS = (pa.types.is_integer, pa.types.is_floating)
_KINDS = {
    **dict.fromkeys([f"{name}_{half}" for name in ("id", "eid") for half in (0, 1)], _NUMBERS),
    **dict.fromkeys(["number", "file_size"], _NUMBERS),
    **dict.fromkeys(["default_revision", "exists"], (pa.types.is_boolean, *_NUMBERS)),
    "date": (pa.types.is_date, pa.types.is_timestamp),
    "qc": (*_TEXTS, pa.types.is_integer),
}
"""What columns may hold but nulls, where that is not texts."""


def _read_sessions(path: Path, told: str) -> tuple[pa.Table, str]:
    """Return the sessions, and what ONE's metadata say of when they were made; empty where they do not say it."""
    with _told_of(told):
        table = read_file(path, _SESSIONS.columns)
    try:
        date = parse_json((table.schema.metadata or {}).get(b"one_metadata", b"{}")).get("date_created")
    except (ValueError, AttributeError):
        date = None
    return _check(table, _SESSIONS, told), date if isinstance(date, str) else ""


def _read_table(path: Path, wanted: _Wanted, told: str) -> pa.Table:
    with _told_of(told):
        return _check(read_file(path, wanted.columns), wanted, told)


def _check(table: pa.Table, wanted: _Wanted, told: str) -> pa.Table:
    """Return a table with texts instead of categories; raise `SourceError` if it is not what its name says."""
    names = table.column_names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"{told}: has several columns {', '.join(twice)}; have it written again")
    missing = [name for name in wanted.required if name not in names]
    missing += [name for name in wanted.ids if name not in names and not {f"{name}_0", f"{name}_1"} <= set(names)]
    if missing:
        raise SourceError(f"{told}: lacks {', '.join(missing)}: this is not a table of Alyx or ONE; check adopt.source")
    if wanted is _SESSIONS and not len(table):
        raise SourceError(f"{told}: holds no sessions: nothing to adopt; have it written again")
    for place, field in enumerate(table.schema):
        column = table.column(place)
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, column.cast(field.type.value_type))
        elif pa.types.is_floating(field.type) and not pc.any(pc.is_finite(column)).as_py():
            table = table.set_column(place, field.name, pa.nulls(len(table)))  # to pandas, no text is no number
    for field in table.schema:
        if not any(is_kind(field.type) for is_kind in (pa.types.is_null, *_KINDS.get(field.name, _TEXTS))):
            raise SourceError(f"{told}: column {field.name} holds {field.type}: this is not a table of Alyx or ONE")
    return table.replace_schema_metadata(None)
