"""Locks on folders: one daemon, or one run, per pair of tables, and one daemon per state folder."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alfwatchd import linux
from alfwatchd.errors import Locked, OutDirError, StateError

_log = logging.getLogger(__name__)

LOCK_NAME = ".alfwatchd.lock"
_MOST_BYTES = 32
_NUMBER = re.compile(rb"\d{0,30}\n?")
_NOT_OURS = "it is a hard link to a file of another program; remove this name"
_STATE_LOCK_NAME = "daemon.lock"  # another one: a state folder may be an output folder as well


class Held:
    """A lock that this process holds, on a file with its process id.

    One thread uses it. Any thread may call `require_folder`.

    Parameters
    ----------
    path : Path
    refuse : callable
        Makes the error from the process that holds the lock.

    Raises
    ------
    Locked
        Another process holds it.
    OSError
        The file cannot be made.
    """

    def __init__(self, path: Path, refuse: Callable[[str], Locked]) -> None:
        self._path = path
        self._refuse = refuse
        self._folder = path.parent.stat()
        self._fd = self._take()

    def require_folder(self) -> None:
        """Make sure that the folder is the one that is locked, not what was mounted over it. By any thread.

        Raises
        ------
        OSError
            Another folder is there.
        """
        if not (os.path.samestat(self._path.parent.stat(), self._folder) or self.is_in_place()):
            raise OSError(errno.ESTALE, "another folder is there now", str(self._path.parent))

    def keep(self) -> None:
        """Take the lock again if the file was removed: another process could take it otherwise.

        Raises
        ------
        Locked
            Another process has taken it.
        """
        if self.is_in_place():
            return
        try:
            folder, fd = self._path.parent.stat(), self._take()
        except OSError:  # the folder is away, or full
            return
        os.close(self._fd)
        self._folder, self._fd = folder, fd
        _log.warning("the lock was removed and is taken again path=%s", self._path)

    def is_in_place(self) -> bool:
        """Tell whether the file is still the one that is locked."""
        try:
            return os.path.samestat(os.fstat(self._fd), self._path.lstat())
        except OSError:
            return False

    def release(self) -> None:
        """Release the lock. The file stays: another process could lock one that is about to be removed."""
        _write(self._fd, "")
        os.close(self._fd)

    def _take(self) -> int:
        """Open and lock the file, and return its descriptor. A file with other names is left, and made again."""
        fd = _open(self._path)
        try:
            if not linux.try_flock(fd):
                holder = os.pread(fd, _MOST_BYTES, 0).decode(errors="replace").strip()
                raise self._refuse(holder or "of unknown number")
        except (OSError, Locked):
            os.close(fd)
            raise
        if not _is_shared(fd):
            _write(fd, f"{os.getpid()}\n")
            return fd
        try:
            _leave(fd, self._path)
            return self._take()  # while the old file is still locked, so that no other process gets it
        finally:
            os.close(fd)


@contextmanager
def hold_out_dir(out_dir: Path) -> Iterator[Held]:
    """Hold the lock on an output folder; the kernel releases it when the process ends, however it ends.

    Raises
    ------
    Locked
        Another process holds it; says which.
    OutDirError
        The lock file cannot be made.
    """

    def refuse(holder: str) -> Locked:
        return Locked(
            f"{out_dir}: process {holder} keeps the tables in this folder already; ask it with `alfwatchd sync`, "
            "stop it, or use another --out-dir"
        )

    path = out_dir / LOCK_NAME
    try:
        held = Held(path, refuse)
    except OSError as error:
        raise OutDirError(
            f"{path}: cannot be made ({error.strerror}); the output folder must be writable: choose another --out-dir"
        ) from error
    try:
        yield held
    finally:
        held.release()


@contextmanager
def hold_state_dir(state_dir: Path) -> Iterator[Held]:
    """Hold the lock on a daemon's state folder: two would take each other's sync cookies for their own.

    Raises
    ------
    Locked
        Another daemon holds it; says which.
    StateError
        The lock file cannot be made.
    """

    def refuse(holder: str) -> Locked:
        return Locked(f"{state_dir}: process {holder} keeps its state here; give each daemon its own --state-dir")

    path = state_dir / _STATE_LOCK_NAME
    try:
        held = Held(path, refuse)
    except OSError as error:
        raise StateError(f"{path}: cannot be made ({error.strerror}); or choose another --state-dir") from error
    try:
        yield held
    finally:
        held.release()


def _open(path: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # another program may have put a pipe there
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    except PermissionError:
        if not path.exists():
            raise
        # Another user ran the program here before. To lock a file, it is enough to read it.
        return os.open(path, os.O_RDONLY | flags)


def _is_shared(fd: int) -> bool:
    """Tell whether the file has other names: a backup (``cp -al``) makes such hard links, and so may a user."""
    about = os.fstat(fd)
    return stat.S_ISREG(about.st_mode) and about.st_nlink > 1


def _leave(fd: int, path: Path) -> None:
    """Give up a name that leads to a file with other names, which no process holds.

    Raises
    ------
    OSError
        EMLINK: it does not hold a process id, so this program did not write it.
    """
    if not _holds_number(fd):
        raise OSError(errno.EMLINK, _NOT_OURS, str(path))
    if os.path.samestat(os.fstat(fd), path.lstat()):
        path.unlink()


def _holds_number(fd: int) -> bool:
    return _NUMBER.fullmatch(os.pread(fd, _MOST_BYTES + 1, 0)) is not None


def _write(fd: int, text: str) -> None:
    """Replace the content, for people; where the file or the disk does not allow that, the lock holds all the same.

    Content that is not a process id was not written by this program: another user may have moved a file here.
    """
    try:
        if _holds_number(fd) and not _is_shared(fd):
            os.ftruncate(fd, 0)
            os.pwrite(fd, text.encode(), 0)
    except OSError:
        return
