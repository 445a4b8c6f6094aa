"""Names of the users and groups of this machine, for messages."""

from __future__ import annotations

import functools
import grp
import os
import pwd

_MOST_NAMES = 256


def this_user() -> str:
    """Return the user of this process, as a message names it, also one without an entry in the list of users."""
    uid = os.geteuid()
    name = find_user_name(uid)
    return f"the user of uid {uid}" if name is None else f"user {name} (uid {uid})"


@functools.lru_cache(maxsize=_MOST_NAMES)
def find_user_name(uid: int) -> str | None:
    """Return the name of a user; None if it has none. This may ask a directory service, at the first time."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return None


def user_name(uid: int) -> str:
    """Return the name of a user, or else its number: programs such as setfacl take both."""
    return find_user_name(uid) or str(uid)


@functools.lru_cache(maxsize=_MOST_NAMES)
def group_name(gid: int) -> str:
    """Return the name of a group, or else its number. This may ask a directory service, at the first time."""
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)
