"""Reads the tables of a database, if they have changed: from a folder, a zip file, a web server, or Alyx itself."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import urljoin, urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from alfwatchd import credentials
from alfwatchd.addresses import shown
from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.database import alyx
from alfwatchd.database.download import MOST_BYTES, Version, fetch, origin
from alfwatchd.errors import SourceError, SourceMissing
from alfwatchd.files import open_regular
from alfwatchd.store.reader import read_file
from alfwatchd.store.zip_files import check_member, open_zip

ZIP, INFO = "cache.zip", "cache_info.json"
"""What Alyx calls the two files that it publishes."""
ALYX_PREFIX = "alyx+"
TOKEN, ALYX_CREDENTIALS = "adopt_token", ("alyx_username", "alyx_password", "alyx_token")
"""Names of credentials."""

SourceVersion: TypeAlias = dict[str, Any]
"""What tells a source from a later version of it. Plain JSON, equal after it was saved and loaded."""

_MOST_INFO_BYTES = 1 << 20
TRIES, PAUSE_SECONDS = 5, 0.2
"""How often to try to read files that are being replaced, and seconds between two tries."""
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


def read_source(source: str, seen: SourceVersion | None, scratch: Path | None = None) -> Source | None:
    """Read the tables of a database, unless they are those that were seen. Any thread may call it; it may take minutes.

    Parameters
    ----------
    source : str
        Folder with the two tables or a ``cache.zip``; a zip file; the ``http(s)`` address of either; the address of an
        Alyx database with ``alyx+`` before it.
    seen : dict or None
        `Source.version` of an earlier call; the version of another source counts as None.
    scratch : Path or None
        Folder for temporary files, which have no name there; default: that of the system.

    Returns
    -------
    Source or None
        None if nothing has changed.

    Raises
    ------
    SourceError
        It cannot be reached, is damaged, is being replaced, or holds no tables of ONE.
    ConfigError
        It needs a package that is not installed, or a credential that cannot be read.
    """
    if seen is not None and seen.get("source") != source:
        seen = None
    if source.startswith(ALYX_PREFIX):
        return _read_alyx(source, seen)
    if "://" in source:
        return _read_web(source, seen, scratch)
    path = Path(source)
    try:
        if not path.is_dir():
            return _read_still(source, [path], seen, lambda: _read_zip_at(path, scratch))
        tables = [path / SESSIONS, path / DATASETS]
        if not any(table.exists() for table in tables) and (path / ZIP).exists():
            return _read_still(source, [path / ZIP], seen, lambda: _read_zip_at(path / ZIP, scratch))
    except OSError as error:
        raise SourceError(f"{source}: cannot be opened: {error.strerror}; check adopt.source") from error
    return _read_still(source, tables, seen, lambda: _read_pair(tables, [*map(str, tables)]))


# Files on this computer.


def _read_still(
    source: str, paths: Sequence[Path], seen: SourceVersion | None, read: Callable[[], tuple[pa.Table, pa.Table]]
) -> Source | None:
    """Read files, and make sure that no other process replaced or rewrote them meanwhile."""
    for attempt in range(TRIES):
        versions = [_version_of(path) for path in paths]
        if seen is not None and seen.get("files") == versions:
            return None
        failure = None
        try:
            sessions, datasets = read()
        except SourceError as error:
            failure = error
        try:
            is_still = versions == [_version_of(path) for path in paths]
        except SourceError:
            is_still = False
        if is_still and failure is not None:
            raise failure
        if is_still:
            return Source(sessions, datasets, {"source": source, "files": versions}, ", ".join(map(str, paths)))
        time.sleep(PAUSE_SECONDS * (attempt + 1))
    raise SourceError(f"{paths[0]}: is being replaced all the time; will be read when it is at rest")


def _version_of(path: Path) -> list[int]:
    """Return inode, size in bytes and mtime_ns."""
    try:
        about = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(f"{path}: is not there; check adopt.source, or put the tables there") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}; check adopt.source") from error
    return [about.st_ino, about.st_size, about.st_mtime_ns]


def _read_pair(paths: Sequence[Path], told: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    return _read_table(paths[0], _SESSIONS, told[0]), _read_table(paths[1], _DATASETS, told[1])


def _read_zip_at(path: Path, scratch: Path | None) -> tuple[pa.Table, pa.Table]:
    with _told_of(str(path)), open_regular(path) as file:
        return _read_zip(file, str(path), scratch)


def _read_zip(file: BinaryIO, told: str, scratch: Path | None) -> tuple[pa.Table, pa.Table]:
    """Read the two tables in a zip file. What else is in it is not touched."""
    with _told_of(told), open_zip(file) as zipped:
        with _unpacked(zipped, SESSIONS, told, scratch) as path:
            sessions = _read_table(path, _SESSIONS, f"{SESSIONS} in {told}")
        with _unpacked(zipped, DATASETS, told, scratch) as path:
            return sessions, _read_table(path, _DATASETS, f"{DATASETS} in {told}")


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


# Web servers.


def _read_web(source: str, seen: SourceVersion | None, scratch: Path | None) -> Source | None:
    web = _Web(source, seen, scratch, credentials.find(TOKEN) or "")
    if urlsplit(source).path.endswith(".zip"):
        return web.read_zip(source)
    location = web.find_location()
    if location:
        return web.read_zip(location)
    with suppress(SourceMissing):
        return web.read_zip(web.below(ZIP))
    return web.read_pair()


class _Web:
    """One look at one address.

    Parameters
    ----------
    source : str
    seen : dict or None
    scratch : Path or None
    token : str
        For the server of `source` alone.
    """

    def __init__(self, source: str, seen: SourceVersion | None, scratch: Path | None, token: str) -> None:
        self._source, self._scratch, self._token = source, scratch, token
        self._known = {each["address"]: Version(**each) for each in (seen or {}).get("files", ())}

    def below(self, name: str) -> str:
        """Return the address of a file in the folder that the source is."""
        parts = urlsplit(self._source)
        return parts._replace(path=f"{parts.path.rstrip('/')}/{name}", fragment="").geturl()

    def find_location(self) -> str:
        """Return where ``cache_info.json`` says that the zip file is; empty if it does not say, or is not there."""
        address, content = self.below(INFO), io.BytesIO()
        try:
            self._fetch(address, content, None, _MOST_INFO_BYTES)
        except SourceMissing:
            return ""
        try:
            location = parse_json(content.getvalue()).get("location") or ""
            location = urljoin(address, location)
            is_web = urlsplit(location).scheme in ("http", "https")
        except (ValueError, AttributeError, TypeError) as error:
            raise SourceError(f"{shown(address)}: is not a {INFO} as Alyx writes it; check adopt.source") from error
        if not is_web:
            raise SourceError(
                f"{shown(address)}: its location is not an http or https address; name the address of the tables as "
                "adopt.source"
            )
        return "" if location == address else location

    def read_zip(self, address: str) -> Source | None:
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            version = self._fetch(address, file, self._known.get(address))
            if version is self._known.get(address):
                return None
            file.seek(0)
            sessions, datasets = _read_zip(file, shown(address), self._scratch)
        return self._make(sessions, datasets, [version])

    def read_pair(self) -> Source | None:
        """Read two files of which neither is replaced meanwhile."""
        addresses = [self.below(SESSIONS), self.below(DATASETS)]
        for attempt in range(TRIES):
            with ExitStack() as stack:
                files = [stack.enter_context(tempfile.TemporaryFile(dir=self._scratch)) for _ in addresses]
                known = [self._known.get(address) for address in addresses]
                found = [self._fetch(*each) for each in zip(addresses, files, known, strict=True)]
                if found == known:
                    return None
                # What has not changed was not fetched; both are needed.
                for number, (address, file) in enumerate(zip(addresses, files, strict=True)):
                    if found[number] is known[number]:
                        file.seek(0)
                        file.truncate()
                        found[number] = self._fetch(address, file, None)
                if self._fetch(addresses[0], io.BytesIO(), found[0]) is found[0]:
                    paths = [Path(f"/proc/self/fd/{file.fileno()}") for file in files]
                    for file in files:
                        file.flush()
                    return self._make(*_read_pair(paths, [*map(shown, addresses)]), found)
            time.sleep(PAUSE_SECONDS * (attempt + 1))
        raise SourceError(f"{shown(self._source)}: is being replaced all the time; will be read when it is at rest")

    def _fetch(self, address: str, into: BinaryIO, known: Version | None, most_bytes: int = MOST_BYTES) -> Version:
        token = self._token if origin(address) == origin(self._source) else ""
        return fetch(address, into, known, token, most_bytes)

    def _make(self, sessions: pa.Table, datasets: pa.Table, versions: list[Version]) -> Source:
        version = {"source": self._source, "files": [asdict(each) for each in versions]}
        return Source(sessions, datasets, version, ", ".join(shown(each.address) for each in versions))


# Alyx.


def _read_alyx(source: str, seen: SourceVersion | None) -> Source | None:
    username, password, token = (credentials.find(name) for name in ALYX_CREDENTIALS)
    address = source.removeprefix(ALYX_PREFIX)
    sessions, datasets = alyx.read_database(address, username, password, token)
    digest = hashlib.blake2b(digest_size=16)
    for table in (sessions, datasets):
        packed = pa.BufferOutputStream()
        with pa.ipc.new_stream(packed, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        digest.update(packed.getvalue())
    version = {"source": source, "files": [digest.hexdigest()]}
    if seen is not None and seen.get("files") == version["files"]:
        return None
    told = shown(source)
    return Source(_check(sessions, _SESSIONS, told), _check(datasets, _DATASETS, told), version, told)


# Tables.


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


def _read_table(path: Path, wanted: _Wanted, told: str) -> pa.Table:
    with _told_of(told):
        table = read_file(path, wanted.columns)
    return _check(table, wanted, told)


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
