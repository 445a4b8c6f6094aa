"""Which recorded digest is that of a file: under what it is recorded, and from when on it may be."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from alfwatchd.tree.packed import either_way, inode_of, unpack_signature, without_inode

COARSEST_CLOCK_NS = 2_000_000_000
"""For how long a file system may give all changes the same time: 2 s for FAT, 1 s for ext3, 4 ms for most others."""

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
"""File systems, as ``statfs`` names them, whose inode numbers last and that keep a change time. FAT has neither."""


class Key(NamedTuple):
    """Under what a digest is recorded.

    Parameters
    ----------
    place : bytes
        What holds one file at a time: an inode, or a path. One digest is recorded for each.
    stamp : bytes
        What the file was: another one, or another content, has another stamp.
    """

    place: bytes
    stamp: bytes


def inode_key(signature: bytes) -> Key:
    """Return the key of a file whose inode number lasts: it is found again under another path."""
    return Key(inode_of(signature), either_way(signature)[0])


def record_key(file_system: int, path: str, signature: bytes) -> Key | None:
    """Return the key of a file, or None where nothing proves that it is the same file another time.

    Parameters
    ----------
    file_system : int
        As ``statfs`` names its type.
    path : str
        Relative to the root.
    signature : bytes
        Packed.

    Returns
    -------
    Key or None
        Where inode numbers may be given again at each mount, as by FAT and FUSE, the path takes their place. Some of
        these file systems, FAT and sshfs among them, have no change time and tell the modification time for it, which
        any program can set: files with two equal times are not recorded there.
    """
    if file_system in _LASTING_INODES:
        return inode_key(signature)
    about = unpack_signature(signature)
    if about.ctime_ns in (0, about.mtime_ns):
        return None
    place = hashlib.md5(path.encode(errors="surrogateescape"), usedforsecurity=False).digest()
    return Key(place, without_inode(either_way(signature)[0]))


def forgotten(signature: bytes) -> tuple[Key, bytes]:
    """Return the key of a file by its inode, and its stamp where it is recorded by its path."""
    key = inode_key(signature)
    return key, without_inode(key.stamp)


def is_final(signature: bytes, read_ns: int) -> bool:
    """Tell whether a change after a file was read would give it another change time than it had then.

    Parameters
    ----------
    signature : bytes
        Packed.
    read_ns : int
        When the first byte was read, in nanoseconds since 1970.
    """
    return unpack_signature(signature).ctime_ns + COARSEST_CLOCK_NS <= read_ns


def is_settled(signature: bytes, now_ns: int, settle_ns: int) -> bool:
    """Tell whether a file was left alone for a while; one that a wrong clock has put into the future does not wait."""
    return abs(now_ns - unpack_signature(signature).ctime_ns) >= settle_ns
