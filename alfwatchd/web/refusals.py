"""What a refused client is told: what is missing, and which command or setting of an administrator changes that."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from alfwatchd.acl import SEARCH
from alfwatchd.users import group_name, user_name
from alfwatchd.web.peer import Peer
from alfwatchd.web.table_readers import Obstacle

NO_GROUP = (
    'no group is set (control.group): an administrator can write group = "lab", with a group of this machine, into '
    "the section [control] of the daemon's settings, and restart the daemon"
)
"""What is wrong where control.group is empty, and what to do."""
ONLY_OWNER = (
    'the root user and the daemon\'s user may (control.read = "owner"); an administrator can set control.read to '
    '"group" or "tables" in the daemon\'s settings, and restart the daemon'
)
"""Which users may read with this setting, and what to do."""


def join_group(group: str, user: str) -> str:
    """Return what an administrator does to put a user into a group."""
    return (
        f"an administrator can run: usermod -aG {shlex.quote(group)} {shlex.quote(user)}, after which you log in again"
    )


def only_control(group: str, peer: Peer) -> str:
    """Say which users have control rights, and how a client gets them.

    Parameters
    ----------
    group : str
        The setting `control.group`.
    peer : Peer
    """
    if not group:
        return f"the root user and the daemon's user may; {NO_GROUP}"
    return (
        f"the root user, the daemon's user and members of the group {group} (control.group) may; "
        f"{join_group(group, user_name(peer.uid))}"
    )


def only_readers(obstacle: Obstacle, tables: Sequence[Path], peer: Peer) -> str:
    """Say what keeps a client from reading the tables, and how that changes.

    It names nothing below a folder that the client may not search.
    """
    rule = 'users who may read both tables may (control.read = "tables")'
    if not obstacle.wanted:
        return (
            f"{rule}; {obstacle.path}: {obstacle.why}; until that changes, only the root user, the daemon's user and "
            "members of control.group may"
        )
    about = f"{rule}; {obstacle.path} is closed to this user ({obstacle.why})"
    if peer.caller().uid is None:
        return f"{about}, which has no number of its own here; run the client as another user"
    user = shlex.quote(user_name(peer.uid))
    letter, paths = ("x", (obstacle.path,)) if obstacle.wanted == SEARCH else ("r", tables)
    ways = [f"setfacl -m u:{user}:{letter} {shlex.join(map(str, paths))}"]
    if obstacle.group:
        ways.insert(0, f"usermod -aG {shlex.quote(obstacle.group)} {user}, after which you log in again")
    return f"{about}; an administrator can run: {', or '.join(ways)}"


def not_connected(path: Path) -> str:
    """Say why this process may not connect to a socket, and how that changes."""
    try:
        about = path.stat()
    except OSError:
        folder = next(
            (above for above in reversed(path.parents) if not os.access(above, os.X_OK, effective_ids=True)),
            path.parent,
        )
        return (
            f"this user may not enter {folder}; ask the owner to set the daemon's `socket` to a path in a folder that "
            "all users may enter, as the systemd unit does (/run/alfwatchd)"
        )
    users = "only the root user" if about.st_uid == 0 else f"only the root user and user {user_name(about.st_uid)}"
    if about.st_mode & stat.S_IWGRP:
        group = group_name(about.st_gid)
        how = f"{users} and members of the group {group} may connect; {join_group(group, user_name(os.geteuid()))}"
    else:
        how = f"{users} may connect; {NO_GROUP}"
    return f'{how}; or can set control.read = "tables": then users who may read the tables may ask'
