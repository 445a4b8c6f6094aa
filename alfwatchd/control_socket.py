"""The control socket: who owns its file, who may connect, and who is at the other end."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from alfwatchd.errors import AlfwatchdError, ConfigError, Locked

BACKLOG = 4096
"""Connections that may wait to be taken; the kernel's own limit (net.core.somaxconn) may be less."""

_PEER_GROUPS = 59  # SO_PEERGROUPS of <asm-generic/socket.h>, which Python lacks
_MOST_GROUP_BYTES = 1024  # of Python's getsockopt: 256 groups
_UCRED = struct.Struct("iII")  # pid_t, uid_t, gid_t: unix(7)
_GID = struct.Struct("I")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks: process, user and primary group (``SO_PEERCRED``, unix(7)). 65534 stands for other user namespaces."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] | None = None
    """Supplementary groups of the process when it connected; None where the kernel does not tell."""

    def __str__(self) -> str:
        try:
            name = pwd.getpwuid(self.uid).pw_name
        except KeyError:
            name = "?"
        return f"user={name} uid={self.uid} pid={self.pid}"

    def is_in(self, group: str) -> bool:
        """Tell whether who asks belongs to a group; may ask a directory service, so not for the event loop.

        A process may be in other groups than its user: a service by its unit, a shell by newgrp(1), or because it is
        older than the membership. As for files, those of the process count.

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
    """Return who connected."""
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
    """Make the control socket, and remove it at the end.

    Its owner may connect, and `group` if one is set. A lock file beside it keeps two daemons that start at the same
    time apart; a socket that nobody serves is replaced, and nothing else ever is.

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
    gid = find_group(group) if group else None
    lock_fd = _lock(path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            _remove_stale(path)
            _bind(listening, path, gid)
            try:
                yield listening
            finally:
                listening.close()
                path.unlink(missing_ok=True)
    finally:
        os.close(lock_fd)


def _lock(path: Path) -> int:
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_fd = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise _cannot_make(path, error) from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock_fd)
        raise _served(path) from error
    return lock_fd


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody serves; the caller holds the lock, but another program may serve it."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise AlfwatchdError(f"{path}: is there already and is no socket; it was left alone: set another --socket")
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
        except BlockingIOError:  # it has more connections waiting than it takes
            return True
        return True


def _bind(listening: socket.socket, path: Path, gid: int | None) -> None:
    try:
        old_mask = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(old_mask)
        if gid is not None:
            _hand_over(path, gid)
        listening.listen(BACKLOG)
    except OSError as error:
        raise _cannot_make(path, error) from error


def _hand_over(path: Path, gid: int) -> None:
    try:
        os.chown(path, -1, gid)
        path.chmod(0o660)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise AlfwatchdError(
            f"control.group: {path} cannot be given to the group ({error.strerror}); the daemon's user must be in it"
        ) from error


def _served(path: Path) -> Locked:
    return Locked(f"{path}: another daemon serves this socket; stop it, or give this one its own with --socket")


def _cannot_make(path: Path, error: OSError) -> AlfwatchdError:
    return AlfwatchdError(f"{path}: cannot make the control socket ({error.strerror or error}); set --socket")
