"""Says under which key the digest of a file is recorded, when a digest may be recorded, and what a record proves."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from alfwatchd.tree.packed import (
    differs_in_ctime,
    either_way,
    has_change_time,
    inode_of,
    unpack_signature,
    without_inode,
)

_SECOND = 1_000_000_000
_KERNEL_TICK_NS = 20_000_000
"""More than one tick of the kernel's clock, which gives files their times: at most 10 ms."""

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

_OVERLAY = 0x794C7630
_SERVERS = frozenset({0x00006969, 0x00C36400, 0x0BD00BD0, 0x47504653})
_OWN_CLOCK = _LASTING_INODES - _SERVERS | {_OVERLAY}
"""Those that take the time from this host's kernel, and keep either whole seconds or fractions of them."""


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


class Recorded(NamedTuple):
    """What is recorded for a `Key.place`.

    Parameters
    ----------
    stamp : bytes
        See `Key`.
    born_ns : int
        When the inode was made, in nanoseconds since 1970; 0 where the file system does not tell.
    digest : bytes
        md5, 16 bytes.
    """

    stamp: bytes
    born_ns: int
    digest: bytes

    def is_of(self, key: Key) -> bool:
        """Tell whether this is certainly the digest of the file with this key."""
        return self.stamp == key.stamp

    def is_renewed_by(self, key: Key, born_ns: int) -> bool:
        """Tell whether the key is of certainly the same file, with equal size and time, but another change time.

        That is so after `chmod`, and after a rename. It is also so if a program wrote to the file, and restored its
        time: only reading the file again tells.
        """
        return born_ns != 0 and self.born_ns == born_ns and differs_in_ctime(self.stamp, key.stamp)


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
    return path_key(path, signature) if has_change_time(signature) else None


def path_key(path: str, signature: bytes) -> Key:
    """Return the key of a file that has a change time, and whose inode number does not last."""
    place = hashlib.md5(path.encode(errors="surrogateescape"), usedforsecurity=False).digest()
    return Key(place, without_inode(either_way(signature)[0]))


def forgotten(signature: bytes) -> tuple[bytes, bytes]:
    """Return the place of a file that is recorded by its inode, and the stamp of one that is recorded by its path."""
    key = inode_key(signature)
    return key.place, without_inode(key.stamp)


def clock_step(signature: bytes, file_system: int | None = None) -> int:
    """Return for how long after the change time of a file another change may give it the same change time.

    Parameters
    ----------
    signature : bytes
        Packed.
    file_system : int or None
        Its type, as ``statfs`` tells it; None for the shortest time that is possible with this signature.

    Returns
    -------
    int
        Nanoseconds. A change time with a fraction of a second shows a fine clock, which is that of the kernel. One
        without shows a file system that counts whole seconds, such as ext3. FAT counts two of them. The clock of a
        server, and what is below FUSE, is not known: 2 s.
    """
    if file_system is not None and file_system not in _OWN_CLOCK:
        return 2 * _SECOND + _KERNEL_TICK_NS
    return _KERNEL_TICK_NS if unpack_signature(signature).ctime_ns % _SECOND else _SECOND + _KERNEL_TICK_NS


def is_settled(signature: bytes, now_ns: int, wait_ns: int) -> bool:
    """Tell whether a file has not changed for `wait_ns`. One with a time far in the future counts as settled."""
    return abs(now_ns - unpack_signature(signature).ctime_ns) >= wait_ns
