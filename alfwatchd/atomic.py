"""Replaces files as a whole: a reader finds the old content or the new one, also after a crash.

The one place that writes a file under a temporary name and renames it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from alfwatchd.files import FileVersion, remove, sync_folder, version_of

Lock = Callable[[Path], AbstractContextManager[None]]
"""Takes a lock in a folder for as long as the context lasts."""


def _no_lock(_folder: Path) -> AbstractContextManager[None]:
    return nullcontext()


def write_atomically(
    path: Path,
    write: Callable[[Path], None],
    *,
    mode: int = 0o666,
    check: Callable[[], None] = lambda: None,
    lock: Lock = _no_lock,
    is_durable: bool = True,
) -> FileVersion:
    """Write a file under a temporary name, and rename it.

    The temporary name does not end in ``.pqt``: One loads every file that does.

    Parameters
    ----------
    path : Path
        What is there is replaced, an empty folder too.
    write : callable
        Writes to the path that it is given, which leads to an empty file.
    mode : int
        Permissions of the file; the bits of the umask are removed.
    check : callable
        Called before the folder is touched, and again just before the file goes in place; raises OSError to prevent it.
    lock : callable
        Given the folder; held while the file is renamed.
    is_durable : bool
        Whether the new content must outlast a power cut. If not, the file may be damaged afterwards.

    Returns
    -------
    FileVersion
        Tells the file from one that another program puts in its place.

    Raises
    ------
    OSError
        Nothing was replaced, or the file is in place and its folder could not be synced.
    """

    def write_by_path(file: BinaryIO) -> None:
        # Not by its name: another program that may write to the folder can make the name lead elsewhere meanwhile.
        write(Path(f"/proc/self/fd/{file.fileno()}"))

    check()
    replacing = partial(_checked, path, check, lock)
    try:
        return replace_file(path, write_by_path, mode=mode, replacing=replacing, is_durable=is_durable)
    except OSError as error:
        if str(error.filename).startswith("/proc/self/fd/") or error.filename2 is not None:
            error.filename = str(path)
        raise


@contextmanager
def _checked(path: Path, check: Callable[[], None], lock: Lock) -> Iterator[None]:
    """Hold the lock while a file is renamed, after a last check."""
    with lock(path.parent):
        check()
        if path.is_dir():  # a file cannot replace it
            remove(path)
        yield


def replace_file(
    path: Path,
    write: Callable[[BinaryIO], None],
    *,
    dir_fd: int | None = None,
    mode: int = 0o666,
    replacing: Callable[[], AbstractContextManager[None]] = nullcontext,
    is_durable: bool = True,
) -> FileVersion:
    """Write a file under a temporary name, and rename it; without the checks of `write_atomically`.

    Parameters
    ----------
    path : Path
        With `dir_fd`, a name in that folder.
    write : callable
        Writes to the open, empty file.
    dir_fd : int or None
        Open folder.
    mode : int
        Permissions of the file; the bits of the umask are removed.
    replacing : callable
        Makes the context in which the file is renamed; it raises OSError on entry to prevent it.
    is_durable : bool
        Whether the new content must outlast a power cut.

    Returns
    -------
    FileVersion

    Raises
    ------
    OSError
        Nothing was replaced, unless only making the new name durable failed.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        with os.fdopen(_make_new(temporary, mode, dir_fd), "wb") as file:
            write(file)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
            version = version_of(os.fstat(file.fileno()))
        with replacing():
            os.replace(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        with suppress(OSError):  # a full disk should not be kept full by half a file
            os.unlink(temporary, dir_fd=dir_fd)
        raise
    if is_durable:
        sync_folder(path.parent if dir_fd is None else dir_fd)
    return version


def temporary_name(name: str) -> str:
    """Return the name of a file while it is written: the same in all processes, so that leftovers are written over."""
    return f".{name}.tmp"


def _make_new(path: Path, mode: int, dir_fd: int | None) -> int:
    """Make an empty file in place of whatever is there, and return its descriptor."""
    remove(path, dir_fd=dir_fd)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, mode, dir_fd=dir_fd)
