"""Folders that are not watched: `status` says `polled`, and `sync` is right nevertheless.

If one of these fails, changes in such folders are missed, or `status` says `live` where it should not.
"""

import os
import shutil

import pytest

from alfwatchd.errors import WatchLimit
from kit.engine import EngineBox
from kit.engine_tree import (
    EXACT,
    S1,
    SCANNED,
    T1,
    events_are_lost,
    sizes,
    write,
)

pytestmark = pytest.mark.usefixtures("no_readers")


def refuse_below(box, *names):
    """Let the kernel refuse to watch what lies below these folders."""

    def refuse(fd):
        path = os.readlink(f"/proc/self/fd/{fd}")
        if any(f"/{name}/" in f"{path}/" for name in names):
            return WatchLimit("the limit of inotify watches is reached; raise it")
        return None

    box.refuse = refuse


def test_folders_beyond_the_watch_limit_are_polled_and_sync_is_still_right(tmp_path):
    write(tmp_path / "root", f"{S1}/alf/a.b.c", f"{T1}/alf/a.b.c")
    box = EngineBox(tmp_path / "root", poll_interval_seconds=60, reconcile_interval_seconds=10_000)
    try:
        refuse_below(box, "t")
        assert box.sync().exactness == EXACT
        status = box.status()
        assert (status.state, status.unwatched, status.watches) == ("polled", 4, 5)
        assert "raise it" in status.detail
        assert [problem.kind for problem in status.problems] == ["not_watched"]
        write(box.root, f"{S1}/alf/d.e.f", f"{T1}/alf/d.e.f", f"{T1}/raw/new/d.e.f")
        box.live(1.0)
        assert set(sizes(box)) == {f"{S1}/alf/a.b.c", f"{T1}/alf/a.b.c", f"{S1}/alf/d.e.f"}
        assert box.sync().exactness == EXACT
        box.assert_equal()
        write(box.root, f"{T1}/alf/g.h.i")
        box.live(65.0)
        assert f"{T1}/alf/g.h.i" in sizes(box)
        box.refuse = lambda _: None  # a person raised the limit
        box.live(65.0)
        status = box.status()
        assert (status.state, status.unwatched, status.problems) == ("live", 0, [])
        write(box.root, f"{T1}/alf/j.k.l")
        box.live(1.0)
        assert f"{T1}/alf/j.k.l" in sizes(box)
        box.assert_equal()
    finally:
        box.close()


@pytest.mark.parametrize("path", ["t/2020-01-02/001/", f"{T1}/a.b.c"], ids=["empty", "with a dataset"])
def test_folders_that_are_gone_no_longer_count_as_unwatched(make_box, path):
    box = make_box(f"{S1}/a.b.c")
    refuse_below(box, "t")
    write(box.root, path)
    box.sync()
    assert box.status().state == "polled"
    shutil.rmtree(box.root / "t")
    box.sync()
    status = box.status()
    assert (status.state, status.unwatched, status.problems) == ("live", 0, [])
    box.assert_equal()


def test_without_any_watcher_everything_is_polled_until_there_is_one(tmp_path):
    write(tmp_path / "root", f"{S1}/a.b.c")
    box = EngineBox(tmp_path / "root", poll_interval_seconds=60)
    try:
        box.no_watcher = WatchLimit("no inotify instance")
        assert box.sync().exactness == SCANNED
        status = box.status()
        assert (status.state, status.detail, status.watches_limit) == ("polled", "no inotify instance", None)
        write(box.root, f"{S1}/d.e.f")
        box.live(25.0)
        assert f"{S1}/d.e.f" not in sizes(box)
        assert box.sync().exactness == SCANNED
        assert f"{S1}/d.e.f" in sizes(box)
        write(box.root, f"{S1}/g.h.i")
        box.live(70.0)
        assert f"{S1}/g.h.i" in sizes(box)
        box.no_watcher = None
        box.live(65.0)
        assert box.status().state == "live"
        write(box.root, f"{S1}/j.k.l")
        assert box.sync().exactness == EXACT
        box.assert_equal()
    finally:
        box.close()


def test_a_file_system_that_other_hosts_may_write_to_is_polled_though_it_is_watched(tmp_path):
    write(tmp_path / "root", f"{S1}/a.b.c")
    box = EngineBox(tmp_path / "root", watchable=frozenset(), poll_interval_seconds=60)  # as on a network mount
    try:
        assert box.sync().exactness == SCANNED
        status = box.status()
        assert status.state == "polled"
        assert "cannot all be seen" in status.detail
        write(box.root, f"{S1}/d.e.f")
        box.live(1.0)
        assert f"{S1}/d.e.f" in sizes(box)  # this host's own events are good enough to look sooner
        box.drop = events_are_lost
        write(box.root, f"{S1}/g.h.i")
        assert box.sync().exactness == SCANNED
        box.assert_equal()
        write(box.root, f"{S1}/j.k.l")
        box.live(61.0)
        assert f"{S1}/j.k.l" in sizes(box)
    finally:
        box.close()


def test_polling_by_setting(make_box):
    box = make_box(f"{S1}/a.b.c", watch="poll", poll_interval_seconds=60)
    status = box.status()
    assert (status.state, status.watches, status.watches_limit, box.watchers) == ("polled", 0, None, [])
    assert "60 s" in status.detail
    write(box.root, f"{S1}/d.e.f")
    box.live(30.0)
    assert f"{S1}/d.e.f" not in sizes(box)
    box.live(35.0)
    assert f"{S1}/d.e.f" in sizes(box)
    write(box.root, f"{T1}/alf/a.b.c")
    assert box.sync().exactness == SCANNED
    box.assert_equal()


def test_a_scan_that_takes_longer_than_the_interval_is_told(make_box):
    """Else an administrator believes that changes are seen every minute, while a scan takes an hour."""
    paths = [f"{S1}/folder{number}/a.b.c" for number in range(40)]
    box = make_box(
        *paths, one_look_per_step=True, watch="poll", poll_interval_seconds=60, reconcile_entries_per_second=1
    )
    status = box.status()
    assert (status.state, status.polled_late) == ("polled", False)
    assert status.detail.startswith("polling is set")
    box.live(130.0)  # it began after 60 s
    status = box.status()
    assert [scan.seconds for scan in status.rescans if scan.reason == "reconcile"] == [None]
    assert status.polled_late
    assert status.detail.startswith("polled late: a scan takes ")
    assert "every 60 s" in status.detail
    box.live(200.0)
    assert box.status().polled_late  # by the scan that ended
    assert box.sync().exactness == SCANNED  # at full speed
    assert not box.status().polled_late
