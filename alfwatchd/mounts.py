"""File systems and mount points, as the kernel tells them: ``/proc/self/mountinfo`` (proc(5)) and ``statvfs``."""

from __future__ import annotations

import os
import re
import select
from dataclasses import dataclass
from pathlib import Path

from alfwatchd.core.guard import Place

# File systems whose changes all pass through this kernel, so that inotify sees them. A network or unknown one may
# change without any event.
WATCHABLE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "f2fs", "zfs", "overlay", "bcachefs"})

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount: where, its id, and the type of file system."""

    mount_id: int
    path: str
    fs_type: str


def list_mounts() -> list[Mount]:
    """Return all mounts that this process can see, in mount order."""
    mounts = []
    # Only newlines end a line: the kernel escapes them in paths, and leaves what else Python takes for one.
    for line in filter(None, os.fsdecode(_MOUNTINFO.read_bytes()).split("\n")):
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        path = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        mounts.append(Mount(int(fields[0]), path, after.split(" ")[0]))
    return mounts


def mounts_below(root: str) -> list[Mount]:
    """Return the mounts on folders strictly below `root`."""
    return [mount for mount in list_mounts() if mount.path.startswith(f"{root.rstrip('/')}/")]


def find_place(path: str) -> Place:
    """Return the identity of a folder and its file system.

    Raises
    ------
    OSError
        There is no such folder, or it cannot be reached.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        about = os.fstat(fd)
        fsid = os.statvfs(fd).f_fsid
        mount_id = _mount_id(fd)
    finally:
        os.close(fd)
    fs_type = next((mount.fs_type for mount in list_mounts() if mount.mount_id == mount_id), "unknown")
    return Place(fsid, about.st_dev, about.st_ino, mount_id, fs_type)


def top_folders(path: str) -> set[str]:
    """Return the names of the folders in a folder."""
    with os.scandir(path) as entries:
        return {entry.name for entry in entries if entry.is_dir()}


class MountWatch:
    """Tells whether anything was mounted or unmounted since the last question; costs one system call."""

    def __init__(self) -> None:
        self._file = _MOUNTINFO.open("rb")
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLPRI | select.POLLERR)
        self._poll.poll(0)

    def has_changed(self) -> bool:
        """Return True once per change of the mount table."""
        return any(events & (select.POLLERR | select.POLLPRI) for _, events in self._poll.poll(0))

    def close(self) -> None:
        """Close the descriptor."""
        self._file.close()


def _mount_id(fd: int) -> int:
    """Return the id of the mount that an open file is reached through (``mnt_id`` in proc(5), fdinfo)."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split(":")[1])
    return 0
