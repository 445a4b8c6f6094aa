"""Locks on folders: one daemon, or one run, per pair of tables, and one daemon per state folder."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from alfwatchd import linux
from alfwatchd.errors import Locked, OutDirError, StateError
from alfwatchd.service.surroundings import require_out_dir
from alfwatchd.users import this_user

_log = logging.getLogger(__name__)

LOCK_NAME = ".alfwatchd.lock"
_MOST_BYTES = 32
_OURS = re.compile(rb"(\d{0,20}( run)?\n)?")
"""What this program writes into a lock file: the process id, and whether that process runs once and ends."""
_RUNS = " run"
_LOOK_SECONDS, _TELL_SECONDS = 0.1, 60.0
_DOUBT_SECONDS = 1.0
"""How long the content may be that of an earlier process: it is written just after the lock is taken."""
_NOT_OURS = "it is a hard link to a file of another program; remove this name"
_STATE_LOCK_NAME = "daemon.lock"  # another one: a state folder may be an output folder as well


class Held:
    """A lock that this process holds, on a file with its process id.

    One thread uses it. Any thread may call `require_folder`.

    Parameters
    ----------
    path : Path
    refuse : callable
        Makes the error from what the process that holds the lock has written.
    note : str
        What to write behind the process id; see `_OURS`.

    Raises
    ------
    Locked
        Another process holds it.
    OSError
        The file cannot be made.
    """

    def __init__(self, path: Path, refuse: Callable[[str], Locked], note: str = "") -> None:
        self._path = path
        self._refuse = refuse
        self._note = note
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
                raise self._refuse(holder)
        except (OSError, Locked):
            os.close(fd)
            raise
        if not _is_shared(fd):
            _write(fd, f"{os.getpid()}{self._note}\n")
            return fd
        try:
            _leave(fd, self._path)
            return self._take()  # while the old file is still locked, so that no other process gets it
        finally:
            os.close(fd)


@contextmanager
def hold_out_dir(
    out_dir: Path, root: Path | None = None, *, is_daemon: bool = False, patience_seconds: float = 0.0
) -> Iterator[Held]:
    """Hold the lock on an output folder; the kernel releases it when the process ends, however it ends.

    Parameters
    ----------
    out_dir : Path
    root : Path or None
        If given, make sure first that tables of this root can be written to the folder.
    is_daemon : bool
        Whether it is held until the process is told to end.
    patience_seconds : float
        How long to wait for another process that runs once. A daemon is not waited for.

    Raises
    ------
    Locked
        Another process holds it; says which.
    OutDirError
        The lock file cannot be made, or as `require_out_dir`.
    """
    if root is not None:
        require_out_dir(out_dir, root)
    held = _wait_for_runs(partial(_hold_out_dir, out_dir, "" if is_daemon else _RUNS), patience_seconds)
    try:
        yield held
    finally:
        held.release()


class _HeldByRun(Locked):
    """The process that holds the lock runs once and ends."""


def _wait_for_runs(take: Callable[[], Held], patience_seconds: float) -> Held:
    """Take a lock. While a process that runs once holds it, try again, and say so now and then.

    A short wait is nothing to act on. A long one is a warning, which is shown also where no log is set up.
    """
    now, level = time.monotonic(), logging.INFO
    deadline, doubt_until, tell_at = now + patience_seconds, now + min(_DOUBT_SECONDS, patience_seconds), now
    while True:
        try:
            return take()
        except Locked as error:
            now = time.monotonic()
            is_run = isinstance(error, _HeldByRun)
            if now >= (deadline if is_run else doubt_until):
                raise
            if is_run:
                doubt_until = min(now + _DOUBT_SECONDS, deadline)
                if now >= tell_at:
                    tell_at = now + _TELL_SECONDS
                    _log.log(level, "another process writes these tables, waiting for its end error=%s", error)
                    level = logging.WARNING
        time.sleep(_LOOK_SECONDS)


def _hold_out_dir(out_dir: Path, note: str) -> Held:
    def refuse(holder: str) -> Locked:
        kind = _HeldByRun if holder.endswith(_RUNS) else Locked
        return kind(
            f"{out_dir}: {_name(holder)} keeps the tables in this folder already; ask it with `alfwatchd sync`, "
            "stop it, or use another --out-dir"
        )

    path = out_dir / LOCK_NAME
    try:
        return Held(path, refuse, note)
    except OSError as error:
        if not out_dir.is_dir():
            raise OutDirError(
                f"{out_dir}: is not there, or is no folder: check how it is spelled, and whether its disk is mounted"
            ) from error
        raise OutDirError(
            f"{path}: {this_user()} cannot make it ({error.strerror}): give this user write access to the output "
            "folder, or choose another with --out-dir"
        ) from error


def _name(holder: str) -> str:
    """Return how a message names the process that holds a lock."""
    number = holder.partition(" ")[0]
    return f"process {number}" if number else "a process of unknown number"


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
        return Locked(f"{state_dir}: {_name(holder)} keeps its state here; give each daemon its own --state-dir")

    path = state_dir / _STATE_LOCK_NAME
    try:
        held = Held(path, refuse)
    except OSError as error:
        raise StateError(
            f"{path}: {this_user()} cannot make it ({error.strerror}): give this user write access to the folder, or "
            "choose another with --state-dir"
        ) from error
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
    if not _is_ours(fd):
        raise OSError(errno.EMLINK, _NOT_OURS, str(path))
    if os.path.samestat(os.fstat(fd), path.lstat()):
        path.unlink()


def _is_ours(fd: int) -> bool:
    return _OURS.fullmatch(os.pread(fd, _MOST_BYTES + 1, 0)) is not None


def _write(fd: int, text: str) -> None:
    """Replace the content, for people; where the file or the disk does not allow that, the lock holds all the same.

    Content that is not a process id was not written by this program: another user may have moved a file here.
    """
    try:
        if _is_ours(fd) and not _is_shared(fd):
            os.ftruncate(fd, 0)
            os.pwrite(fd, text.encode(), 0)
    except OSError:
        return
