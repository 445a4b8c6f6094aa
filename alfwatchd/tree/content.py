"""Says under which key the digest of a file is recorded, and when a digest may be recorded."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from alfwatchd.tree.packed import either_way, inode_of, unpack_signature, without_inode

COARSEST_CLOCK_NS = 2_000_000_000
"""Longest time during which a file system may give all changes the same time: FAT 2 s, ext3 1 s, most others 4 ms."""

_LASTING_INODES = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # XFS
        0x9123683E,  # btrfs
        0xF2F52010,  # F2FS
        0x2FC12FC1,  # ZFS
        0xCA451A4E,  # bcachefs
        0x01021994,  # tmpfs
        0x00006969,  # NFS: the server's
        0x00C36400,  # Ceph
        0x0BD00BD0,  # Lustre
        0x47504653,  # GPFS
    }
)
"""Types of file systems, as ``statfs`` tells them, whose inode numbers last and that keep a change time."""


class Key(NamedTuple):
    """The key under which a digest is recorded.

    Parameters
    ----------
    place : bytes
        An inode, or a path: it holds one file at a time, and one digest is recorded for it.
    stamp : bytes
        Which file and content it was: another file there, or another content, has another stamp.
    """

    place: bytes
    stamp: bytes


def inode_key(signature: bytes) -> Key:
    """Return the key of a file whose inode number lasts; it is the same after a rename."""
    return Key(inode_of(signature), either_way(signature)[0])


def record_key(file_system: int, path: str, signature: bytes) -> Key | None:
    """Return the key of a file, or None if nothing could prove later that it is the same file.

    Parameters
    ----------
    file_system : int
        Its type, as ``statfs`` tells it.
    path : str
        Relative to the root.
    signature : bytes
        Packed.

    Returns
    -------
    Key or None
        FAT and FUSE may give other inode numbers at each mount: there the path takes their place. Some of these file
        systems, FAT and sshfs among them, tell the modification time instead of a change time. Any program can set it,
        so a file with two equal times is not recorded there.
    """
    if file_system in _LASTING_INODES:
        return inode_key(signature)
    about = unpack_signature(signature)
    if about.ctime_ns in (0, about.mtime_ns):
        return None
    place = hashlib.md5(path.encode(errors="surrogateescape"), usedforsecurity=False).digest()
    return Key(place, without_inode(either_way(signature)[0]))


def forgotten(signature: bytes) -> tuple[Key, bytes]:
    """Return the key of a file by its inode, and the stamp that it has if it is recorded by its path."""
    key = inode_key(signature)
    return key, without_inode(key.stamp)


def is_final(signature: bytes, read_ns: int) -> bool:
    """Tell whether a change after the file was read would certainly give it another change time.

    Parameters
    ----------
    signature : bytes
        Packed.
    read_ns : int
        When the first byte was read, in nanoseconds since 1970.
    """
    return unpack_signature(signature).ctime_ns + COARSEST_CLOCK_NS <= read_ns


def is_settled(signature: bytes, now_ns: int, settle_ns: int) -> bool:
    """Tell whether a file has not changed for `settle_ns`. One with a time far in the future counts as settled."""
    return abs(now_ns - unpack_signature(signature).ctime_ns) >= settle_ns
