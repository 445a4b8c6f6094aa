"""How often a user may sync. If one of these fails, a user keeps the disk busy with scans, or the memory grows."""

from alfwatchd.web.sync_limit import SyncLimit


def test_once_in_ten_seconds():
    limit = SyncLimit(10)
    assert limit.take(1, 100.0) == 0
    assert (limit.take(1, 100.0), limit.take(1, 104.0), limit.take(1, 109.5)) == (10, 6, 0.5)
    assert limit.take(1, 110.0) == 0
    assert limit.take(1, 110.0) == 10


def test_each_user_counts_alone():
    limit = SyncLimit(10)
    assert [limit.take(uid, 100.0) for uid in (1, 2, 3)] == [0, 0, 0]
    assert [limit.take(uid, 101.0) for uid in (1, 4)] == [9, 0]


def test_of_too_many_users_some_wait():
    limit = SyncLimit(10, most_users=2)
    assert [limit.take(uid, uid) for uid in (1, 2)] == [0, 0]
    assert limit.take(3, 4) == 7  # until the first is forgotten
    assert limit.take(3, 11) == 0
    assert limit.take(2, 11) == 1
