"""Whether the root is still the file system that the tables mirror, so that an unmount never looks like a deletion."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Identity of a folder and of the file system on it.

    Parameters
    ----------
    fsid : int
        ``f_fsid`` of statvfs: tells file systems apart that have equal device and inode numbers.
    dev, ino : int
        Device and inode of the folder.
    mount_id : int
        Changes when something is mounted over the folder; another one at each mount.
    fs_type : str
        For example ``ext4`` or ``nfs4``.
    """

    fsid: int
    dev: int
    ino: int
    mount_id: int
    fs_type: str

    def is_same_data(self, other: Place) -> bool:
        """Tell whether both are the same folder of the same file system, mounted again or not."""
        return (self.fsid, self.ino, self.fs_type) == (other.fsid, other.ino, other.fs_type)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether rows may be changed by what is on disk now.

    Parameters
    ----------
    reason : str
        Why the root is offline; empty if it is online.
    """

    reason: str = ""

    @property
    def is_online(self) -> bool:
        """Whether the root is what it was."""
        return not self.reason


ONLINE = Verdict()


def judge_place(
    expected: Place | None, found: Place | OSError, known: AbstractSet[str], names: AbstractSet[str]
) -> Verdict:
    """Compare the root with what it was.

    Parameters
    ----------
    expected : Place or None
        What it was; None if it was never seen.
    found : Place or OSError
        What it is, or why it cannot be seen.
    known : set of str
        Names of the top-level folders that hold rows.
    names : set of str
        Names of the top-level folders that are there.

    Returns
    -------
    Verdict
        Another folder of the same file system, or the same folder of another one, is taken for the same data if at
        least half of the known top-level folders are there: some file systems change their identity at a reboot, and
        a restored backup is welcome. What differs in both is most likely what lies below a mount point, where
        somebody may have begun to write.
    """
    if isinstance(found, OSError):
        return Verdict(f"the root cannot be read ({found.strerror})")
    looks_alike = not known or 2 * len(known & names) >= len(known)
    if known and not names:
        return Verdict("the root is suddenly empty")
    if expected is not None and not expected.is_same_data(found) and not names:  # the tables may be gone with the disk
        return Verdict(f"the root is another file system than before ({found.fs_type}) and is empty")
    if known and expected is not None and not expected.is_same_data(found):
        is_related = expected.fs_type == found.fs_type and (expected.fsid == found.fsid or expected.ino == found.ino)
        if not (is_related and looks_alike):
            return Verdict(f"the root is another file system than before ({found.fs_type}), or another folder")
    return ONLINE
