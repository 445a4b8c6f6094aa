"""When scans begin and end, and how the engine finds out that events were lost.

If one of these fails, changes are missed after an overflow, or the daemon scans all the time.
"""

import os
from itertools import count
from pathlib import Path

import pytest

from alfwatchd.api import RescanRequest
from alfwatchd.engine import inbox
from alfwatchd.watch.events import EventsLost, PathsChanged
from kit.engine_tree import (
    EXACT,
    S1,
    S2,
    SCANNED,
    T1,
    events_are_lost,
    rescans,
    sizes,
    start_reconcile,
    write,
)

pytestmark = pytest.mark.usefixtures("no_readers")


def test_a_kernel_queue_that_overflows(make_box):
    box = make_box(f"{S1}/a.b.c", f"{S2}/a.b.c")
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 50_000:
        pytest.skip(f"the kernel keeps {limit} events")
    box.gate.clear()
    files = [box.root / S1 / "a.b.c", box.root / S2 / "a.b.c"]  # in turns: equal events are joined
    for number in range(2 * limit):  # a part may be read before the reader finds itself stuck
        os.utime(files[number % 2])
    write(box.root, f"{S1}/alf/d.e.f", f"{T1}/g.h.i")
    box.gate.set()
    assert box.sync().exactness in (EXACT, SCANNED)
    box.live(5.0)
    status = box.status()
    assert (status.state, status.events_lost) == ("live", 1)
    assert rescans(box)[1:] in ([note] for note in ["overflow of the kernel's event queue"])
    box.assert_equal()


def test_an_inbox_that_overflows(make_box, monkeypatch):
    box = make_box(f"{S1}/a.b.c")
    monkeypatch.setattr(inbox, "MAX_WAITING_BYTES", 100)
    for number in range(10):
        write(box.root, f"{S1}/d{number}.e.f")
        box.hear()
    monkeypatch.undo()
    box.sync()
    box.live(5.0)
    status = box.status()
    assert (status.events_lost, status.state) == (1, "live")
    assert rescans(box) == ["start", "the daemon could not keep up with events"]
    box.assert_equal()


def test_a_dead_reader_is_replaced_and_everything_is_scanned(make_box):
    box = make_box(f"{S1}/a.b.c")
    box.kill_reader()
    write(box.root, f"{S1}/d.e.f", f"{T1}/g.h.i")
    reply = box.sync()
    assert reply.exactness in (EXACT, SCANNED)
    status = box.status()
    assert (status.state, status.events_lost, len(box.watchers)) == ("live", 1, 2)
    assert "killed by a test" in rescans(box)[1]
    box.assert_equal()
    write(box.root, f"{S1}/j.k.l")
    assert box.sync().exactness == EXACT
    box.assert_equal()


def test_the_heartbeat_finds_a_chain_that_is_silent(make_box):
    box = make_box(f"{S1}/a.b.c")
    box.live(100.0)
    assert (len(box.watchers), rescans(box)) == (1, ["start"])
    box.drop = events_are_lost
    write(box.root, f"{S1}/d.e.f")
    box.live(31.0)
    status = box.status()
    assert len(box.watchers) >= 2
    assert status.events_lost >= 1
    assert "heartbeat" in rescans(box)[1]
    assert f"{S1}/d.e.f" in sizes(box)
    box.drop = lambda _: False
    box.live(61.0)
    n_watchers = len(box.watchers)
    write(box.root, f"{S1}/g.h.i")
    assert box.sync().exactness == EXACT
    box.assert_equal()
    box.live(100.0)
    assert len(box.watchers) == n_watchers
    assert box.status().state == "live"


def test_at_most_one_scan_follows_the_one_that_runs(make_box):
    box = make_box(f"{S1}/a.b.c", f"{T1}/a.b.c", one_look_per_step=True)
    replies = [box.ask(RescanRequest, path=path) for path in ("", "s", "", "t", "")]
    box.step()
    box.inbox.post(EventsLost("first"))
    box.inbox.post(EventsLost("second"))
    box.live(10.0)
    assert all(reply.done() for reply in replies)
    assert rescans(box) == ["start", "rescan", "rescan s", "second"]
    assert box.status().events_lost == 2


def test_after_a_scan_the_next_one_for_lost_events_waits_a_little(make_box):
    box = make_box(f"{S1}/a.b.c")
    box.inbox.post(EventsLost("first"))
    box.run()
    assert rescans(box) == ["start", "first"]
    box.inbox.post(EventsLost("second"))
    box.live(1.9)
    assert rescans(box) == ["start", "first"]
    assert box.status().state == "catching up"
    box.live(0.2)
    assert rescans(box) == ["start", "first", "second"]
    assert box.status().state == "live"


def test_clients_are_answered_between_the_folders_of_a_slow_disk(make_box):
    """On a disk of 50 ms per file, `status` waited for 128 folders: minutes."""
    box = make_box(*(f"{S1}/alf/p{number}/a.b.c" for number in range(20)))
    seconds = count(step=0.15)
    box.stopwatch = lambda: next(seconds)
    looks = []
    box.count_looks(looks)
    reply = box.ask(RescanRequest, path="")
    n_steps = 0
    while not reply.done():
        n_before = len(looks)
        assert box.status().state in ("catching up", "live")
        assert len(looks) - n_before <= 2
        n_steps += 1
    assert n_steps > 10
    box.stopwatch = lambda: 0.0
    assert box.sync().exactness == EXACT
    box.assert_equal()


def test_a_reader_of_events_that_ended_silently_is_replaced(make_box):
    box = make_box(f"{S1}/a.b.c")
    box.drop = lambda message: isinstance(message, EventsLost)
    box.kill_reader()
    box.drop = lambda _: False
    write(box.root, f"{S1}/d.e.f")
    box.live(1.0)
    assert "the reader of events ended" in rescans(box)
    assert f"{S1}/d.e.f" in sizes(box)
    box.assert_equal()


def test_the_watcher_is_kept_when_events_are_lost(make_box):
    """The cookie of the heartbeat is lost, too. But the reader that reports the loss is alive."""
    box = make_box(f"{S1}/a.b.c")
    box.drop = lambda message: isinstance(message, PathsChanged)
    box.live(16.0)  # a heartbeat goes out and does not come back
    box.drop = lambda _: False
    box.inbox.post(EventsLost("overflow of the kernel's event queue"))
    box.live(40.0)
    assert len(box.watchers) == 1
    assert box.status().state == "live"


def test_after_a_slow_scan_the_next_one_waits_longer(make_box):
    box = make_box(f"{S1}/a.b.c", one_look_per_step=True)
    box.inbox.post(EventsLost("first"))
    while box.indexer.scans_done < 2:
        box.step(2.0)
    seconds = box.status().rescans[-1].seconds
    assert seconds >= 6.0
    box.inbox.post(EventsLost("second"))
    box.live(2 * seconds - 0.5)
    assert rescans(box) == ["start", "first"]
    box.live(1.0)
    assert rescans(box) == ["start", "first", "second"]


def test_a_reconcile_takes_its_time_and_holds_up_no_events(make_box):
    settings = {"reconcile_interval_seconds": 1000, "reconcile_entries_per_second": 10}
    files = [f"s/2020-01-01/{session}/d{number}.e.f" for session in range(100, 110) for number in range(5)]
    box = make_box(*files, f"{T1}/a.b.c", **settings, one_look_per_step=True)
    start_reconcile(box)
    began = box.now
    assert box.status().state == "live"
    looked = []
    while box.indexer.queue.current is not None:
        write(box.root, f"{T1}/g.h.i", size=len(looked) + 2)
        box.live(0.5)
        looked.append(sizes(box)[f"{T1}/g.h.i"])
        assert len(looked) < 100
    # 66 entries in 16 folders, at 10 a second; the last look is not followed by a wait.
    assert 7.5 <= box.now - began <= 9.5
    assert looked == list(range(2, 2 + len(looked)))
    assert rescans(box) == ["start", "reconcile"]


def test_a_reconcile_finds_what_no_event_told(make_box):
    box = make_box(f"{S1}/a.b.c", reconcile_interval_seconds=1000)
    box.drop = events_are_lost
    write(box.root, f"{S1}/d.e.f")
    box.hear()
    box.drop = lambda _: False
    box.live(900.0)
    assert sizes(box) == {f"{S1}/a.b.c": 1}
    box.live(100.0)
    assert sizes(box) == {f"{S1}/a.b.c": 1, f"{S1}/d.e.f": 1}
