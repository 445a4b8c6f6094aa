"""A recording that grows is read less and less often: else a disk would be busy with one file as long as it grows."""

import time

from alfwatchd.scan.back_off import BackOff
from alfwatchd.scan.file_digest import HashJob
from alfwatchd.tree.packed import pack_signature

SETTLE = 2_000_000_000
MB, SECOND = 1_000_000, 1_000_000_000


def job(n_bytes, ctime_ns=None):
    ctime_ns = time.time_ns() if ctime_ns is None else ctime_ns
    return HashJob.of("s/alf", "a.b.bin", pack_signature(n_bytes, ctime_ns, 7, False, ctime_ns), 0)


def grow(back_off, n_bytes, times):
    """Return the waits, in seconds, of a file that changes after each time that it was read."""
    waits = []
    for number in range(times):
        one = job(n_bytes + number)
        waits.append(back_off.wait_ns(one) / SECOND)
        back_off.note_read(one)
    return waits


def test_each_reading_that_was_overtaken_doubles_the_wait():
    assert grow(BackOff(SETTLE), 100_000 * MB, 6) == [2, 4, 8, 16, 32, 64]


def test_the_longest_wait_follows_from_the_size():
    """A recording of 100 GB has its hash an hour and a half after its end at the latest, a small file soon."""
    assert 4000 < grow(BackOff(SETTLE), 100_000 * MB, 20)[-1] < 6000
    assert 20 < grow(BackOff(SETTLE), 600 * MB, 20)[-1] < 40
    assert set(grow(BackOff(SETTLE), MB, 20)) == {2}


def test_a_file_that_waits_is_not_put_off_by_each_change():
    """Only a reading was overtaken, not a wait: else a file that grows each second would never be read."""
    back_off = BackOff(SETTLE)
    back_off.note_read(job(600 * MB))
    assert {back_off.wait_ns(job(600 * MB + number)) for number in range(9)} == {2 * SETTLE}


def test_the_same_state_of_a_file_that_is_tried_again_waits_as_before():
    back_off, first = BackOff(SETTLE), job(600 * MB)
    back_off.note_read(first)
    assert back_off.wait_ns(first) == SETTLE


def test_a_file_that_was_left_alone_for_long_begins_again():
    back_off = BackOff(SETTLE)
    grow(back_off, 600 * MB, 5)
    assert back_off.wait_ns(job(600 * MB, time.time_ns() + 3600 * SECOND)) == SETTLE


def test_other_files_and_runs_without_waits_are_not_put_off():
    back_off = BackOff(SETTLE)
    grow(back_off, 600 * MB, 5)
    other = HashJob.of("s/alf", "other.b.bin", job(600 * MB).signature, 0)
    assert back_off.wait_ns(other) == SETTLE
    assert set(grow(BackOff(0), 600 * MB, 5)) == {0}
