"""Tells disk images from each other, which one after the other are mounted through the same loop device.

Images that one script made may have equal UUIDs, inode numbers, sizes and times, and other contents. Disks do not.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_LOOP_MAJOR = 7
_SYS = Path("/sys")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOST_BITS = 63


def is_image(dev: int) -> bool:
    """Tell whether a file system is on a loop device; `dev` is its ``st_dev``."""
    return os.major(dev) == _LOOP_MAJOR


def record_space(fsid: int, dev: int) -> int:
    """Return the number under which digests of files on a file system are recorded.

    Parameters
    ----------
    fsid : int
        ``f_fsid`` of statvfs.
    dev : int
        ``st_dev`` of its files.

    Returns
    -------
    int
        The `fsid`, or, for an image, a number that is another one each time that an image is mounted.
    """
    if not is_image(dev):
        return fsid
    # The kernel makes these folders when an image is attached and mounted, and never gives their numbers again.
    name = os.path.basename(os.path.realpath(_SYS / f"dev/block/{os.major(dev)}:{os.minor(dev)}"))
    made = [_SYS / "block" / name / "loop", *sorted((_SYS / "fs").glob(f"*/{name}"))]
    told = f"{fsid} {_boot()} {[_inode(path) for path in made]}"
    digest = hashlib.md5(told.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8]) >> (64 - _MOST_BITS)


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
