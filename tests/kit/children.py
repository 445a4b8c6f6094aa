"""Functions run in a forked child: as another user, or with mounts of its own, so that the host is never touched."""

from __future__ import annotations

import ctypes
import functools
import os
import pickle
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

T = TypeVar("T")

NOBODY = 65534
_PATIENCE_SECONDS = 300.0
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x20000, 4096, 16384, 1 << 18, 2
_LIBC = ctypes.CDLL(None, use_errno=True)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_nobody(function: Callable[[], T]) -> T:
    """Run a function in a child without any privilege; its result must be picklable."""

    def run() -> T:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return function()

    return in_child(run)


def with_own_mounts(function: Callable[[], T]) -> T:
    """Run a function in a child that may mount; all that it mounted is gone with it. Skips where that is forbidden."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")

    def run() -> T | None:
        if _LIBC.unshare(_CLONE_NEWNS) != 0:
            return None
        _mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE)
        return function()

    if not in_child(lambda: _LIBC.unshare(_CLONE_NEWNS) == 0):
        pytest.skip("no mount namespace can be made here")
    return in_child(run)  # type: ignore[return-value]


def in_own_mounts(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a child whose mounts the host never sees; its assertions are those of the test."""

    @functools.wraps(test)
    def run(*args: object, **more: object) -> None:
        def child() -> str:
            test(*args, **more)
            return "done"

        assert with_own_mounts(child) == "done"

    return run


def in_child(function: Callable[[], T]) -> T:
    """Run a function in a forked child and return what it returned; what it raised fails the test."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _answer(function, writer)
    os.close(writer)
    try:
        answer = _read_all(reader)
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    ok, result = pickle.loads(answer)
    if not ok:
        raise AssertionError(f"in the child:\n{result}")
    return result  # type: ignore[no-any-return]


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def peak_kb() -> int:
    """Return the most memory that this process ever had, in kB.

    A forked child begins with all that its parent has at that moment, so only what is added says what the child took.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def mount_tmpfs(place: Path, options: str = "") -> None:
    """Mount a new tmpfs."""
    _mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, options.encode())


def bind(source: Path, place: Path) -> None:
    """Mount a folder over another one."""
    _mount(os.fsencode(source), os.fsencode(place), None, _MS_BIND)


def unmount(place: Path, *, lazily: bool = False) -> None:
    """Unmount what is mounted last on a folder."""
    _check(_LIBC.umount2(os.fsencode(place), _MNT_DETACH if lazily else 0), place)


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int, data: bytes = b"") -> None:
    _check(_LIBC.mount(source, target, kind, ctypes.c_ulong(flags), data), target)


def _check(result: int, place: object) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), place)


def _answer(function: Callable[[], Any], writer: int) -> None:
    """Run the function, send what comes of it, and end this process without any clean-up of the parent's."""
    try:
        try:
            answer = pickle.dumps((True, function()))
        except BaseException:  # noqa: BLE001 - told to the parent
            answer = pickle.dumps((False, traceback.format_exc()))
        while answer:
            answer = answer[os.write(writer, answer) :]
    finally:
        os._exit(0)


def _read_all(reader: int) -> bytes:
    parts, deadline = [], time.monotonic() + _PATIENCE_SECONDS
    while True:
        if not select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise AssertionError(f"the child did not answer within {_PATIENCE_SECONDS:.0f} s")
        part = os.read(reader, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
