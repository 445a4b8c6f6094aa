"""A folder as a target: a web server shows it, or Alyx has it as ``TABLES_ROOT``."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from alfwatchd import linux
from alfwatchd.alf.file_names import TABLES, ZIP
from alfwatchd.atomic import replace_file, temporary_name
from alfwatchd.errors import TargetChanged, TargetError
from alfwatchd.files import NotRegular, open_regular, sync_folder
from alfwatchd.publish.target import Token

LOCK_NAME = ".publishing.lock"
_CHUNK_BYTES = 1 << 20
LOCK_SECONDS = 60.0
"""How long to wait for the lock. A publisher holds it while it writes one file."""
_LOCK_POLL_SECONDS = 0.05
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class FolderTarget:
    """Files in a folder. All publishers take one lock while they compare and replace a file.

    Other users may write to the folder, too. So no symbolic link below it is followed, and only regular files are read.

    Parameters
    ----------
    folder : Path
        Must exist: it is not made, because it may be the mount point of a file system that is not mounted now.
    tag : str
        Sub-folder for all files, made if it is missing; empty for none.
    """

    def __init__(self, folder: Path, tag: str = "") -> None:
        self._folder = folder
        self._base = folder / tag
        self._above = (tag,) if tag else ()
        self.address = str(self._base)
        self.location = ""

    def token(self, key: str) -> Token | None:
        """See `Target`."""
        *above, name = key.split("/")
        with _told(self._base / key), suppress(FileNotFoundError), self._open_folder(*above) as folder:
            return _token(folder, name)
        return None

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """See `Target`."""
        *above, name = key.split("/")
        with _told(self._base / key):
            try:
                with self._open_folder(*above) as folder:
                    file = _open_file(folder, name)
            except FileNotFoundError as error:
                raise TargetChanged(f"{self._base / key}: it was removed just now; try again") from error
            with file:
                yield file

    def create(self, key: str, content: BinaryIO) -> None:
        """See `Target`."""
        self.replace(key, content, None)

    def replace(self, key: str, content: BinaryIO, token: Token | None) -> None:
        """See `Target`."""
        *above, name = key.split("/")
        path = self._base / key
        with _told(path):
            try:
                with self._open_folder(*above, make=True) as folder, self.lock():
                    _replace(folder, name, content, token)
            except FileNotFoundError as error:
                raise TargetChanged(f"{path}: its folder was removed just now; try again") from error
            except FileExistsError as error:
                raise TargetChanged(f"{path}: another publisher has written it meanwhile; try again") from error

    def generations(self) -> set[str]:
        """See `Target`."""
        with (
            _told(self._base / TABLES),
            suppress(FileNotFoundError),
            self._open_folder(TABLES) as folder,
            os.scandir(folder) as entries,
        ):
            return {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        return set()

    def remove(self, generation: str) -> None:
        """See `Target`. Removes only files that publishers make."""
        with _told(self._base / TABLES / generation), suppress(FileNotFoundError), self._open_folder(TABLES) as tables:
            with self._open_folder(TABLES, generation) as folder:
                for name in (ZIP, temporary_name(ZIP)):
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)
            try:
                os.rmdir(generation, dir_fd=tables)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # there are other files in it
                    raise

    def close(self) -> None:
        """See `Target`."""

    @contextmanager
    def _open_folder(self, *names: str, make: bool = False) -> Iterator[int]:
        """Walk from the folder down, and yield a descriptor; raise `FileNotFoundError` where a folder is missing."""
        path = self._folder
        try:
            folder = os.open(path, _FOLDER)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise TargetError(f"{path}: the target is not a folder, or is not mounted; make it, or mount it") from error
        try:
            for name in (*self._above, *names):
                path /= name
                inner = _enter(folder, name, path, make=make)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other publishers out. If the process that holds the lock is killed, the kernel releases it.

        Raises
        ------
        TargetError
            Another process holds it for `LOCK_SECONDS`.
        """
        with self._open_folder() as folder:
            fd = os.open(LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666, dir_fd=folder)
        try:
            deadline = time.monotonic() + LOCK_SECONDS
            while not linux.try_flock(fd):
                if time.monotonic() > deadline:
                    lock = self._base / LOCK_NAME
                    raise TargetError(f"{lock}: another process holds it all the time; `fuser -v` on it shows which")
                time.sleep(_LOCK_POLL_SECONDS)
            yield
        finally:
            os.close(fd)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn an `OSError` into a `TargetError` that names the path."""
    try:
        yield
    except OSError as error:
        raise TargetError(
            f"{path}: {error.strerror or error}; check the target's folder, its owner and space"
        ) from error


def _enter(folder: int, name: str, path: Path, *, make: bool) -> int:
    """Open a folder in a folder; `make` makes it first, so that it survives a power cut."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
            sync_folder(folder)
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except NotADirectoryError as error:
        raise TargetError(f"{path}: is not a folder, or is a link, which is not followed; remove it") from error


def _open_file(folder: int, name: str) -> BinaryIO:
    """Open a regular file for reading. Anything else counts as empty: a pipe would block, a link may lead anywhere."""
    try:
        return open_regular(name, dir_fd=folder, follow_links=False)
    except OSError as error:
        if isinstance(error, NotRegular) or error.errno in (errno.ELOOP, errno.ENXIO):
            return BytesIO()
        raise


def _token(folder: int, name: str) -> Token | None:
    try:
        about = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return f"{about.st_ino}-{about.st_size}-{about.st_mtime_ns}-{about.st_ctime_ns}"


def _replace(folder: int, name: str, content: BinaryIO, token: Token | None) -> None:
    """Replace a file; raise `FileExistsError` if its version is no longer `token`."""

    def write(file: BinaryIO) -> None:
        content.seek(0)
        shutil.copyfileobj(content, file, _CHUNK_BYTES)

    @contextmanager
    def replacing() -> Iterator[None]:
        if _token(folder, name) != token:
            raise FileExistsError
        yield

    replace_file(Path(name), write, dir_fd=folder, replacing=replacing)
