"""Reads the tables of a database, if they have changed: from a folder, a zip file, a web server, or Alyx itself."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from alfwatchd import credentials
from alfwatchd.addresses import shown
from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.database import alyx
from alfwatchd.database.source_tables import Pair, Source, SourceVersion, check_pair, read_pair, read_zip_at
from alfwatchd.database.web_source import PAUSE_SECONDS, TRIES, ZIP, read_web
from alfwatchd.errors import SourceError

ALYX_PREFIX = "alyx+"
ALYX_CREDENTIALS = ("alyx_username", "alyx_password", "alyx_token")
"""Names of credentials."""


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
        return read_web(source, seen, scratch)
    path = Path(source)
    try:
        if not path.is_dir():
            return _read_still(source, [path], seen, lambda: read_zip_at(path, scratch))
        tables = [path / SESSIONS, path / DATASETS]
        if not any(table.exists() for table in tables) and (path / ZIP).exists():
            return _read_still(source, [path / ZIP], seen, lambda: read_zip_at(path / ZIP, scratch))
    except OSError as error:
        raise SourceError(f"{source}: cannot be opened: {error.strerror}; check adopt.source") from error
    return _read_still(source, tables, seen, lambda: read_pair(tables, [*map(str, tables)]))


# Files on this computer.


def _read_still(
    source: str, paths: Sequence[Path], seen: SourceVersion | None, read: Callable[[], Pair]
) -> Source | None:
    """Read files, and make sure that no other process replaced or rewrote them meanwhile."""
    for attempt in range(TRIES):
        versions = [_version_of(path) for path in paths]
        if seen is not None and seen.get("files") == versions:
            return None
        failure = None
        try:
            pair = read()
        except SourceError as error:
            failure = error
        try:
            is_still = versions == [_version_of(path) for path in paths]
        except SourceError:
            is_still = False
        if is_still and failure is not None:
            raise failure
        if is_still:
            version = {"source": source, "files": versions}
            return Source(pair.sessions, pair.datasets, version, ", ".join(map(str, paths)))
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
    pair = check_pair(sessions, datasets, told)
    return Source(pair.sessions, pair.datasets, version, told)
