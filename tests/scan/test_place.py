"""Another disk or folder in the place of the root is noticed, and a mount that only has a new number is not."""

import errno
import os
from dataclasses import replace

import pytest

from alfwatchd.scan.place import (
    ONLINE,
    Identity,
    Place,
    Relation,
    Seen,
    forgets_inodes,
    judge_place,
    keeps_change_time,
    relate,
)

EXT = Identity("ext", "1a")
HERE = Place(fsid=0x1A, dev=21, ino=2, mount_id=31, fs_type="ext4", identity=EXT)
GONE = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
DENIED = PermissionError(errno.EACCES, os.strerror(errno.EACCES))

MOUNTED_AGAIN = replace(HERE, dev=99, mount_id=99)  # other device and mount numbers: a USB disk on another port
OTHER_DISK = replace(HERE, identity=Identity("ext", "2b"))  # equal in all else: every ext4 root is inode 2
OTHER_FOLDER = replace(HERE, ino=3)
OTHER_KIND = replace(HERE, fs_type="xfs", identity=Identity("xfs", "1a"))
BELOW = replace(OTHER_DISK, dev=22, ino=131073, mount_id=40)  # the mount point itself, on the disk of the system
REFUSED = replace(HERE, identity=None)  # a sandbox, an old kernel
POOL = Place(fsid=0, dev=50, ino=1, mount_id=60, fs_type="fuse.mergerfs", source="a:b")
OTHER_POOL = replace(POOL, source="c:d")
PROVEN = Place(fsid=7, dev=8, ino=9, mount_id=1, fs_type="overlay", keeps_inodes=True)
UNPROVEN = replace(PROVEN, keeps_inodes=False)

ALL, HALF, LESS, NONE = Seen(10, 10), Seen(10, 5), Seen(10, 4), Seen(10, 0)
COPIES, SAME_INODES = Seen(10, 10, 10, 0), Seen(10, 10, 10, 10)
ANOTHER = "another file system than before"

# (story, what it was, what it is, known sessions and what is there of them, why it is offline)
CASES = [
    ("never seen before", None, HERE, Seen(), None),
    ("the same, few sessions left: a scan judges them", HERE, HERE, LESS, None),
    ("missing", HERE, GONE, ALL, "cannot be read (No such file or directory)"),
    ("missing from the start", None, GONE, Seen(), "cannot be read (No such file or directory)"),
    ("not readable", HERE, DENIED, ALL, "cannot be read (Permission denied)"),
    ("mounted again at another device", HERE, MOUNTED_AGAIN, NONE, None),
    ("another disk of the same lab", HERE, OTHER_DISK, HALF, f"{ANOTHER} (ext4)"),
    ("another disk that looks the same: a backup", HERE, OTHER_DISK, ALL, f"{ANOTHER} (ext4)"),
    ("another disk, nothing known of the first", HERE, OTHER_DISK, Seen(), f"{ANOTHER} (ext4)"),
    ("below the mount point, where a rig goes on writing", HERE, BELOW, ALL, ANOTHER),
    ("another folder of the same disk", HERE, OTHER_FOLDER, NONE, "only 0 of 10 known sessions"),
    ("the folder was moved, with its sessions", HERE, OTHER_FOLDER, SAME_INODES, None),
    ("a copy of the folder in its place", HERE, OTHER_FOLDER, COPIES, "not copies"),
    ("moved to another kind of file system, inodes unknown", HERE, OTHER_KIND, ALL, None),
    ("another kind, with other data", HERE, OTHER_KIND, LESS, "only 4 of 10 known sessions"),
    ("a copy on another kind", HERE, OTHER_KIND, COPIES, "not copies"),
    ("a sandbox refuses the question", HERE, REFUSED, SAME_INODES, None),
    ("a sandbox refuses the question, another lab is there", HERE, REFUSED, NONE, "only 0 of 10"),
    ("a sandbox refuses the question, a backup is there", HERE, REFUSED, COPIES, "not copies"),
    ("lost state", None, HERE, ALL, None),
    ("lost state, half of the sessions", None, HERE, HALF, None),
    ("lost state, another disk", None, HERE, LESS, "only 4 of 10 known sessions that were looked for are there"),
    ("a pool mounted again, with other inodes", POOL, OTHER_POOL, COPIES, None),
    ("another pool", POOL, OTHER_POOL, NONE, f"{ANOTHER} (fuse.mergerfs) from c:d"),
    ("inodes that have stayed over a remount, and do not now", PROVEN, PROVEN, COPIES, "not copies"),
    ("inodes that nobody has seen stay", UNPROVEN, UNPROVEN, COPIES, None),
]


def judge(expected, found, seen, *, is_empty=False):
    return judge_place(expected, found, is_known=seen.n_known > 0, is_empty=is_empty, look=lambda: seen)


@pytest.mark.parametrize(
    ("expected", "found", "seen", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_verdict(expected, found, seen, reason):
    verdict = judge(expected, found, seen)
    assert verdict.is_online is (reason is None)
    assert (reason or "") in verdict.reason
    assert (verdict == ONLINE) is (reason is None)


# (story, what it was, what it is, whether sessions are known, why it is offline)
EMPTY = [
    ("always empty", HERE, HERE, False, None),
    ("never seen", None, HERE, False, None),
    ("suddenly empty", HERE, HERE, True, "suddenly empty"),
    ("only the tables know that it was not", None, HERE, True, "suddenly empty"),
    ("the mount point below the disk", HERE, BELOW, True, "suddenly empty"),
    ("the mount point below the disk, which has the tables, too", HERE, BELOW, False, f"{ANOTHER} (ext4) and is empty"),
    ("a pool that was and is empty", POOL, OTHER_POOL, False, None),
    ("where a pool was mounted", POOL, HERE, False, "and is empty"),
]


@pytest.mark.parametrize(
    ("expected", "found", "is_known", "reason"), [case[1:] for case in EMPTY], ids=[case[0] for case in EMPTY]
)
def test_an_empty_root(expected, found, is_known, reason):
    verdict = judge(expected, found, Seen(3 if is_known else 0), is_empty=True)
    assert verdict.is_online is (reason is None)
    assert (reason or "") in verdict.reason


@pytest.mark.parametrize(
    ("other", "relation"),
    [
        (HERE, Relation.SAME),
        (MOUNTED_AGAIN, Relation.SAME),
        (OTHER_DISK, Relation.DIFFERENT),
        (OTHER_FOLDER, Relation.UNKNOWN),
        (OTHER_KIND, Relation.UNKNOWN),
        (REFUSED, Relation.UNKNOWN),
        (POOL, Relation.UNKNOWN),
    ],
)
def test_only_equal_kinds_of_identity_are_compared(other, relation):
    assert relate(HERE, other) is relation
    assert relate(other, HERE) is relation
    assert relate(None, other) is Relation.UNKNOWN


def test_data_are_looked_for_only_where_identities_do_not_tell():
    def fail():
        raise AssertionError("looked")

    for found in (HERE, MOUNTED_AGAIN, OTHER_DISK):
        judge_place(HERE, found, is_known=True, is_empty=False, look=fail)


STABLE = {"ext4": True, "xfs": True, "btrfs": True, "overlay": False, "fuseblk": False, "fuse.sshfs": False}
NEVER = ["fuse.mergerfs", "fuse", "vfat", "exfat", "ntfs3", "nfs4", "cifs", "smb3", "9p"]


def test_whose_inode_numbers_mean_something_after_a_remount():
    assert {kind: replace(UNPROVEN, fs_type=kind).has_stable_inodes for kind in STABLE} == STABLE
    assert PROVEN.has_stable_inodes
    assert not any(replace(PROVEN, fs_type=kind).has_stable_inodes for kind in NEVER)


def test_a_mount_is_the_same_only_where_the_kernel_says_so():
    first = replace(POOL, unique_id=5)
    assert first.is_same_mount(replace(first, source="renamed"))
    assert not first.is_same_mount(replace(first, unique_id=6))
    assert not POOL.is_same_mount(POOL)  # numbers are given again


@pytest.mark.parametrize(
    ("fs_type", "forgets", "keeps"),
    [
        ("ext4", False, False),
        ("nfs4", False, False),
        ("overlay", False, False),
        ("virtiofs", False, False),
        ("fuse.mergerfs", True, True),
        ("fuse.sshfs", True, False),
        ("fuse.bindfs", True, False),  # an option makes it tell modification times
        ("vfat", True, False),
        ("exfat", True, False),
    ],
)
def test_which_file_systems_forget_inode_numbers_and_still_have_change_times(fs_type, forgets, keeps):
    assert (forgets_inodes(fs_type), keeps_change_time(fs_type)) == (forgets, keeps)


@pytest.mark.parametrize(
    ("unique", "mount_id", "expected"),
    [((5, 5), 31, True), ((5, 6), 31, False), ((0, 0), 31, True), ((0, 0), 32, False), ((5, 0), 31, True)],
)
def test_a_mount_is_known_again_by_its_number(unique, mount_id, expected):
    """Before Linux 6.8, a number may be given again; more is not known there."""
    before, after = replace(HERE, unique_id=unique[0]), replace(HERE, unique_id=unique[1], mount_id=mount_id)
    assert before.may_be_same_mount(after) is expected
