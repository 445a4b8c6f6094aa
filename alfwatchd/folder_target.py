"""A folder that gets the tables: a web server shows it, or Alyx has it as ``TABLES_ROOT``."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from alfwatchd.core.publication import TABLES, ZIP, Token
from alfwatchd.errors import TargetChanged, TargetError

LOCK_NAME = ".publishing.lock"
_CHUNK_BYTES = 1 << 20


class FolderTarget:
    """Files in a folder. What is replaced is compared and renamed under a lock that all publishers take.

    Parameters
    ----------
    folder : Path
        Must be there: what is meant to be mounted and is not must not be written to.
    tag : str
        Sub-folder for all of it, made where it lacks; empty for none.
    """

    def __init__(self, folder: Path, tag: str = "") -> None:
        self._folder = folder
        self._base = folder / tag
        self.address = str(self._base)
        self.location = ""

    def token(self, key: str) -> Token | None:
        """See `Target`."""
        with _told(self._base / key):
            self._check()
            return self._mark(key)

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """See `Target`."""
        with _told(self._base / key), (self._base / key).open("rb") as file:
            yield file

    def create(self, key: str, content: BinaryIO) -> None:
        """See `Target`."""
        self.replace(key, content, None)

    def replace(self, key: str, content: BinaryIO, token: Token | None) -> None:
        """See `Target`."""
        path = self._base / key
        with _told(path):
            self._check()
            _make_folders(path.parent, self._folder)
            with self._lock():
                # Temporary files have one name each: what a killed publisher has left, the next one writes over.
                temporary = path.with_name(f".{path.name}.tmp")
                _write_whole(temporary, content)
                if self._mark(key) != token:
                    temporary.unlink()
                    raise TargetChanged(f"{path}: another publisher has written it meanwhile; try again")
                temporary.replace(path)
                _sync(path.parent)

    def generations(self) -> set[str]:
        """See `Target`."""
        folder = self._base / TABLES
        with _told(folder), suppress(FileNotFoundError):
            return {entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)}
        return set()

    def remove(self, generation: str) -> None:
        """See `Target`. Removes what publishers put there, nothing else."""
        folder = self._base / TABLES / generation
        with _told(folder), suppress(FileNotFoundError):
            for name in (ZIP, f".{ZIP}.tmp"):
                (folder / name).unlink(missing_ok=True)
            try:
                folder.rmdir()
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # somebody's own files
                    raise

    def close(self) -> None:
        """See `Target`."""

    def _mark(self, key: str) -> Token | None:
        try:
            about = (self._base / key).stat()
        except FileNotFoundError:
            return None
        return f"{about.st_ino}-{about.st_size}-{about.st_mtime_ns}-{about.st_ctime_ns}"

    def _check(self) -> None:
        if not self._folder.is_dir():
            raise TargetError(f"{self._folder}: the target is no folder, or not mounted; make it, or mount it")

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Keep other publishers out. The kernel lets go of it for whoever is killed."""
        fd = os.open(self._base / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Make errors of the disk those of the target."""
    try:
        yield
    except OSError as error:
        raise TargetError(
            f"{path}: {error.strerror or error}; check the target's folder, its owner and space"
        ) from error


def _make_folders(folder: Path, above: Path) -> None:
    """Make a folder and those between, so that they outlast a power cut."""
    if folder == above or folder.is_dir():
        return
    _make_folders(folder.parent, above)
    with suppress(FileExistsError):
        folder.mkdir()
    _sync(folder.parent)


def _write_whole(path: Path, content: BinaryIO) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    content.seek(0)
    with os.fdopen(fd, "wb") as file:
        shutil.copyfileobj(content, file, _CHUNK_BYTES)
        file.flush()
        os.fsync(fd)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
