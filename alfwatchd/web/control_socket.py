"""The control socket: its file, which users may connect, and which process is at the other end."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from alfwatchd import linux
from alfwatchd.errors import AlfwatchdError, ConfigError, Locked

BACKLOG = 4096
"""The most connections that wait to be accepted; the kernel's own limit (net.core.somaxconn) may be lower."""

_MOST_PATH_BYTES = 107  # `sun_path` of unix(7) has 108, the closing zero included
_PEER_GROUPS = 59  # SO_PEERGROUPS of <asm-generic/socket.h>, which Python lacks
_MOST_GROUP_BYTES = 1024  # of Python's getsockopt: 256 groups
_UCRED = struct.Struct("iII")  # pid_t, uid_t, gid_t: unix(7)
_GID = struct.Struct("I")


@dataclass(frozen=True, slots=True)
class Peer:
    """The client: process, user and primary group (``SO_PEERCRED``, unix(7)).

    65534 stands for a user or group of another user namespace.
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] | None = None
    """Supplementary groups of the process when it connected; None if they are not known."""

    def __str__(self) -> str:
        try:
            name = pwd.getpwuid(self.uid).pw_name
        except KeyError:
            name = "?"
        return f"user={name} uid={self.uid} pid={self.pid}"

    def is_in(self, group: str) -> bool:
        """Tell whether the client is in a group. This may ask a directory service, so do not call it in an event loop.

        The groups of the process count, as they do for files. They can differ from those of its user: a unit may set
        them, newgrp(1) may, and a process that is older than a membership does not have it.

        Raises
        ------
        ConfigError
            There is no such group.
        """
        wanted = find_group(group)
        if self.groups is not None:
            return wanted == self.gid or wanted in self.groups
        try:
            return wanted == self.gid or wanted in os.getgrouplist(pwd.getpwuid(self.uid).pw_name, self.gid)
        except KeyError:
            return False


def find_peer(connection: socket.socket) -> Peer:
    """Return the client of a connection."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid, uid, gid, _find_groups(connection))


def _find_groups(connection: socket.socket) -> frozenset[int] | None:
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, _PEER_GROUPS, _MOST_GROUP_BYTES)
    except OSError:  # too many, or an old kernel
        return None
    return frozenset(gid for (gid,) in _GID.iter_unpack(found))


def find_group(group: str) -> int:
    """Return the id of a group.

    Raises
    ------
    ConfigError
        There is no such group.
    """
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise ConfigError(f"control.group: there is no group {group!r} on this machine") from error


@contextmanager
def listen(path: Path, group: str) -> Iterator[socket.socket]:
    """Make the control socket, and remove it at the end; raise as `ControlSocket` does."""
    control = ControlSocket(path, group)
    try:
        yield control.listening
    finally:
        control.close()


class ControlSocket:
    """The control socket. Used by one thread.

    Its owner and the members of `group` may connect. A lock file beside it makes sure that of two daemons that start
    at the same time, only one makes the socket. A socket that no process serves is replaced; other files never are.

    Parameters
    ----------
    path : Path
        At most `settings.SOCKET_PATH_LIMIT` bytes. The folder is made if missing.
    group : str
        Empty for none.

    Raises
    ------
    Locked
        Another daemon serves this socket.
    ConfigError
        There is no such group.
    AlfwatchdError
        The socket cannot be made.
    """

    def __init__(self, path: Path, group: str) -> None:
        self.path = path
        self._gid = find_group(group) if group else None
        self._lock_fd = _lock(path)
        try:
            self.listening = self._make()
        except BaseException:
            os.close(self._lock_fd)
            raise

    def renew(self) -> socket.socket | None:
        """Make the socket and its lock again if another process has removed them.

        Returns
        -------
        socket.socket or None
            The new socket, which is `listening` as well; None if the old one is still in its place.

        Raises
        ------
        AlfwatchdError
            It cannot be made now, or another program has put a file in its place, which stays.
        """
        if _identity(self._lock_path) != _identity(self._lock_fd):
            lock_fd = _lock(self.path)
            os.close(self._lock_fd)
            self._lock_fd = lock_fd
        if self._is_in_place():
            return None
        self.listening = self._make()
        return self.listening

    def close(self) -> None:
        """Stop listening, and remove the socket if it is still the one that was made here."""
        self.listening.close()
        with suppress(OSError):
            if self._is_in_place():
                self.path.unlink()
        os.close(self._lock_fd)

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lock")

    def _is_in_place(self) -> bool:
        return _identity(self.path) == self._made

    def _make(self) -> socket.socket:
        """Make the socket in the place of one that no process serves."""
        _remove_stale(self.path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._made = _bind(listening, self.path, self._gid)
        except OSError as error:
            listening.close()
            raise _cannot_make(self.path, error) from error
        except BaseException:
            listening.close()
            raise
        return listening


def _identity(file: Path | int) -> tuple[int, int] | None:
    """Return device and inode of a file; None if there is none."""
    try:
        about = os.stat(file, follow_symlinks=False) if isinstance(file, Path) else os.fstat(file)
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _lock(path: Path) -> int:
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        lock_fd = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise _cannot_make(path, error) from error
    if not linux.try_flock(lock_fd):
        os.close(lock_fd)
        raise _served(path)
    return lock_fd


def _remove_stale(path: Path) -> None:
    """Remove a socket that no process serves. The caller holds the lock, but another program may serve it."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise AlfwatchdError(f"{path}: is not a socket, and was left as it is; set another --socket")
        if _is_served(path):
            raise _served(path)
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_make(path, error) from error


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # its queue of waiting connections is full
            return True
        return True


def _bind(listening: socket.socket, path: Path, gid: int | None) -> tuple[int, int]:
    """Make the socket in a folder that no other user may enter, give it to the group, and then move it to its place.

    In a folder that others may write to, a path can lead to another file between two calls.

    Returns
    -------
    tuple of int
        Device and inode of its file.
    """
    if len(os.fsencode(path)) > _MOST_PATH_BYTES:
        raise OSError("AF_UNIX path too long")
    with ExitStack() as stack:
        above_fd = _open_folder(path.parent, stack)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        stack.callback(_remove_folder, folder)
        folder_fd = _open_folder(folder, stack)
        about = os.fstat(folder_fd)
        if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) != 0o700:
            raise OSError("another process has put a folder there meanwhile")
        # Not by the path of the folder, which may be too long, and may lead to another folder by now.
        listening.bind(f"/proc/self/fd/{folder_fd}/{path.name}")
        stack.callback(_remove_file, path.name, folder_fd)
        os.chmod(path.name, 0o600, dir_fd=folder_fd)
        if gid is not None:
            _hand_over(path, gid, folder_fd)
        listening.listen(BACKLOG)
        made = os.stat(path.name, dir_fd=folder_fd, follow_symlinks=False)
        _check_folder(path, above_fd)
        _put(path.name, folder_fd, above_fd)
        return made.st_dev, made.st_ino


def _open_folder(path: Path, stack: ExitStack) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _remove_folder(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _remove_file(name: str, folder_fd: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder_fd)


def _hand_over(path: Path, gid: int, folder_fd: int) -> None:
    try:
        os.chown(path.name, -1, gid, dir_fd=folder_fd, follow_symlinks=False)
        os.chmod(path.name, 0o660, dir_fd=folder_fd)
    except OSError as error:
        raise AlfwatchdError(
            f"control.group: {path} cannot be given to the group ({error.strerror}); the daemon's user must be in it"
        ) from error


def _check_folder(path: Path, folder_fd: int) -> None:
    """Raise if all users can replace the socket, and so read what clients send."""
    mode = os.fstat(folder_fd).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise AlfwatchdError(
            f"{path}: all users may write to its folder and could replace the socket; "
            f"run chmod o-w {path.parent}, or set --socket"
        )


def _put(name: str, source_fd: int, target_fd: int) -> None:
    """Move a file to another folder of the same file system; fail if the name is taken."""
    try:
        linux.rename_no_replace(name, name, source_dir_fd=source_fd, target_dir_fd=target_fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
            raise
        os.link(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)


def _served(path: Path) -> Locked:
    return Locked(f"{path}: another daemon serves this socket; stop it, or name another socket with --socket")


def _cannot_make(path: Path, error: OSError) -> AlfwatchdError:
    return AlfwatchdError(f"{path}: cannot make the control socket ({error.strerror or error}); set --socket")
