"""What owner, group, mode and ACL of a file allow a user, as the Linux kernel decides it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

XATTR = "system.posix_acl_access"
"""Name of the extended attribute in which the kernel gives the ACL of a file."""
READ, SEARCH = 4, 1
"""Permission bits: to read a file; to reach what is in a folder."""
_ALL = 7

# <linux/posix_acl_xattr.h>: a version, then entries of tag, permission bits and id, all little-endian.
_VERSION = 2
_HEAD, _ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_BASE = (_USER_OBJ, _GROUP_OBJ, _OTHER)


@dataclass(frozen=True, slots=True)
class Acl:
    """An ACL. The bits of the file's owner are not in it, because the kernel takes them from the mode.

    Parameters
    ----------
    users, groups : tuple of (int, int)
        Id and permission bits of each user and group that the ACL names.
    group : int
        Permission bits of the file's own group.
    mask : int
        The most that `users`, `groups` and `group` give.
    others : int
        Permission bits of all other users.
    """

    users: tuple[tuple[int, int], ...]
    groups: tuple[tuple[int, int], ...]
    group: int
    mask: int
    others: int


@dataclass(frozen=True, slots=True)
class Permissions:
    """Owner, group, mode and ACL of a file or folder; `acl` is None where it has none."""

    uid: int
    gid: int
    mode: int
    acl: Acl | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """The user of a process, and its groups.

    Parameters
    ----------
    uid : int or None
        None for a user of another user namespace, whose id cannot be known.
    gids : frozenset of int
        The known ones, the primary group included.
    is_whole : bool
        Whether user and groups are all known.
    """

    uid: int | None
    gids: frozenset[int]
    is_whole: bool = True


def parse(packed: bytes) -> Acl:
    """Return the ACL that the kernel packed into an extended attribute.

    Raises
    ------
    ValueError
        The bytes are not an ACL of the version that is known.
    """
    if len(packed) < _HEAD.size or (len(packed) - _HEAD.size) % _ENTRY.size:
        raise ValueError(f"an ACL of {len(packed)} bytes")
    if (version := _HEAD.unpack_from(packed)[0]) != _VERSION:
        raise ValueError(f"an ACL of version {version}")
    named: dict[int, list[tuple[int, int]]] = {_USER: [], _GROUP: []}
    base: dict[int, int] = {}
    for tag, bits, number in _ENTRY.iter_unpack(packed[_HEAD.size :]):
        if tag in named:
            named[tag].append((number, bits & _ALL))
        elif tag in (*_BASE, _MASK) and tag not in base:
            base[tag] = bits & _ALL
        else:
            raise ValueError(f"an ACL with an entry of kind {tag}")
    if not base.keys() >= {*_BASE} or ((named[_USER] or named[_GROUP]) and _MASK not in base):
        raise ValueError("an ACL without all entries that each ACL has")
    return Acl(
        tuple(named[_USER]), tuple(named[_GROUP]), base[_GROUP_OBJ], base.get(_MASK, _ALL), base[_OTHER]
    )  # fmt: skip


def allows(file: Permissions, caller: Caller, wanted: int) -> bool:
    """Tell whether a caller may use a file.

    The root user may, and that is not decided here. If something of the caller is not known, an entry that denies could
    be meant for it: then every class of users must have the right that would otherwise come from "others".

    Parameters
    ----------
    file : Permissions
    caller : Caller
    wanted : int
        One permission bit.
    """
    if caller.uid == file.uid:
        return bool(file.mode >> 6 & wanted)
    decided = _decide(file, caller)
    if decided is not None:
        return bool(decided & wanted)
    if caller.is_whole:
        return bool(file.mode & wanted)
    return all(bits & wanted for bits in _of_all_classes(file))


def _decide(file: Permissions, caller: Caller) -> int | None:
    """Return the permission bits of a caller that is not the owner; None if those of all other users count.

    Each bit counts alone: of several groups, one gives the right to read and another one the right to search.
    """
    group_bits = file.mode >> 3 & _ALL
    acl = file.acl
    if acl is None or not group_bits:  # if the mask gives nothing, the kernel does not look at the ACL
        return group_bits if file.gid in caller.gids else None
    for uid, bits in acl.users:
        if uid == caller.uid:
            return bits & acl.mask
    found = [bits for gid, bits in ((file.gid, acl.group), *acl.groups) if gid in caller.gids]
    if not found:
        return None
    union = 0
    for bits in found:
        union |= bits
    return union & acl.mask


def _of_all_classes(file: Permissions) -> Iterator[int]:
    """Yield the permission bits of owner, group, others, and all users and groups that the ACL names."""
    yield from (file.mode >> 6, file.mode >> 3, file.mode)
    if file.acl is not None:
        for bits in (file.acl.group, *(bits for _, bits in (*file.acl.users, *file.acl.groups))):
            yield bits & file.acl.mask
