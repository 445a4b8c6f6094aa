"""Locks on folders: one daemon, or one run, per pair of tables, and one daemon per state folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alfwatchd.errors import Locked, OutDirError, StateError

LOCK_NAME = ".alfwatchd.lock"
_STATE_LOCK_NAME = "daemon.lock"  # another one: a state folder may be an output folder as well


@contextmanager
def hold_out_dir(out_dir: Path) -> Iterator[None]:
    """Hold the lock on an output folder; the kernel releases it when the process ends, however it ends.

    Raises
    ------
    Locked
        Another process holds it; says which.
    OutDirError
        The lock file cannot be made.
    """
    path = out_dir / LOCK_NAME
    try:
        fd, holder = _take(path)
    except OSError as error:
        raise OutDirError(
            f"{path}: cannot be made ({error.strerror}); the output folder must be writable: choose another --out-dir"
        ) from error
    if holder:
        raise Locked(
            f"{out_dir}: process {holder} keeps the tables in this folder already; ask it with `alfwatchd sync`, "
            "stop it, or use another --out-dir"
        )
    yield from _keep(fd)


@contextmanager
def hold_state_dir(state_dir: Path) -> Iterator[None]:
    """Hold the lock on a daemon's state folder: two would take each other's sync cookies for their own.

    Raises
    ------
    Locked
        Another daemon holds it; says which.
    StateError
        The lock file cannot be made.
    """
    path = state_dir / _STATE_LOCK_NAME
    try:
        fd, holder = _take(path)
    except OSError as error:
        raise StateError(f"{path}: cannot be made ({error.strerror}); choose another --state-dir") from error
    if holder:
        raise Locked(f"{state_dir}: process {holder} keeps its state here; give each daemon its own --state-dir")
    yield from _keep(fd)


def _take(path: Path) -> tuple[int, str]:
    """Lock a file that holds the process id of who locked it.

    Returns
    -------
    tuple of int and str
        Descriptor that holds the lock, and nothing; or -1 and the process that holds it.
    """
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
        os.close(fd)
        return -1, holder or "of unknown number"
    except OSError:
        os.close(fd)
        raise
    _write(fd, f"{os.getpid()}\n")
    return fd, ""


def _keep(fd: int) -> Iterator[None]:
    try:
        yield
        _write(fd, "")
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except PermissionError:
        if not path.exists():
            raise
        # Another user ran the program here before. To lock a file, it is enough to read it.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _write(fd: int, text: str) -> None:
    """Replace the content, for people; where the file or the disk does not allow that, the lock holds all the same."""
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, text.encode(), 0)
    except OSError:
        return
