"""A recorded digest is used for the very content that it was made of, and for no other."""

import pytest

from alfwatchd.tree.content import (
    Recorded,
    clock_step,
    forgotten,
    inode_key,
    is_same_file,
    is_settled,
    may_recur,
    record_key,
)
from alfwatchd.tree.packed import pack_signature

EXT4, XFS, NFS, FUSE, FAT, OVERLAY = 0xEF53, 0x58465342, 0x6969, 0x65735546, 0x4D44, 0x794C7630
EXFAT = 0x2011BAB0
NOW = 1_700_000_000_000_000_000
SECOND = 10**9


def sign(size=7, mtime=NOW - SECOND, inode=3, ctime=NOW, *, is_link=False):
    return pack_signature(size, mtime, inode, is_link, ctime)


OTHER_FILES = {
    "size": sign(size=8),
    "mtime": sign(mtime=NOW - 2 * SECOND),
    "change time": sign(ctime=NOW + 1),
}


@pytest.mark.parametrize("file_system", [EXT4, XFS, NFS, FUSE, OVERLAY])
@pytest.mark.parametrize("other", OTHER_FILES.values(), ids=OTHER_FILES)
def test_another_content_has_another_key(file_system, other):
    assert record_key(file_system, "a/b", sign()) != record_key(file_system, "a/b", other)


@pytest.mark.parametrize(
    ("file_system", "by_path", "by_inode"), [(EXT4, False, True), (NFS, False, True), (FUSE, True, False)]
)
def test_a_file_is_known_by_its_inode_where_that_lasts_and_else_by_its_path(file_system, by_path, by_inode):
    """FUSE and FAT give other inode numbers after each mount, and may give one file that of another."""
    key = record_key(file_system, "a/b", sign())
    assert (key != record_key(file_system, "a/c", sign())) is by_path
    assert (key != record_key(file_system, "a/b", sign(inode=4))) is by_inode
    assert key == record_key(file_system, "a/b", sign(is_link=True))


@pytest.mark.parametrize(
    ("file_system", "ctime", "is_proof"),
    [
        (EXT4, NOW - SECOND, True),
        (FUSE, NOW, True),
        (FUSE, NOW - SECOND, False),
        (FAT, NOW - SECOND, False),
        (FAT, NOW, False),  # the kernel forgets it at the next mount, or another system has set it
        (EXFAT, NOW, False),
        (FUSE, 0, False),
    ],
)
def test_nothing_is_proved_where_the_change_time_is_the_modification_time(file_system, ctime, is_proof):
    """sshfs and FAT have no change time: a file that is rewritten, and its time restored, looks as before."""
    key = record_key(file_system, "a/b", sign(ctime=ctime))
    recorded = Recorded(key.stamp, 5, bytes(16))
    assert key.is_proof is recorded.is_of(key) is is_proof
    # With its time of birth, it is the same file all the same: it keeps its digest until it is read again.
    assert recorded.is_renewed_by(key, 5) is not is_proof
    assert not recorded.is_renewed_by(key, 6)
    assert not Recorded(key.stamp, 0, bytes(16)).is_renewed_by(key, 0)


def test_paths_need_not_be_utf8():
    assert record_key(FUSE, "a/\udcff", sign()) != record_key(FUSE, "a/\udcfe", sign())


def test_what_is_forgotten_is_what_was_recorded():
    place, stamp = forgotten(sign(inode=99, is_link=True))
    assert place == inode_key(sign(inode=99)).place == record_key(EXT4, "a/b", sign(inode=99)).place
    assert record_key(FUSE, "a/b", sign()).stamp == stamp


@pytest.mark.parametrize(
    ("file_system", "ctime", "at_least", "at_most"),
    [
        (EXT4, NOW + 1, 10, 50),
        (XFS, NOW + 1, 10, 50),
        (OVERLAY, NOW + 1, 10, 50),
        (EXT4, NOW, 1010, 1100),  # ext3, and ext4 with small inodes, count seconds
        (FAT, NOW, 2010, 2100),
        (NFS, NOW + 1, 2000, 2100),  # the clock is the server's
        (FUSE, NOW + 1, 2000, 2100),
        (None, NOW + 1, 10, 50),
        (None, NOW, 1010, 1100),
    ],
)
def test_how_long_a_change_may_hide_behind_the_one_before(file_system, ctime, at_least, at_most):
    """git's racy rule: what changes again within one step of the clock looks as it did when it was read."""
    assert at_least <= clock_step(sign(ctime=ctime), file_system) / 1e6 <= at_most


@pytest.mark.parametrize(
    ("other", "born", "is_renewed"),
    [
        (sign(ctime=NOW + 1), 5, True),
        (sign(ctime=NOW + 1), 6, False),  # the inode number was given again
        (sign(ctime=NOW + 1), 0, False),  # nobody knows
        (sign(ctime=NOW + 1, size=8), 5, False),
        (sign(ctime=NOW + 1, mtime=NOW), 5, False),
        (sign(), 5, False),
    ],
)
def test_a_file_is_certainly_the_same_with_its_time_of_birth(other, born, is_renewed):
    recorded = Recorded(inode_key(sign()).stamp, 5, bytes(16))
    assert recorded.is_renewed_by(inode_key(other), born) is is_renewed
    assert recorded.is_of(inode_key(other)) is (other == sign())
    assert not Recorded(recorded.stamp, 0, bytes(16)).is_renewed_by(inode_key(other), 0)


@pytest.mark.parametrize(
    ("now", "expected"), [(NOW, False), (NOW + 2 * SECOND, True), (NOW - SECOND, False), (NOW - 3600 * SECOND, True)]
)
def test_a_file_settles_by_its_change_time(now, expected):
    """One that tar, rsync or cp -p restores has an old modification time while it is still being written."""
    assert is_settled(sign(mtime=NOW - 1000 * SECOND), now, 2 * SECOND) is expected


@pytest.mark.parametrize(
    ("file_system", "other", "expected"),
    [
        (EXT4, sign(), True),
        (EXT4, sign(inode=4), False),
        (FUSE, sign(inode=4), True),  # the kernel has forgotten the number
        (FAT, sign(inode=4), True),
        (FUSE, sign(inode=4, mtime=NOW), False),
    ],
)
def test_another_inode_number_is_another_file_only_where_numbers_last(file_system, other, expected):
    assert is_same_file(other, sign(), lambda: file_system) is expected


@pytest.mark.parametrize(
    ("ctime", "step", "expected"),
    [
        (NOW + SECOND, SECOND, True),  # ext3, and the clock was set back
        (NOW + SECOND + 1, SECOND // 50, False),
        (NOW - SECOND, SECOND, False),
    ],
)
def test_a_clock_of_seconds_that_was_set_back_reaches_the_same_second_again(ctime, step, expected):
    assert may_recur(sign(ctime=ctime), NOW, step) is expected
