"""The lock on an output folder: one daemon, or one run, per pair of tables."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alfwatchd.errors import Locked, OutDirError

LOCK_NAME = ".alfwatchd.lock"


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
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise OutDirError(
            f"{path}: cannot be made ({error.strerror}); the output folder must be writable: choose another --out-dir"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield
        os.ftruncate(fd, 0)
    except BlockingIOError as error:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        raise Locked(
            f"{out_dir}: process {holder} keeps the tables in this folder already; ask it with `alfwatchd sync`, "
            "stop it, or use another --out-dir"
        ) from error
    finally:
        os.close(fd)
