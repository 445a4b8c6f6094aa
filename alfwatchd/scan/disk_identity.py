"""Asks file systems for their identity. It does not read ``/dev/disk``, which a service may not see."""

from __future__ import annotations

import platform

from alfwatchd import linux
from alfwatchd.scan.place import Identity, may_have_identity

_READ = 1 if platform.machine().startswith(("mips", "ppc", "sparc", "alpha")) else 2
_SIZE_BITS = 13 if _READ == 1 else 14


def _ior(kind: int, number: int, size: int) -> int:
    """Return the number of an ioctl that reads `size` bytes: ``_IOR`` of <asm-generic/ioctl.h> and its other forms."""
    return (_READ << (16 + _SIZE_BITS)) | (size << 16) | (kind << 8) | number


# <linux/fs.h>: struct fsuuid2 is a length and 16 bytes. Linux 6.9; ENOTTY on btrfs.
_FSUUID_SIZE = 17
_FS_IOC_GETFSUUID = _ior(0x15, 0, _FSUUID_SIZE)
# <xfs/xfs_fs.h>: struct xfs_fsop_geom_v1 ends in uuid, sunit, swidth, logsectsize and so on; the UUID is at byte 64.
_XFS_GEOMETRY_SIZE, _XFS_UUID_AT = 112, 64
_XFS_IOC_FSGEOMETRY_V1 = _ior(ord("X"), 100, _XFS_GEOMETRY_SIZE)
# <linux/btrfs.h>: struct btrfs_ioctl_fs_info_args is max_id, num_devices, fsid[16], ...
_BTRFS_INFO_SIZE, _BTRFS_UUID_AT = 1024, 16
_BTRFS_IOC_FS_INFO = _ior(0x94, 31, _BTRFS_INFO_SIZE)


def read_identity(fd: int, fs_type: str, fsid: int) -> Identity | None:
    """Return the identity of the file system that an open folder is on.

    Parameters
    ----------
    fd : int
    fs_type : str
        As in the mount table.
    fsid : int
        ``f_fsid`` of statvfs.

    Returns
    -------
    Identity or None
        None if there is none: FUSE and network file systems, old kernels, a sandbox that refuses the question.
    """
    match fs_type:
        case "ext2" | "ext3" | "ext4":
            return Identity("ext", f"{fsid:x}") if fsid else None  # made of the UUID: ext4_statfs
        case "zfs":
            return Identity("zfs", f"{fsid:x}") if fsid else None
        case "xfs":
            return _identity("xfs", _ask(fd, _XFS_IOC_FSGEOMETRY_V1, _XFS_GEOMETRY_SIZE, _XFS_UUID_AT))
        case "btrfs":
            value = _ask(fd, _BTRFS_IOC_FS_INFO, _BTRFS_INFO_SIZE, _BTRFS_UUID_AT)
            return _identity("btrfs", value, f" {fsid:x}")  # which differs for each subvolume
    if not may_have_identity(fs_type):
        return None
    return _identity("uuid", _ask(fd, _FS_IOC_GETFSUUID, _FSUUID_SIZE, 1))


def _identity(kind: str, value: bytes, more: str = "") -> Identity | None:
    return Identity(kind, f"{value.hex()}{more}") if any(value) else None


def _ask(fd: int, request: int, size: int, place: int) -> bytes:
    """Return the UUID in the answer to an ioctl, shorter ones filled up with zeros; nothing where it is refused."""
    try:
        return linux.ioctl(fd, request, size)[place : place + 16]
    except OSError:
        return b""
