"""File systems and mount points, as the kernel tells them: ``/proc/self/mountinfo`` (proc(5)) and ``statvfs``."""

from __future__ import annotations

import os
import re
import select
from dataclasses import dataclass
from pathlib import Path

from alfwatchd import linux
from alfwatchd.alf.grammar import TRASH
from alfwatchd.scan.disk_identity import read_identity
from alfwatchd.scan.place import Place

# File systems whose changes all pass through this kernel, so that inotify sees them. A network or unknown one may
# change without any event.
WATCHABLE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "f2fs", "zfs", "overlay", "bcachefs"})

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount.

    Parameters
    ----------
    mount_id : int
        Given again once it is free.
    device : str
        Device of the file system, and the folder of it that is mounted.
    path : str
        Where.
    fs_type : str
    source : str
        What is mounted, as the mount table names it.
    """

    mount_id: int
    device: str
    path: str
    fs_type: str
    source: str = ""


def list_mounts() -> list[Mount]:
    """Return all mounts that this process can see, in mount order."""
    mounts = []
    # Only newlines end a line: the kernel escapes them in paths, and leaves what else Python takes for one.
    for line in filter(None, os.fsdecode(_MOUNTINFO.read_bytes()).split("\n")):
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        fs_type, source, *_ = [*after.split(" "), ""]
        device = f"{fields[2]} {fields[3]}"
        mounts.append(Mount(int(fields[0]), device, _unescape(fields[4]), fs_type, _unescape(source)))
    return mounts


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def mounts_near(root: str) -> tuple[list[Mount], list[Mount]]:
    """Return the mounts that decide what is found at a folder: those on it and above it, and those below it."""
    above, below = [], []
    for mount in list_mounts():
        if _lies_in(root, mount.path):
            above.append(mount)
        elif _lies_in(mount.path, root):
            below.append(mount)
    return above, below


def _lies_in(path: str, folder: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


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
        mount_id, unique_id = _mount_id(fd), linux.unique_mount_id(fd)
        mount = next((each for each in list_mounts() if each.mount_id == mount_id), None)
        fs_type, source = (mount.fs_type, mount.source) if mount is not None else ("unknown", "")
        identity = read_identity(fd, fs_type, fsid)
    finally:
        os.close(fd)
    return Place(fsid, about.st_dev, about.st_ino, mount_id, fs_type, identity, source, unique_id)


def top_folders(path: str) -> set[str]:
    """Return the names of the folders in a folder, links to folders included, without the trash and dangling links."""
    with os.scandir(path) as entries:
        return {entry.name for entry in entries if entry.name != TRASH and _is_folder(entry)}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # of a link, most likely: a loop, or one into what this user must not see
        return False


def unique_mount_id(path: str) -> int:
    """Return `linux.unique_mount_id` of a folder; 0 where it is not known, or the folder cannot be opened."""
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return linux.unique_mount_id(fd)
    finally:
        os.close(fd)


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
