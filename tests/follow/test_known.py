"""No session counts as quiet while the daemon cannot know whether it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from alfwatchd.api import RescanNote, Status
from alfwatchd.follow.known import UNKNOWN, known_until
from kit.follow import stamp

NOW = 1_000_000.0
LIVE = Status(
    state="live", since="", detail="", root="/data", out_dir="/data", pid=1, version="0", generation=1, n_sessions=1,
    n_datasets=1, n_bytes=1, n_ignored=0, saved=True, last_flush=None, last_flush_seconds=None, last_flush_error=None,
    oldest_unflushed_seconds=None, events_lost=0,
)  # fmt: skip


@pytest.mark.parametrize("state", ["starting", "catching up", "offline"])
def test_nothing_is_known_before_the_disk_was_looked_at(state):
    assert known_until(replace(LIVE, state=state), NOW) == UNKNOWN


@pytest.mark.parametrize("state", ["live", "held"])
def test_a_change_that_is_not_on_disk_yet_counts(state):
    status = replace(LIVE, state=state)
    assert known_until(status, NOW) == NOW
    assert known_until(replace(status, oldest_unflushed_seconds=4.0), NOW) == NOW - 4


def test_where_folders_are_scanned_now_and_then_the_last_scan_that_ended_counts():
    polled = replace(LIVE, state="polled")
    assert known_until(polled, NOW) == UNKNOWN
    scans = [RescanNote("start", stamp(NOW - 90), 3.0), RescanNote("poll", stamp(NOW - 30), 3.0),
             RescanNote("poll", stamp(NOW - 1), None)]  # fmt: skip
    assert known_until(replace(polled, rescans=scans), NOW) == NOW - 30
    assert known_until(replace(polled, rescans=scans, oldest_unflushed_seconds=50.0), NOW) == NOW - 50
