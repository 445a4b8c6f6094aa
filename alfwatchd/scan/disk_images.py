"""Tells disk images from each other, which one after the other are mounted through the same loop device.

Images that one script made may have equal UUIDs, inode numbers, sizes and times, and other contents. Disks do not.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from alfwatchd.scan.place import Identity

_LOOP_MAJOR = 7
_LOOP = re.compile(r"loop\d+")
_MAPPED = "dm-"
"""Devices of the device mapper: encrypted ones, and parts of others."""
SYS = Path("/sys")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOST_BITS = 63


def is_image(dev: int) -> bool:
    """Tell whether a file system is on a loop device, a partition of one, or one that is encrypted.

    `dev` is the ``st_dev`` of its files.
    """
    return bool(_loops_in(_device_folder(dev)))


def record_space(fsid: int, dev: int, identity: Identity | None = None) -> int:
    """Return the number under which digests of files on a file system are recorded.

    Parameters
    ----------
    fsid : int
        ``f_fsid`` of statvfs.
    dev : int
        ``st_dev`` of its files.
    identity : Identity or None
        Needed for XFS only.

    Returns
    -------
    int
        The `fsid`, or, for XFS, whose `fsid` is the number of the device and may be another one after the next boot,
        one that is made of its UUID. For an image, a number that is another one each time that an image is mounted.
    """
    device = _device_folder(dev)
    loops = _loops_in(device)
    if not loops:
        return _short(f"xfs {identity.value}") if identity is not None and identity.kind == "xfs" else fsid
    # The kernel makes these folders when an image is attached and mounted, and never gives their numbers again.
    mounted = (SYS / "fs").glob(f"*/{os.path.basename(device)}")
    made = [*(SYS / "block" / loop / "loop" for loop in loops), *sorted(mounted)]
    return _short(f"{fsid} {_boot()} {[_inode(path) for path in made]}")


def _short(told: str) -> int:
    digest = hashlib.md5(told.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8]) >> (64 - _MOST_BITS)


def _loops_in(folder: str) -> list[str]:
    """Return the names of the loop devices that the device with a folder in ``/sys`` is on."""
    loops = [name for name in folder.split("/") if _LOOP.fullmatch(name)]
    if loops or not os.path.basename(folder).startswith(_MAPPED):
        return loops
    try:
        return sorted(
            loop
            for below in (SYS / "block" / os.path.basename(folder) / "slaves").iterdir()
            for loop in _loops_in(os.path.realpath(below))
        )
    except OSError:
        return []


def _device_folder(dev: int) -> str:
    """Return the folder of a device in ``/sys``, or nothing; one of the loop driver is known without ``/sys``."""
    if not os.major(dev):  # btrfs, tmpfs, FUSE, network: no device
        return ""
    try:
        return str((SYS / f"dev/block/{os.major(dev)}:{os.minor(dev)}").readlink())
    except OSError:
        return f"loop{os.minor(dev)}" if os.major(dev) == _LOOP_MAJOR else ""


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
