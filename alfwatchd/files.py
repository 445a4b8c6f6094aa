"""Opens, compares and removes files that other programs may have put there, of any kind.

The one place that opens a regular file where another program can put something else in its place.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_WARY = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_CANNOT_SYNC = (errno.EINVAL, errno.EBADF)
"""Errors of fsync(2) on a folder where the file system offers no such call."""

FileVersion = tuple[int, int, int]
"""Inode, size in bytes and mtime_ns of a file: enough to see that another program replaced it."""


class NotRegular(OSError):
    """There is a pipe, a device or a folder, not a regular file."""


def open_regular(path: Path | str, *, dir_fd: int | None = None, follow_links: bool = True) -> BinaryIO:
    """Open a regular file for reading.

    Nothing else is opened: a program that reads a pipe may wait for ever, and a device may have no end. Other programs
    that may write to the folder can have put one there.

    Parameters
    ----------
    path : Path or str
    dir_fd : int or None
        Open folder that the path starts from; None for the current folder.
    follow_links : bool
        Whether the last part of the path may be a symbolic link.

    Raises
    ------
    NotRegular
        It is no regular file.
    OSError
        It cannot be opened; ELOOP for a link that is not followed.
    """
    return os.fdopen(open_regular_fd(path, dir_fd=dir_fd, follow_links=follow_links), "rb")


def open_regular_fd(
    path: Path | str,
    flags: int = os.O_RDONLY,
    mode: int = 0o666,
    *,
    dir_fd: int | None = None,
    follow_links: bool = True,
) -> int:
    """Return a descriptor, which the caller closes; otherwise as `open_regular`.

    Parameters
    ----------
    flags, mode : int
        As for `os.open`.
    path, dir_fd, follow_links
        As for `open_regular`.
    """
    flags |= _WARY if follow_links else _WARY | os.O_NOFOLLOW
    fd = os.open(path, flags, mode, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegular(errno.EINVAL, "is no regular file", str(path))
    return fd


def add_lines(fd: int, lines: bytes) -> int:
    """Add whole lines to a file that is open for reading and appending; return its size before.

    A last line that is torn, because a process was killed while it wrote, does not harm those that are added.
    """
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        lines = b"\n" + lines
    with memoryview(lines) as view:
        done = 0
        while done < len(lines):
            done += os.write(fd, view[done:])
    return size


def file_version(path: Path, *, follow_links: bool = True) -> FileVersion | None:
    """Return the version of a file, or None if there is none or it cannot be looked at."""
    try:
        return version_of(path.stat(follow_symlinks=follow_links))
    except OSError:
        return None


def version_of(about: os.stat_result) -> FileVersion:
    """Return the version of a file that was looked at."""
    return about.st_ino, about.st_size, about.st_mtime_ns


def remove(path: Path | str, *, dir_fd: int | None = None) -> None:
    """Remove what is in the way, if anything is: a file, a link, an empty folder.

    Raises
    ------
    OSError
        ENOTEMPTY for a folder that holds something.
    """
    try:
        if stat.S_ISDIR(os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            os.rmdir(path, dir_fd=dir_fd)
        else:
            os.unlink(path, dir_fd=dir_fd)
    except FileNotFoundError:
        return


def sync_folder(folder: Path | int) -> None:
    """Make the list of names in a folder durable: without this, a power cut may bring back an earlier file.

    Where the file system cannot do this for a folder, nothing is done.

    Parameters
    ----------
    folder : Path or int
        Path, or descriptor of the open folder.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if isinstance(folder, Path) else folder
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        if fd != folder:
            os.close(fd)
