"""System calls of Linux that `os` does not offer: ``statx``, ``openat2``, inotify, locks, groups of a socket's peer.

The only importer of ctypes and fcntl. Each function raises the `OSError` that the kernel gives. Where the kernel or a
sandbox does not know a call, that is ENOSYS or EPERM; the functions that can do without the call say so.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import termios
from dataclasses import dataclass
from pathlib import Path

AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW, _AT_EMPTY_PATH, _AT_NO_AUTOMOUNT = 0x100, 0x1000, 0x800
_STATX_BASIC_STATS, _STATX_BTIME, _STATX_MNT_ID = 0x7FF, 0x800, 0x1000
_STATX_MNT_ID_UNIQUE = 0x4000
_STATX_BUFFER = 256
_STATFS_BUFFER = 512
# struct statx of <linux/stat.h>, up to stx_mnt_id: times are (seconds, nanoseconds, padding).
_STATX = struct.Struct("=IIQIIIHxxQQQQqIxxxxqIxxxxqIxxxxqIxxxxIIIIQ")
_SYS_OPENAT2 = 437
"""The same number on every architecture."""
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x01, 0x02, 0x04, 0x08
_RENAME_NOREPLACE = 1
_SO_PEERGROUPS = 59
"""Of <asm-generic/socket.h>; the same on all architectures for which there are wheels of pyarrow."""
_PR_SET_PDEATHSIG = 1
_SECOND = 1_000_000_000
_GID = struct.Struct("I")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Stat:
    """What the kernel tells of a file or folder; times in nanoseconds since 1970, UTC.

    Parameters
    ----------
    dev, ino : int
    mode, nlink, uid, gid : int
    size : int
        Bytes.
    mtime_ns, ctime_ns : int
    btime_ns : int or None
        When the inode was made; None if the file system does not record it.
    mount_id : int or None
        Of the mount that the file was reached through; None before Linux 5.8.
    """

    dev: int
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int | None
    mount_id: int | None


def statx(path: str | bytes, *, dir_fd: int = AT_FDCWD, follow_symlinks: bool = False) -> Stat:
    """Look at a file; an empty path means what `dir_fd` has open. Without ``statx``, birth time and mount are None."""
    if not hasattr(_libc, "statx"):
        return plain_stat(path, dir_fd, follow_symlinks=follow_symlinks)
    flags = _AT_NO_AUTOMOUNT | (0 if follow_symlinks else _AT_SYMLINK_NOFOLLOW) | (0 if path else _AT_EMPTY_PATH)
    mask = _STATX_BASIC_STATS | _STATX_BTIME | _STATX_MNT_ID
    buffer = ctypes.create_string_buffer(_STATX_BUFFER)
    if _libc.statx(dir_fd, os.fsencode(path), flags, mask, buffer) != 0:
        code = ctypes.get_errno()
        if code in (errno.ENOSYS, errno.EPERM):  # an old kernel, or a sandbox that does not know the call
            return plain_stat(path, dir_fd, follow_symlinks=follow_symlinks)
        raise _error(code, path)
    fields = _STATX.unpack_from(buffer)
    found, _, _, nlink, uid, gid, mode, ino, size, _, _ = fields[:11]
    _atime, _atime_ns, btime, btime_ns, ctime, ctime_ns, mtime, mtime_ns = fields[11:19]
    _rdev_major, _rdev_minor, dev_major, dev_minor, mount_id = fields[19:24]
    return Stat(
        os.makedev(dev_major, dev_minor), ino, mode, nlink, uid, gid, size,
        mtime * _SECOND + mtime_ns, ctime * _SECOND + ctime_ns,
        btime * _SECOND + btime_ns if found & _STATX_BTIME else None,
        mount_id if found & _STATX_MNT_ID else None,
    )  # fmt: skip


def file_system_type(fd: int) -> int:
    """Return the type of the file system of an open file: ``f_type`` of statfs(2), as in <linux/magic.h>."""
    buffer = ctypes.create_string_buffer(_STATFS_BUFFER)
    if _libc.fstatfs(fd, buffer) != 0:
        raise _error(ctypes.get_errno(), "")
    return int(ctypes.c_long.from_buffer(buffer).value) & 0xFFFFFFFF


def unique_mount_id(fd: int) -> int:
    """Return the number of the mount that an open file was reached through, which no other mount ever gets.

    It is 0 where the kernel does not tell: before Linux 6.8.
    """
    if not hasattr(_libc, "statx"):
        return 0
    buffer = ctypes.create_string_buffer(_STATX_BUFFER)
    if _libc.statx(fd, b"", _AT_EMPTY_PATH | _AT_NO_AUTOMOUNT, _STATX_MNT_ID_UNIQUE, buffer) != 0:
        return 0
    fields = _STATX.unpack_from(buffer)
    return int(fields[-1]) if fields[0] & _STATX_MNT_ID_UNIQUE else 0


def open_in_mount(path: str, flags: int, *, dir_fd: int) -> int:
    """Open a path below an open folder, through no link and into no other mount than the folder's own.

    Raises
    ------
    OSError
        EXDEV for what lies in another mount, bind mounts of the same file system included; ELOOP for a link; ENOSYS
        (or EPERM in a sandbox) where ``openat2`` is not there: before Linux 5.6.
    """
    resolve = _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    fd = _libc.syscall(_SYS_OPENAT2, dir_fd, os.fsencode(path), how, ctypes.c_size_t(len(how)))
    if fd < 0:
        raise _error(ctypes.get_errno(), path)
    return int(fd)


def rename_no_replace(source: str, target: str, *, source_dir_fd: int, target_dir_fd: int) -> None:
    """Rename a file or folder, unless the target exists.

    Raises
    ------
    OSError
        EEXIST if the target is there; EXDEV for another file system or mount; EINVAL or ENOSYS where the file system
        (bindfs, some network ones), or the C library, does not know the flag.
    """
    if not hasattr(_libc, "renameat2"):
        raise _error(errno.ENOSYS, target)
    names = os.fsencode(source), os.fsencode(target)
    if _libc.renameat2(source_dir_fd, names[0], target_dir_fd, names[1], _RENAME_NOREPLACE) != 0:
        raise _error(ctypes.get_errno(), target)


def try_flock(fd: int) -> bool:
    """Lock an open file or folder for this process alone (``flock``), and tell whether that succeeded.

    The kernel releases the lock when the last copy of the descriptor is closed, however the process ends.

    Returns
    -------
    bool
        False if another open description of the file holds the lock, in this process or in another one.

    Raises
    ------
    OSError
        The file system has no such locks.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_bytes(fd: int, start: int, n_bytes: int) -> None:
    """Lock bytes of a file for this process alone (``fcntl``, as SQLite does it), whether the file has them or not.

    Raises
    ------
    OSError
        EAGAIN or EACCES if another process holds a lock on some of them.
    """
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, n_bytes, start)


def end_with_parent(parent: int) -> None:
    """Have the kernel end this process (SIGTERM) as soon as the thread that started it ends; for a new process.

    It holds for the program that this process executes, too, but not for what that program starts.

    Parameters
    ----------
    parent : int
        Process id of the parent. If it has ended already, this process ends at once.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM.value, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)


def ioctl(fd: int, request: int, size: int) -> bytes:
    """Ask a file system or device for `size` bytes by ioctl(2).

    Raises
    ------
    OSError
        ENOTTY if it does not know the request.
    """
    answer = bytearray(size)
    fcntl.ioctl(fd, request, answer)
    return bytes(answer)


def peer_groups(fd: int) -> tuple[int, ...]:
    """Return the supplementary groups that the process at the other end of a Unix socket had when it connected.

    Python's own `getsockopt` takes at most 256 groups; a process may have 65536.

    Raises
    ------
    OSError
        ENOPROTOOPT where the kernel, or a sandbox, does not tell: before Linux 4.13.
    """
    size = ctypes.c_uint32(256 * _GID.size)
    while True:
        buffer = ctypes.create_string_buffer(size.value)
        if _libc.getsockopt(fd, socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(size)) == 0:
            return tuple(gid for (gid,) in _GID.iter_unpack(buffer.raw[: size.value]))
        code = ctypes.get_errno()
        if code != errno.ERANGE or size.value <= len(buffer):  # else the kernel has put in what it needs
            raise _error(code, "")


def inotify_init() -> int:
    """Return a new inotify descriptor: reading it never waits, and no other program inherits it.

    Raises
    ------
    OSError
        EMFILE if the user, or the process, has too many.
    """
    fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        raise _error(ctypes.get_errno(), "")
    return int(fd)


def inotify_add_watch(inotify_fd: int, path: bytes, mask: int) -> int:
    """Watch a path and return the watch descriptor: the same one again for an inode that is watched already.

    Raises
    ------
    OSError
        ENOSPC if the user has too many watches.
    """
    wd = _libc.inotify_add_watch(inotify_fd, path, ctypes.c_uint32(mask))
    if wd < 0:
        raise _error(ctypes.get_errno(), path)
    return int(wd)


def inotify_rm_watch(inotify_fd: int, wd: int) -> None:
    """Remove a watch.

    Raises
    ------
    OSError
        EINVAL if the kernel has removed it already.
    """
    if _libc.inotify_rm_watch(inotify_fd, wd) != 0:
        raise _error(ctypes.get_errno(), "")


def plain_stat(path: str | bytes, dir_fd: int, *, follow_symlinks: bool) -> Stat:
    """Look at a file without ``statx``: birth time and mount are None; parameters as those of `statx`."""
    if path:
        base = None if dir_fd == AT_FDCWD else dir_fd
        about = os.stat(path, dir_fd=base, follow_symlinks=follow_symlinks)
    else:
        about = Path().stat() if dir_fd == AT_FDCWD else os.fstat(dir_fd)
    return Stat(
        about.st_dev, about.st_ino, about.st_mode, about.st_nlink, about.st_uid, about.st_gid, about.st_size,
        about.st_mtime_ns, about.st_ctime_ns, None, None,
    )  # fmt: skip


def _error(code: int, path: str | bytes) -> OSError:
    return OSError(code, os.strerror(code), os.fsdecode(path))


def count_unread(fd: int) -> int:
    """Return how many bytes of memory hold what the other end of a Unix socket has not read (unix(7), SIOCOUTQ)."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0])
