"""Whether the root is still the file system that the tables mirror, so that an unmount never looks like a deletion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

# What these tell of themselves is of the moment: another pool or server may tell the same.
_REMOTE = ("fuse", "nfs", "cifs", "smb", "9p", "virtiofs", "ceph", "lustre", "afs")
# The inode numbers of these are made up at each mount.
_MADE_UP_INODES = ("vfat", "msdos", "exfat", "ntfs")
# File systems below FUSE that tell the change time of the file that they lead to, and none that they make up.
_KEEPS_CHANGE_TIME = frozenset(
    {
        "fuse.mergerfs", "fuse.unionfs", "fuse.gocryptfs", "fuse.encfs", "fuse.glusterfs", "fuse.ceph",
        "fuse.ceph-fuse", "fuse.juicefs",
    }
)  # fmt: skip
# File systems below FUSE that may show a folder of this host, which is then the source of the mount.
_SHOWS_ANOTHER_FOLDER = frozenset({"fuse", "fuse.bindfs"})
# The inode numbers of these are on the disk.
_STORED_INODES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs"})


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a file system from every other one, on any device and at any mount point.

    Parameters
    ----------
    kind : str
        How it was found out. Only identities of one kind can be compared.
    value : str
    """

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Place:
    """A folder and the file system on it, as seen at one moment.

    Parameters
    ----------
    fsid : int
        ``f_fsid`` of statvfs; for many file systems it is no identity.
    dev, ino : int
        Device and inode of the folder.
    mount_id : int
        As in ``/proc/self/mountinfo``; given again once it is free.
    fs_type : str
        For example ``ext4`` or ``nfs4``.
    identity : Identity or None
        None if the file system has none that can be found out: FUSE, network, old kernels.
    source : str
        What is mounted, as the mount table names it. For messages only: it changes where the data stay.
    unique_id : int
        Number of the mount that is never given again while the machine runs; 0 before Linux 6.8.
    keeps_inodes : bool
        Whether inode numbers were the same after an earlier remount.
    is_link : bool
        Whether it is reached by a symbolic link in the root that is followed.
    """

    fsid: int
    dev: int
    ino: int
    mount_id: int
    fs_type: str
    identity: Identity | None = None
    source: str = ""
    unique_id: int = 0
    keeps_inodes: bool = False
    is_link: bool = False

    @property
    def has_stable_inodes(self) -> bool:
        """Whether a file keeps its inode number when the file system is mounted again."""
        return may_keep_inodes(self.fs_type) and (self.keeps_inodes or self.stores_inodes)

    @property
    def stores_inodes(self) -> bool:
        """Whether each file has an inode on the disk, with a number and a change time of its own."""
        return self.fs_type in _STORED_INODES

    def is_same_folder(self, other: Place) -> bool:
        """Tell whether the numbers that a remount does not change are equal. This is no proof."""
        return (self.fsid, self.ino, self.fs_type) == (other.fsid, other.ino, other.fs_type)

    def is_same_mount(self, other: Place) -> bool:
        """Tell whether it is surely the same mount, so that nothing can have changed but files."""
        known = self.unique_id and self.unique_id == other.unique_id
        return bool(known) and (self.fsid, self.dev, self.ino) == (other.fsid, other.dev, other.ino)

    def may_be_same_mount(self, other: Place) -> bool:
        """Tell whether it is the same mount, as far as the numbers tell that an old kernel gives again."""
        is_numbered_alike = (self.mount_id, self.dev) == (other.mount_id, other.dev)
        return self.is_same_mount(other) or (is_numbered_alike and 0 in (self.unique_id, other.unique_id))


def may_keep_inodes(fs_type: str) -> bool:
    """Tell whether inode numbers of such a file system could mean anything after a remount."""
    return not fs_type.startswith((*_REMOTE, *_MADE_UP_INODES))


def may_have_identity(fs_type: str) -> bool:
    """Tell whether such a file system could be told from all others of its type."""
    return not fs_type.startswith(_REMOTE)


def forgets_inodes(fs_type: str) -> bool:
    """Tell whether such a file system gives a file another inode number once the kernel has forgotten the first."""
    return fs_type.startswith(("fuse", *_MADE_UP_INODES))


def keeps_change_time(fs_type: str) -> bool:
    """Tell whether each file of such a file system, which forgets inodes, certainly has a change time."""
    return fs_type in _KEEPS_CHANGE_TIME


def shows_another_folder(fs_type: str, source: str) -> bool:
    """Tell whether such a file system, mounted from such a source, may show a folder of this host, as bindfs does."""
    return fs_type in _SHOWS_ANOTHER_FOLDER and source.startswith("/")


class Relation(Enum):
    """What the identities of two places tell."""

    SAME = "same"
    UNKNOWN = "unknown"
    DIFFERENT = "different"


def relate(expected: Place | None, found: Place) -> Relation:
    """Compare what a place was with what it is, by identity alone.

    Returns
    -------
    Relation
        UNKNOWN where one of them has no identity, or they are of two kinds (another kernel), or it is another folder
        of the same file system: then the data decide.
    """
    if expected is None or expected.identity is None or found.identity is None:
        return Relation.UNKNOWN
    if expected.identity.kind != found.identity.kind:
        return Relation.UNKNOWN
    if expected.identity != found.identity:
        return Relation.DIFFERENT
    return Relation.SAME if expected.ino == found.ino else Relation.UNKNOWN


class Seen(NamedTuple):
    """How many of the known sessions are there now.

    Parameters
    ----------
    n_known : int
        Sessions that were looked for: all, or a sample.
    n_named : int
        Those for which a folder of this name is there.
    n_numbered : int
        Those of `n_named` whose inode is known from before.
    n_same : int
        Those of `n_numbered` that still have it.
    """

    n_known: int = 0
    n_named: int = 0
    n_numbered: int = 0
    n_same: int = 0

    @property
    def shows_stable_inodes(self) -> bool:
        """Whether nearly all inodes are the same as before."""
        return self.n_numbered > 0 and 10 * self.n_same >= 9 * self.n_numbered


def judge_data(expected: Place | None, seen: Seen) -> str:
    """Return why the data on disk cannot be the known ones; empty if at least half of the known sessions are there.

    Names alone would accept an old backup. So if inode numbers are stable, half of them must be the same, too.
    """
    if 2 * seen.n_named < seen.n_known:
        return f"only {seen.n_named} of {seen.n_known} known sessions that were looked for are there"
    if expected is not None and expected.has_stable_inodes and 2 * seen.n_same < seen.n_numbered:
        return f"only {seen.n_same} of {seen.n_numbered} known sessions are the same folders as before, not copies"
    return ""


def upwards(path: str) -> Iterator[str]:
    """Yield a path relative to the root and those of the folders above it, the root, '', last."""
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield path


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
        """Whether the root is the same as before."""
        return not self.reason


ONLINE = Verdict()


def judge_place(
    expected: Place | None, found: Place | OSError, *, is_known: bool, is_empty: bool, look: Callable[[], Seen]
) -> Verdict:
    """Compare the root with what it was before.

    Parameters
    ----------
    expected : Place or None
        What it was; None if it was never seen.
    found : Place or OSError
        What it is, or why it cannot be seen.
    is_known : bool
        Whether any sessions are known.
    is_empty : bool
        Whether there is no folder in it.
    look : callable
        Looks for the known sessions; called only where identities do not tell.

    Returns
    -------
    Verdict
        Equal identities are no proof that the data are the same (``dd``, snapshots). If a scan then finds that sessions
        are gone, `index.losses` judges it.
    """
    if isinstance(found, OSError):
        return Verdict(f"the root cannot be read ({found.strerror})")
    if is_known and is_empty:
        return Verdict("the root is suddenly empty")
    relation = relate(expected, found)
    if relation is Relation.SAME:
        return ONLINE
    what = f"the root is another file system than before {describe(found)}"
    if expected is not None and is_empty and not (relation is Relation.UNKNOWN and expected.is_same_folder(found)):
        return Verdict(f"{what} and is empty")  # the tables may be gone with the disk
    if relation is Relation.DIFFERENT:
        return Verdict(what)
    if reason := judge_data(expected, look()):
        return Verdict(f"{what}, or another folder: {reason}" if expected is not None else reason)
    return ONLINE


def describe(place: Place) -> str:
    """Return type and source of a file system for a message."""
    source = "" if place.source in ("", "none", place.fs_type) else f" from {place.source}"
    return f"({place.fs_type}){source}"


def with_proof(expected: Place | None, found: Place, look: Callable[[], Seen]) -> Place:
    """Return a place with what is known of its inode numbers: whether a remount has left them as they were."""
    if expected is None or expected.fs_type != found.fs_type or not may_keep_inodes(found.fs_type):
        return found
    is_remounted = expected.mount_id != found.mount_id or 0 != expected.unique_id != found.unique_id
    if found.has_stable_inodes or not is_remounted:
        return replace(found, keeps_inodes=expected.keeps_inodes)
    seen = look()
    return replace(found, keeps_inodes=seen.shows_stable_inodes if seen.n_numbered else expected.keeps_inodes)
