"""inotify as the kernel offers it: the flags, a descriptor, its watches, and the events in what was read from it.

The daemon's descriptor is read by watchdog (see `watch.watcher`), any other one with `read_events`. What an event means
is decided elsewhere.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from alfwatchd import linux
from alfwatchd.errors import WatchError, WatchLimit

# <sys/inotify.h>
IN_ACCESS, IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_CLOSE_NOWRITE, IN_OPEN = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x40, 0x80, 0x100, 0x200, 0x400, 0x800
IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED, IN_ISDIR = 0x2000, 0x4000, 0x8000, 0x40000000
IN_ONLYDIR, IN_EXCL_UNLINK = 0x1000000, 0x4000000

CHANGES = (
    IN_CREATE
    | IN_DELETE
    | IN_MOVED_FROM
    | IN_MOVED_TO
    | IN_MODIFY
    | IN_CLOSE_WRITE
    | IN_ATTRIB
    | IN_DELETE_SELF
    | IN_MOVE_SELF
    | IN_ONLYDIR
    | IN_EXCL_UNLINK
)
"""All that changes a folder or its files. Opening and reading are not among them: the daemon would wake itself."""

_EVENT = struct.Struct("iIII")
_BUFFER_BYTES = 1 << 16
_LIMIT = Path("/proc/sys/fs/inotify/max_user_watches")

Event = tuple[int, int, bytes]
"""Watch descriptor, mask, and the name in the watched folder, empty for the folder itself."""


def make() -> int:
    """Return a new descriptor; reading it never waits. Raise `OSError` if the user has too many."""
    return linux.inotify_init()


def watch_path(inotify_fd: int, path: bytes, mask: int = CHANGES) -> int:
    """Watch a file or folder and return the watch descriptor: the same one again if it is watched already.

    Raises
    ------
    OSError
        ENOSPC if the user has too many watches.
    """
    return linux.inotify_add_watch(inotify_fd, path, mask)


def watch_folder(inotify_fd: int, fd: int) -> int:
    """Watch an open folder for changes; through its descriptor, so that no other folder is watched than was opened.

    Parameters
    ----------
    inotify_fd : int
        May be one that a parent process made.
    fd : int

    Returns
    -------
    int
        Watch descriptor; the same one again for a folder that is watched already.

    Raises
    ------
    WatchLimit
        The user's limit of watches is reached.
    WatchError
        The folder cannot be watched.
    """
    try:
        return watch_path(inotify_fd, b"/proc/self/fd/%d" % fd)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise limit_reached() from error
        raise WatchError(f"cannot watch: {error.strerror}") from error


def remove_watch(inotify_fd: int, wd: int) -> None:
    """Stop watching; a watch that the kernel has removed already is fine."""
    with suppress(OSError):
        linux.inotify_rm_watch(inotify_fd, wd)


def watches_limit() -> int | None:
    """Return the user's limit of inotify watches, or None if the kernel does not tell."""
    try:
        return int(_LIMIT.read_text())
    except (OSError, ValueError):
        return None


def limit_reached() -> WatchLimit:
    """Return the error that says how to raise the limit of watches."""
    return WatchLimit(
        "the limit of inotify watches is reached; raise it: "
        f"sysctl fs.inotify.max_user_watches={2 * (watches_limit() or 65536)}"
    )


def parse(buffer: bytes) -> Iterator[Event]:
    """Yield the events in what one or more reads of a descriptor returned."""
    start, n_bytes = 0, len(buffer)
    while start < n_bytes:
        wd, mask, _, size = _EVENT.unpack_from(buffer, start)
        start += _EVENT.size
        yield wd, mask, buffer[start : start + size].rstrip(b"\0")
        start += size


def read_events(inotify_fd: int) -> Iterator[Event]:
    """Read a descriptor and yield all events that are there now."""
    while True:
        buffer = b""
        with suppress(BlockingIOError):
            buffer = os.read(inotify_fd, _BUFFER_BYTES)
        if not buffer:
            return
        yield from parse(buffer)
