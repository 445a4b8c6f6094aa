"""A recorded digest is used for the very content that it was made of, and for no other."""

import pytest

from alfwatchd.tree.content import COARSEST_CLOCK_NS, forgotten, inode_key, is_final, is_settled, record_key
from alfwatchd.tree.packed import pack_signature

EXT4, XFS, NFS, FUSE, FAT, OVERLAY = 0xEF53, 0x58465342, 0x6969, 0x65735546, 0x4D44, 0x794C7630
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
    ("file_system", "ctime", "is_recorded"),
    [
        (EXT4, NOW - SECOND, True),
        (FUSE, NOW, True),
        (FUSE, NOW - SECOND, False),
        (FAT, NOW - SECOND, False),
        (FUSE, 0, False),
    ],
)
def test_nothing_is_recorded_where_the_change_time_is_the_modification_time(file_system, ctime, is_recorded):
    """sshfs and FAT have no change time: a file that is rewritten, and its time restored, looks as before."""
    assert (record_key(file_system, "a/b", sign(ctime=ctime)) is not None) is is_recorded


def test_paths_need_not_be_utf8():
    assert record_key(FUSE, "a/\udcff", sign()) != record_key(FUSE, "a/\udcfe", sign())


def test_what_is_forgotten_is_what_was_recorded():
    key, stamp = forgotten(sign(inode=99, is_link=True))
    assert key == inode_key(sign(inode=99)) == record_key(EXT4, "a/b", sign(inode=99))
    assert record_key(FUSE, "a/b", sign()).stamp == stamp


@pytest.mark.parametrize(
    ("read", "expected"),
    [(NOW, False), (NOW + COARSEST_CLOCK_NS - 1, False), (NOW + COARSEST_CLOCK_NS, True), (NOW - SECOND, False)],
)
def test_a_digest_is_final_once_the_clock_of_any_file_system_has_gone_on(read, expected):
    """git's racy rule: what changes again within one tick looks as it did when it was read."""
    assert is_final(sign(), read) is expected


@pytest.mark.parametrize(
    ("now", "expected"), [(NOW, False), (NOW + 2 * SECOND, True), (NOW - SECOND, False), (NOW - 3600 * SECOND, True)]
)
def test_a_file_settles_by_its_change_time(now, expected):
    """One that tar, rsync or cp -p restores has an old modification time while it is still being written."""
    assert is_settled(sign(mtime=NOW - 1000 * SECOND), now, 2 * SECOND) is expected
