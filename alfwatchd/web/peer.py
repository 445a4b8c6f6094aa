"""The client of a connection: its process, user and groups, as the kernel tells them."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from alfwatchd import linux
from alfwatchd.acl import Caller
from alfwatchd.errors import ConfigError
from alfwatchd.users import find_user_name

_UCRED = struct.Struct("iII")  # pid_t, uid_t, gid_t: unix(7)
_ALL_IDS = ["0", "0", "4294967295"]
"""What ``uid_map`` holds in the first user namespace: user_namespaces(7)."""
_OVERFLOW = 65534
"""Of user_namespaces(7), unless an administrator has set another number."""
UNKNOWN = -1
"""Stands for a user or group of another user namespace where the kernel gives the same number for all of them."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The client: process, user and primary group (``SO_PEERCRED``, unix(7)).

    They are those of the process that connected, when it connected: effective ids, as for open(2). A process that gets
    the connection from it, by fork, exec or SCM_RIGHTS, has the same rights on it, as with an open file.
    """

    pid: int
    uid: int
    """`UNKNOWN` if the daemon runs in a container, and the user is none of that container's."""
    gid: int
    groups: frozenset[int] | None = None
    """Supplementary groups of the process when it connected; None if they are not known."""

    def __str__(self) -> str:
        return f"user={find_user_name(self.uid) or '?'} uid={self.uid} pid={self.pid}"

    def all_groups(self) -> frozenset[int]:
        """Return the ids of all groups. This may ask a directory service, so do not call it in an event loop.

        The groups of the process count, as they do for files. They can differ from those of its user: a unit may set
        them, newgrp(1) may, and a process that is older than a membership does not have it.
        """
        if self.groups is not None:
            return self.groups | {self.gid}
        try:
            return frozenset(os.getgrouplist(pwd.getpwuid(self.uid).pw_name, self.gid))
        except (KeyError, OverflowError):
            return frozenset({self.gid})

    def caller(self) -> Caller:
        """Return the client as the owner of files; this may ask a directory service.

        The numbers of `nobody` and `nogroup` own no file: the kernel also shows them for owners that it does not know.
        """
        gids = self.all_groups()
        nobody, nogroup = {UNKNOWN, _overflow("uid")}, {UNKNOWN, _overflow("gid")}
        if self.uid in nobody:
            return Caller(None, frozenset(), is_whole=False)
        return Caller(self.uid, gids - nogroup, is_whole=not gids & nogroup)


def find_peer(connection: socket.socket) -> Peer:
    """Return the client of a connection."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    groups = _find_groups(connection, pid, uid, gid)
    if not _sees_all_ids("uid"):
        uid = UNKNOWN if uid == _overflow("uid") else uid
    if not _sees_all_ids("gid"):
        nogroup = _overflow("gid")
        gid = UNKNOWN if gid == nogroup else gid
        groups = frozenset(UNKNOWN if each == nogroup else each for each in groups) if groups is not None else None
    return Peer(pid, uid, gid, groups)


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


def _find_groups(connection: socket.socket, pid: int, uid: int, gid: int) -> frozenset[int] | None:
    try:
        return frozenset(linux.peer_groups(connection.fileno()))
    except OSError:  # an old kernel, or a sandbox
        return groups_of_process(pid, uid, gid)


def groups_of_process(pid: int, uid: int, gid: int, proc: Path = Path("/proc")) -> frozenset[int] | None:
    """Return the supplementary groups of a process, from ``/proc``; None if they cannot be known.

    Another process may have got the number of one that has ended. Its groups count only if it has the same user and
    group: this user can have them.

    Parameters
    ----------
    pid, uid, gid : int
        Effective ids of the process.
    proc : Path
        Where proc(5) is mounted.
    """
    with suppress(OSError, ValueError, KeyError, IndexError):
        lines = (proc / str(pid) / "status").read_text().splitlines()
        told = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        if (int(told["Uid"][1]), int(told["Gid"][1])) == (uid, gid):
            return frozenset(map(int, told["Groups"]))
    return None


@functools.cache
def _overflow(kind: str) -> int:
    """Return the number that the kernel shows for a user ("uid") or group ("gid") that this namespace lacks."""
    try:
        return int(Path(f"/proc/sys/kernel/overflow{kind}").read_text())
    except (OSError, ValueError):
        return _OVERFLOW


@functools.cache
def _sees_all_ids(kind: str) -> bool:
    """Tell whether this process is in the first user namespace, in which each number is that of one user or group."""
    try:
        return Path(f"/proc/self/{kind}_map").read_text().split() == _ALL_IDS
    except OSError:
        return False
