"""A file is replaced as a whole, under the lock that ONE takes, too.

``.ONE.lock`` is ONE's own lock file (``iblutil.io.params.FileLock``), which `One.save_cache` holds while it writes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK_NAME = ".ONE.lock"
_LOCK_STALE_SECONDS = 5.0
_LOCK_POLL_SECONDS = 0.05

FileVersion = tuple[int, int, int]
"""Inode, size in bytes and mtime_ns of a file: enough to see that another program replaced it."""


def write_atomically(
    path: Path, write: Callable[[Path], None], *, mode: int = 0o666, check: Callable[[], None] = lambda: None
) -> FileVersion:
    """Write a Parquet file under a temporary name, make it durable, and rename it under ONE's lock.

    The temporary name does not end in ``.pqt``: One loads every file that does.

    Parameters
    ----------
    path : Path
    write : callable
        Writes to the path that it is given, which leads to an empty file.
    mode : int
        Of the file, without the bits of the umask.
    check : callable
        Called before the folder is touched, and again just before the file goes in place; raises OSError to prevent it.

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
    check()
    try:
        with os.fdopen(_make_new(temporary, mode), "rb") as file:
            # Not by its name, which whoever may write to the folder can let lead elsewhere meanwhile.
            write(Path(f"/proc/self/fd/{file.fileno()}"))
            os.fsync(file.fileno())
            mark = _mark(os.fstat(file.fileno()))
        with one_lock(path.parent):
            check()
            if path.is_dir():  # a file cannot replace it
                remove(path)
            temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if str(error.filename).startswith("/proc/self/fd/") or error.filename2 is not None:
            error.filename = str(path)
        raise
    return mark


def _make_new(path: Path, mode: int) -> int:
    """Make a file, in place of whatever an earlier process or anybody else has left, and return its descriptor."""
    remove(path)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)


def remove(path: Path) -> None:
    """Remove what is in the way, if anything is: a file, a link, an empty folder."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)


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
            mark = _lock_mark(lock)
        if mark != seen:
            seen, since = mark, time.monotonic()
        # Its own time tells of an old one at once; the wait, where clocks differ (the folder may be on a server).
        is_old = seen is not None and time.time() - seen[2] / 1e9 > _LOCK_STALE_SECONDS
        if seen is not None and (is_old or time.monotonic() - since > _LOCK_STALE_SECONDS):
            remove(lock)
        else:
            time.sleep(_LOCK_POLL_SECONDS)


def _lock_mark(lock: Path) -> FileVersion | None:
    try:
        return _mark(lock.lstat())  # a link that leads nowhere holds as well
    except OSError:
        return None


def file_version(path: Path) -> FileVersion | None:
    """Return the mark of a file; None if there is none."""
    try:
        return _mark(path.stat())
    except OSError:
        return None


def _mark(about: os.stat_result) -> FileVersion:
    return about.st_ino, about.st_size, about.st_mtime_ns


def sync_folder(folder: Path) -> None:
    """Make durable which names a folder holds."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
