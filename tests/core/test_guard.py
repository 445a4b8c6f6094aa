import errno
import os

import pytest

from alfwatchd.core.guard import ONLINE, Place, judge_place

HERE = Place(fsid=11, dev=21, ino=2, mount_id=31, fs_type="ext4")
GONE = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
DENIED = PermissionError(errno.EACCES, os.strerror(errno.EACCES))

MOUNTED_AGAIN = Place(11, 99, 2, 99, "ext4")  # other device and mount numbers: a USB disk on another port
OTHER_DISK = Place(12, 21, 2, 31, "ext4")  # equal device and inode: three tmpfs one after the other had them
OTHER_FOLDER = Place(11, 21, 3, 31, "ext4")
OTHER_TYPE = Place(11, 21, 2, 31, "overlay")
BELOW = Place(12, 22, 131073, 40, "ext4")  # the mount point itself, on the disk of the system

# (story, what it was, what it is, top folders that hold rows, top folders that are there, why it is offline)
CASES = [
    ("never seen before", None, HERE, "", "", None),
    ("never seen before, with folders", None, HERE, "", "abc", None),
    ("the same", HERE, HERE, "ab", "ab", None),
    ("the same, more folders", HERE, HERE, "ab", "abcd", None),
    ("the same, nearly all folders gone: their deletion is believed", HERE, HERE, "abcd", "a", None),
    ("the same, all folders replaced", HERE, HERE, "abcd", "xy", None),
    ("the same and always empty", HERE, HERE, "", "", None),
    ("missing", HERE, GONE, "ab", "", "cannot be read (No such file or directory)"),
    ("missing from the start", None, GONE, "", "", "cannot be read (No such file or directory)"),
    ("not readable", HERE, DENIED, "ab", "", "cannot be read (Permission denied)"),
    ("suddenly empty", HERE, HERE, "ab", "", "suddenly empty"),
    ("the mount point below the disk", HERE, OTHER_DISK, "ab", "", "suddenly empty"),
    ("empty, and only the tables know that it was not", None, HERE, "a", "", "suddenly empty"),
    ("mounted again", HERE, MOUNTED_AGAIN, "ab", "xy", None),
    ("another disk with other folders", HERE, OTHER_DISK, "ab", "xy", "another file system than before (ext4)"),
    ("another folder", HERE, OTHER_FOLDER, "ab", "xy", "another file system than before (ext4)"),
    ("another type of file system", HERE, OTHER_TYPE, "ab", "xy", "another file system than before (overlay)"),
    ("another disk where no rows are known", HERE, OTHER_DISK, "", "xy", None),
    ("the mount point below the disk, which has the tables, too", HERE, OTHER_DISK, "", "", "(ext4) and is empty"),
    ("below the mount point, where a rig goes on writing", HERE, BELOW, "a", "a", "another file system than before"),
    ("a copy of the folder in its place", HERE, OTHER_FOLDER, "ab", "ab", None),
    ("a restored backup", HERE, OTHER_DISK, "abcd", "abcd", None),
    ("a restored backup, half of the folders", HERE, OTHER_DISK, "abcd", "ab", None),
    ("less than half of the folders", HERE, OTHER_DISK, "abcd", "axyz", "another file system than before"),
    ("less than half of an odd number", HERE, OTHER_DISK, "abc", "a", "another file system than before"),
    ("more than half of an odd number", HERE, OTHER_DISK, "abc", "abx", None),
]


@pytest.mark.parametrize(
    ("expected", "found", "known", "names", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_verdict(expected, found, known, names, reason):
    verdict = judge_place(expected, found, set(known), set(names))
    assert verdict.is_online is (reason is None)
    assert (reason or "") in verdict.reason
    assert (verdict == ONLINE) is (reason is None)


@pytest.mark.parametrize(
    ("other", "same"),
    [(HERE, True), (MOUNTED_AGAIN, True), (OTHER_DISK, False), (OTHER_FOLDER, False), (OTHER_TYPE, False)],
)
def test_device_and_mount_numbers_are_no_identity(other, same):
    assert HERE.is_same_data(other) is same
    assert other.is_same_data(HERE) is same
