"""Says under which key the digest of a file is recorded, when a digest may be recorded, and what a record proves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from alfwatchd.tree.packed import (
    differs_in_ctime,
    differs_in_inode,
    either_way,
    has_change_time,
    inode_of,
    unpack_signature,
    without_inode,
)

_SECOND = 1_000_000_000
_KERNEL_TICK_NS = 20_000_000
"""More than one tick of the kernel's clock, which gives files their times: at most 10 ms."""

XFS = 0x58465342
"""Its type, as ``statfs`` tells it."""
_LASTING_INODES = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        XFS,
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

_NO_CHANGE_TIME = frozenset({0x4D44, 0x2011BAB0})  # FAT, exFAT
"""What these tell as a change time, they forget at the next mount, or a camera or another system has set it."""

_MADE_UP_INODES = _NO_CHANGE_TIME | {0x65735546}  # FUSE
"""Types of those that give a file another inode number once the kernel has forgotten the first."""

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
    is_proof : bool
        Whether that is certain. If not, a content may have been replaced by another one with an equal stamp.
    """

    place: bytes
    stamp: bytes
    is_proof: bool = True


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
        return key.is_proof and self.stamp == key.stamp

    def is_renewed_by(self, key: Key, born_ns: int) -> bool:
        """Tell whether the key is of certainly the same file, with equal size and time, but no equal change time.

        That is so after `chmod`, and after a rename. It is also so if a program wrote to the file, and restored its
        time: only reading the file again tells. Where there are no change times, each file is like this.
        """
        is_alike = differs_in_ctime(self.stamp, key.stamp) or (self.stamp == key.stamp and not key.is_proof)
        return born_ns != 0 and self.born_ns == born_ns and is_alike


def inode_key(signature: bytes) -> Key:
    """Return the key of a file whose inode number lasts; it is the same after a rename."""
    return Key(inode_of(signature), either_way(signature)[0])


def record_key(file_system: int, path: str, signature: bytes) -> Key:
    """Return the key of a file.

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
    Key
        FAT and FUSE may give other inode numbers at each mount: there the path takes their place. Some of these file
        systems, FAT and sshfs among them, tell the modification time instead of a change time. Any program can set it,
        so two equal times are no proof there.
    """
    if has_lasting_inodes(file_system):
        return inode_key(signature)
    place = hashlib.md5(path.encode(errors="surrogateescape"), usedforsecurity=False).digest()
    is_proof = file_system not in _NO_CHANGE_TIME and has_change_time(signature)
    return Key(place, without_inode(either_way(signature)[0]), is_proof)


def has_lasting_inodes(file_system: int) -> bool:
    """Tell whether inode numbers of such a file system last, and whether it keeps a change time."""
    return file_system in _LASTING_INODES


def is_same_file(found: bytes, signature: bytes, file_system: Callable[[], int]) -> bool:
    """Tell whether a file with the signature `found` is the one with the other signature, and unchanged since.

    Another inode number tells nothing on a file system that makes them up. Its type is asked for only if that matters.
    """
    return found == signature or (differs_in_inode(found, signature) and file_system() in _MADE_UP_INODES)


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


def may_recur(signature: bytes, now_ns: int, step: int) -> bool:
    """Tell whether a file can get the change time that it has once more: the clock of seconds has not reached it yet.

    That is so after a clock was set back. A digest may be made of the file, but it is no proof later.
    """
    return step >= _SECOND and unpack_signature(signature).ctime_ns > now_ns


def is_settled(signature: bytes, now_ns: int, wait_ns: int) -> bool:
    """Tell whether a file has not changed for `wait_ns`. One with a time far in the future counts as settled."""
    return abs(now_ns - unpack_signature(signature).ctime_ns) >= wait_ns
