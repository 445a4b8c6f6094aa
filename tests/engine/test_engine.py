import os
import shutil
import tempfile
from itertools import count, pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from alfwatchd.api import FlushRequest, PrunedNotice, RescanRequest, SnapshotRequest, SyncRequest
from alfwatchd.engine import engine, inbox
from alfwatchd.engine.messages import Reload, Stop
from alfwatchd.errors import AlfwatchdError, ConfigError, RootOffline, TablesError, UsageError, WatchLimit
from alfwatchd.index import indexer
from alfwatchd.tree.folder import NOT_WATCHED
from alfwatchd.tree.hard_links import HardLinks
from alfwatchd.watch.events import EventsLost, PathsChanged
from kit.children import as_nobody, needs_root
from kit.engine import EngineBox
from kit.fuzz_disk import exchange

pytestmark = pytest.mark.usefixtures("no_readers")

S1, S2, T1 = "s/2020-01-01/001", "s/2020-01-01/002", "t/2020-01-01/001"
EXACT, SCANNED, PARTIAL = "exact", "scanned", "partial"


@pytest.fixture
def make_box(tmp_path):
    boxes = []

    def make(*paths, **settings):
        """Make an engine on a tree with these datasets, and let it live until it is idle."""
        write(tmp_path / "root", *paths)
        boxes.append(EngineBox(tmp_path / "root", **settings))
        boxes[-1].sync()
        boxes[-1].live(20.0)  # the flush interval and the rest after a scan are over
        return boxes[-1]

    yield make
    for box in boxes:
        box.close()


@pytest.fixture
def one_at_a_time(monkeypatch):
    """Let the engine look at one folder per step."""
    monkeypatch.setattr(indexer, "FOLDERS_PER_UNIT", 1)


def write(root, *paths, size=1):
    """Make datasets of this size, and folders, whose paths end in a slash."""
    root.mkdir(exist_ok=True)
    for path in paths:
        if path.endswith("/"):
            (root / path).mkdir(parents=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(b"x" * size)


def sizes(box):
    """Return path -> size of all datasets in memory."""
    sessions = {row["id"]: row for row in box.rows().sessions}
    found = {}
    for row in box.rows().datasets:
        session = sessions[row["eid"]]
        found[f"{session['subject']}/{session['date']}/{session['number']:03d}/{row['rel_path']}"] = row["file_size"]
    return found


def stored_paths(box):
    return {row["rel_path"] for row in box.stored()[1]}


def cookies_are_lost(message):
    return isinstance(message, PathsChanged) and any(name.startswith("c") for name in message.cookies)


def events_are_lost(message):
    return isinstance(message, PathsChanged | EventsLost)


def rescans(box):
    return [note.reason for note in box.status().rescans]


# Settling.


def test_a_file_that_keeps_changing_is_looked_at_when_it_settles(make_box):
    box = make_box(f"{S1}/a.b.c")
    for size in (2, 3, 4):
        write(box.root, f"{S1}/a.b.c", size=size)
        box.run(0.06)
        assert sizes(box) == {f"{S1}/a.b.c": 1}
    status = box.status()
    assert (status.state, status.saved, status.oldest_unflushed_seconds) == ("live", True, 0.12)
    box.run(0.05)
    assert sizes(box) == {f"{S1}/a.b.c": 1}
    box.run(0.06)
    assert sizes(box) == {f"{S1}/a.b.c": 4}


def test_a_file_that_never_settles_is_looked_at_after_the_longest_wait(make_box):
    box = make_box(f"{S1}/a.b.c", settle_seconds=0.1, longest_wait_seconds=1.02)
    seen = []
    for size in range(2, 26):
        write(box.root, f"{S1}/a.b.c", size=size)
        box.run(0.05)
        seen.append(sizes(box)[f"{S1}/a.b.c"])
    # The first event was taken at 0.05 s, so the look is due at 1.07 s and done at 1.10 s, after the 22nd write.
    assert seen == [1] * 21 + [23] * 3


def test_the_engine_sleeps_until_the_next_thing_is_due(make_box):
    box = make_box(f"{S1}/a.b.c")
    assert box.step() == 1.0
    write(box.root, f"{S1}/a.b.c", size=2)
    box.hear()
    assert box.step() == pytest.approx(0.1)
    assert box.step(0.1) <= 1.0
    assert sizes(box) == {f"{S1}/a.b.c": 2}


# Flushing.


def test_a_change_is_on_disk_within_the_flush_interval_and_no_sooner(make_box):
    box = make_box(f"{S1}/a.b.c", flush_interval_seconds=10)
    write(box.root, f"{S1}/d.e.f")
    box.live(0.2)
    assert stored_paths(box) == {"a.b.c", "d.e.f"}  # the interval since the last flush was over
    write(box.root, f"{S1}/g.h.i")
    box.live(9.0)
    status = box.status()
    assert stored_paths(box) == {"a.b.c", "d.e.f"}
    assert (status.state, status.saved, status.generation - status.flushed_generation) == ("live", True, 1)
    assert 8.5 < status.oldest_unflushed_seconds < 9.0
    n_flushes = box.n_flushes
    box.live(1.0)
    status = box.status()
    assert stored_paths(box) == {"a.b.c", "d.e.f", "g.h.i"}
    assert (status.generation, status.oldest_unflushed_seconds) == (status.flushed_generation, None)
    assert box.n_flushes == n_flushes + 1


def test_nothing_is_written_where_nothing_changed(make_box):
    box = make_box(f"{S1}/a.b.c")
    n_flushes, marks = box.n_flushes, [os.stat(box.out_dir / name) for name in os.listdir(box.out_dir)]
    box.sync()
    box.live(100.0)
    assert box.n_flushes == n_flushes
    assert [os.stat(box.out_dir / name) for name in os.listdir(box.out_dir)] == marks


def test_who_waits_gets_a_flush_at_once(make_box):
    box = make_box(f"{S1}/a.b.c", flush_interval_seconds=1000)
    for name in ("d.e.f", "g.h.i"):
        write(box.root, f"{S1}/{name}")
        reply = box.sync()
        assert (reply.exactness, name in stored_paths(box)) == (EXACT, True)
        assert reply.seconds < 0.1
    write(box.root, f"{S1}/j.k.l")
    box.live(0.2)
    assert "j.k.l" not in stored_paths(box)
    reply = box.answer(box.ask(FlushRequest))
    assert "j.k.l" in stored_paths(box)
    assert reply.generation == box.status().flushed_generation


def test_an_empty_root_has_tables_too(make_box):
    box = make_box()
    assert box.sync().exactness == EXACT
    assert box.stored() == ([], [])


def test_nobody_works_for_a_client_that_has_left(make_box):
    """One that asks every second and waits for no more than that would fill the engine during a long scan."""
    box = make_box(f"{S1}/a.b.c")
    write(box.root, f"{S1}/d.e.f")
    for reply in [box.ask(SyncRequest) for _ in range(100)]:
        reply.cancel()
    box.step()
    assert box.engine.barriers._waiting == []
    assert not box.engine.barriers.await_flush


def test_a_failed_flush_is_told_and_tried_again_and_nobody_is_told_it_is_saved(make_box):
    box = make_box(f"{S1}/a.b.c")
    before = box.n_flushes
    box.out_dir.rename(box.home / "away")
    write(box.root, f"{S1}/d.e.f")
    with pytest.raises(TablesError, match="the changes are kept in memory, the next attempt follows in"):
        box.sync()
    status = box.status()
    assert (status.saved, status.state) == (False, "live")
    assert str(box.out_dir) in status.last_flush_error
    assert status.generation > status.flushed_generation
    tries = []
    for _ in range(70):
        box.live(1.0)
        tries.append(box.n_flushes - before)
    seconds = [tries.index(number) for number in range(3, 8)]
    assert [later - earlier for earlier, later in pairwise(seconds)] == [4, 8, 16, 32]
    assert box.status().oldest_unflushed_seconds == pytest.approx(70.0, abs=2.0)
    (box.home / "away").rename(box.out_dir)
    box.live(60.0)
    status = box.status()
    assert (status.saved, status.last_flush_error, status.oldest_unflushed_seconds) == (True, None, None)
    box.assert_equal()


def test_who_waits_for_a_flush_that_fails_again_and_again_is_answered_soon_and_causes_few_attempts(make_box):
    """A `sync` on a full disk hung for as long as the disk was full."""
    box = make_box(f"{S1}/a.b.c")
    box.out_dir.rename(box.home / "away")
    write(box.root, f"{S1}/d.e.f")
    box.live(40.0)  # the next attempt is some 20 seconds away
    before, began = box.n_flushes, box.now
    waiting = [box.ask(SyncRequest) for _ in range(50)]
    box.live(0.2)
    for reply in waiting:
        assert isinstance(reply.exception(0), TablesError)
    assert box.n_flushes == before + 1
    again = box.ask(SyncRequest)
    box.live(0.5)
    assert (again.done(), box.n_flushes) == (False, before + 1)  # not more than one attempt per second
    (box.home / "away").rename(box.out_dir)
    assert box.answer(again).exactness == EXACT
    assert box.now < began + 4
    box.assert_equal()


def test_a_foreign_write_is_noticed_and_undone(make_box):
    box = make_box(f"{S1}/a.b.c")
    own = box.stored()
    table = pq.read_table(box.out_dir / "sessions.pqt")
    pq.write_table(table.slice(0, 0), box.out_dir / "sessions.pqt")
    assert box.stored() != own
    box.live(3.0)
    assert box.stored() == own
    (box.out_dir / "datasets.pqt").unlink()
    assert box.sync().exactness == EXACT
    assert box.stored() == own


# Sync.


def test_sync_takes_in_what_changed_just_before(make_box):
    box = make_box(f"{S1}/a.b.c")
    write(box.root, f"{S1}/d.e.f", f"{S2}/alf/probe00/g.h.i")
    reply = box.sync()
    assert reply.exactness == EXACT
    assert reply.seconds < 0.1  # it waits for no settle time
    assert sizes(box) == {f"{S1}/a.b.c": 1, f"{S1}/d.e.f": 1, f"{S2}/alf/probe00/g.h.i": 1}
    assert rescans(box) == ["start"]
    box.assert_equal()


def test_sync_right_at_the_start_waits_for_the_first_scan(tmp_path, one_at_a_time):
    write(tmp_path / "root", f"{S1}/alf/a.b.c", f"{S2}/a.b.c")
    box = EngineBox(tmp_path / "root")
    try:
        reply = box.ask(SyncRequest)
        for _ in range(2):
            box.hear()
            assert box.step() == 0.0
            assert not reply.done()
            assert box.status().state == "starting"
            assert os.listdir(box.out_dir) == []
        write(box.root, f"{T1}/alf/d.e.f")
        box.sync()
        assert reply.result(0).exactness == EXACT
        assert box.status().state == "live"
        box.assert_equal()
    finally:
        box.close()


def test_a_lost_cookie_is_replaced_by_a_scan(make_box):
    box = make_box(f"{S1}/a.b.c")
    box.drop = cookies_are_lost
    write(box.root, f"{S1}/d.e.f")
    reply = box.ask(SyncRequest)
    box.live(1.9)
    assert not reply.done()
    box.live(0.2)
    assert reply.result(0).exactness == SCANNED
    assert rescans(box) == ["start", "a sync cookie did not come back"]
    box.assert_equal()


def test_a_cookie_that_cannot_be_made_is_replaced_by_a_scan(make_box):
    box = make_box(f"{S1}/a.b.c")
    for number in range(100):  # folders, where cookies should be
        (box.state_dir / f"cookies/c{number}").mkdir()
    write(box.root, f"{S1}/d.e.f")
    assert box.sync().exactness == SCANNED
    assert rescans(box) == ["start", "sync"]
    box.assert_equal()


@pytest.mark.parametrize("is_first", [True, False], ids=["lost before the cookie", "lost with the cookie"])
def test_events_lost_while_somebody_waits(make_box, one_at_a_time, is_first):
    box = make_box(f"{S1}/a.b.c", f"{T1}/a.b.c")
    box.drop = events_are_lost
    write(box.root, f"{S1}/d.e.f")
    if is_first:
        box.hear()
        box.drop = lambda _: False
        box.inbox.post(EventsLost("overflow"))
    reply = box.ask(SyncRequest)
    box.step()
    box.hear()
    if not is_first:
        box.drop = lambda _: False
        box.inbox.post(EventsLost("overflow"))
    box.step()
    status = box.status()
    assert (status.state, status.events_lost) == ("catching up", 1)
    assert not reply.done()
    reply = box.answer(reply)
    assert (reply.exactness, reply.seconds < 0.5) == (EXACT, True)
    assert rescans(box) == ["start", "overflow"]
    box.assert_equal()
    assert box.status().state == "live"


def test_a_scan_that_began_before_the_loss_is_not_enough(make_box, one_at_a_time):
    box = make_box(*[f"s{number}/2020-01-01/001/a.b.c" for number in range(5)])
    box.ask(RescanRequest)
    for _ in range(6):  # the root, s0 with all below it, and s1
        box.step()
    box.drop = events_are_lost
    write(box.root, "s0/2020-01-01/001/d.e.f")
    reply = box.ask(SyncRequest)
    box.step()
    box.hear()
    box.drop = lambda _: False
    box.inbox.post(EventsLost("overflow"))
    assert box.answer(reply).exactness == EXACT
    assert rescans(box) == ["start", "rescan", "overflow"]
    box.assert_equal()


def test_sync_waits_for_the_scan_that_makes_up_for_lost_events(make_box, one_at_a_time):
    box = make_box(*[f"s{number}/2020-01-01/001/a.b.c" for number in range(5)])
    box.drop = events_are_lost
    write(box.root, *[f"s{number}/2020-01-01/001/d.e.f" for number in range(5)])
    box.hear()
    box.drop = lambda _: False
    box.inbox.post(EventsLost("overflow"))
    for _ in range(3):
        box.step()
    reply = box.ask(SyncRequest)
    box.step()
    box.hear()
    box.step()
    assert not reply.done()
    assert box.answer(reply).exactness == EXACT
    assert rescans(box) == ["start", "overflow"]
    box.assert_equal()


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
    monkeypatch.setattr(inbox, "_MAX_WAITING_BYTES", 100)
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


# Passes.


def test_at_most_one_scan_follows_the_one_that_runs(make_box, one_at_a_time):
    box = make_box(f"{S1}/a.b.c", f"{T1}/a.b.c")
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


def test_a_reader_that_ended_without_a_word_is_noticed(make_box):
    box = make_box(f"{S1}/a.b.c")
    box.drop = lambda message: isinstance(message, EventsLost)
    box.kill_reader()
    box.drop = lambda _: False
    write(box.root, f"{S1}/d.e.f")
    box.live(1.0)
    assert "the reader of events ended" in rescans(box)
    assert f"{S1}/d.e.f" in sizes(box)
    box.assert_equal()


def test_lost_events_are_no_reason_to_build_the_watcher_anew(make_box):
    """The cookie of the heartbeat is lost with the others; but who tells that it was lost, lives."""
    box = make_box(f"{S1}/a.b.c")
    box.drop = lambda message: isinstance(message, PathsChanged)
    box.live(16.0)  # a heartbeat goes out and does not come back
    box.drop = lambda _: False
    box.inbox.post(EventsLost("overflow of the kernel's event queue"))
    box.live(40.0)
    assert len(box.watchers) == 1
    assert box.status().state == "live"


def test_after_a_slow_scan_the_next_one_waits_longer(make_box, one_at_a_time):
    box = make_box(f"{S1}/a.b.c")
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


def start_reconcile(box, interval=1000.0):
    """Let time pass until a reconcile runs; it has looked at one unit of folders then."""
    box.live(interval - box.now + box.engine._last_scan_ended)
    assert box.indexer.queue.current is not None
    assert box.indexer.queue.current.reason == "reconcile"


def test_a_reconcile_takes_its_time_and_holds_up_no_events(make_box, one_at_a_time):
    settings = {"reconcile_interval_seconds": 1000, "reconcile_entries_per_second": 10}
    files = [f"s/2020-01-01/{session}/d{number}.e.f" for session in range(100, 110) for number in range(5)]
    box = make_box(*files, f"{T1}/a.b.c", **settings)
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


def test_sync_sees_new_folders_that_a_reconcile_found_first(make_box, one_at_a_time):
    # The reconcile has found a session and watches it, but not its collections yet: no event tells of those.
    box = make_box("s/2020-01-01/", reconcile_interval_seconds=1000, reconcile_entries_per_second=1000)
    start_reconcile(box)
    while box.indexer.queue._background[0].folder.path != "s/2020-01-01":
        box.step(0.003)
    box.ambushes["before opening"].append(lambda _: write(box.root, f"{S1}/alf/probe00/a.b.c"))
    while box.indexer.tree.find(S1) is None or box.indexer.tree.find(S1).wd == NOT_WATCHED:
        box.step(0.003)
    assert box.indexer.tree.find(f"{S1}/alf").wd == NOT_WATCHED
    assert box.sync().exactness == EXACT
    box.assert_equal()


def test_sync_does_not_wait_for_a_reconcile(make_box, one_at_a_time):
    box = make_box(f"{S1}/a.b.c", reconcile_interval_seconds=1000, reconcile_entries_per_second=1)
    start_reconcile(box)
    write(box.root, f"{S1}/d.e.f")
    reply = box.sync()
    assert (reply.exactness, reply.seconds < 0.5) == (EXACT, True)
    assert box.indexer.queue.current.reason == "reconcile"
    assert f"{S1}/d.e.f" in sizes(box)


def test_rescan_of_a_folder_tells_what_it_found(make_box):
    box = make_box(f"{S1}/a.b.c", f"{S1}/d.e.f", f"{S1}/g.h.i", f"{T1}/a.b.c")
    box.drop = events_are_lost
    write(box.root, f"{S1}/a.b.c", size=5)
    write(box.root, f"{S1}/j.k.l", f"{S1}/m.n.o")
    (box.root / S1 / "d.e.f").unlink()
    write(box.root, f"{T1}/j.k.l")
    box.hear()
    box.drop = lambda _: False
    reply = box.answer(box.ask(RescanRequest, path="s"))
    assert (reply.added, reply.changed, reply.removed) == (2, 1, 1)
    assert f"{T1}/j.k.l" not in sizes(box)
    with pytest.raises(UsageError, match="nowhere"):
        box.answer(box.ask(RescanRequest, path="nowhere"))
    box.answer(box.ask(RescanRequest))
    box.assert_equal()


def test_what_a_prune_deleted_is_looked_at_where_nothing_is_watched(make_box):
    box = make_box(f"{S1}/a.b.c", f"{S1}/d.e.f", watch="poll")
    (box.root / S1 / "a.b.c").unlink()
    box.inbox.post(PrunedNotice((S1, "gone/2020-01-01/001")))
    box.run()
    box.run(0.2)
    assert sizes(box) == {f"{S1}/d.e.f": 1}


# Looks that end elsewhere.


@pytest.mark.parametrize("n_looks", [1, 2, 3])
def test_a_folder_that_is_another_one_for_more_than_one_look(make_box, one_at_a_time, n_looks):
    # The parent is looked at while it is itself, the folder each time while it is another one.
    box = make_box(f"{S1}/alf/a.b.c")
    write(box.root, f"{T1}/alf/a.b.c", size=2)
    box.sync()
    swapped = []

    def swap(path):
        if (path == f"{S1}/alf") != bool(swapped):
            exchange(box.root / "s", box.root / "t")
            swapped[:] = [] if swapped else [path]

    write(box.root, f"{S1}/alf/g.h.i")
    box.hear()
    box.step()
    box.now += 0.2
    for _ in range(2 * n_looks):
        box.ambushes["before opening"].append(swap)
        box.step()
    box.call_off_ambushes()
    swap(f"{S1}/alf" if not swapped else "")
    if swapped:
        swap("")
    box.sync()
    box.assert_equal()


@needs_root
def test_a_folder_that_is_another_one_below_one_that_cannot_be_listed():
    def run():
        home = Path(tempfile.mkdtemp())
        write(home / "root", f"{S1}/alf/a.b.c")
        write(home / "other", "d.e.f")
        box = EngineBox(home / "root")
        box.sync()
        session = box.root / S1
        box.drop = events_are_lost
        (session / "alf").rename(home / "away")
        (home / "other").rename(session / "alf")
        box.hear()
        box.drop = lambda _: False
        session.chmod(0o111)
        box.answer(box.ask(RescanRequest, path=f"{S1}/alf"))
        found = [sizes(box), box.sync().exactness, [problem.path for problem in box.status().problems]]
        session.chmod(0o755)
        found += [box.sync().exactness, sizes(box)]
        box.assert_equal()
        box.close()
        shutil.rmtree(home)
        return found

    kept, partial, problems, exact, after = as_nobody(run)
    assert (kept, partial, problems) == ({f"{S1}/alf/a.b.c": 1}, PARTIAL, [S1, f"{S1}/alf"])
    assert (exact, after) == (EXACT, {f"{S1}/alf/d.e.f": 1})


@pytest.mark.parametrize("level", ["s", "s/2020-01-01", S1, f"{S1}/alf"])
@pytest.mark.parametrize("moment", ["before a new watch", "before listing", "after listing", "after applying"])
def test_a_folder_that_is_another_one_for_the_moment_of_a_look(make_box, level, moment):
    # Paths lead through folders that somebody renames, and back. Without events there would be no second chance.
    other = level.replace("s", "t", 1)
    box = make_box(f"{S1}/alf/a.b.c", f"{S1}/alf/probe00/d.e.f")
    write(box.root, f"{T1}/alf/a.b.c", f"{T1}/alf/probe00/d.e.f", size=2)
    box.sync()

    def swap(_):
        exchange(box.root / level, box.root / other)

    write(box.root, f"{S1}/alf/g.h.i")
    box.hear()
    box.step()
    box.ambushes["before opening"].append(swap)
    box.ambushes[moment].append(swap)
    box.step(0.2)
    if box.ambushes[moment]:
        box.spring(moment, "")
    box.sync()
    box.assert_equal()


def test_a_root_that_is_another_one_for_the_moment_of_a_look_loses_nothing(make_box):
    box = make_box(f"{S1}/a.b.c", f"{T1}/a.b.c")
    other = box.root.parent / "other"
    write(other, f"{S1}/d.e.f")

    def swap(_):
        exchange(box.root, other)

    write(box.root, f"{S1}/g.h.i")
    box.hear()
    box.step()
    box.ambushes["before opening"].append(swap)
    box.ambushes["before listing"].append(swap)
    box.step(0.2)
    assert box.status().state == "offline"
    assert sizes(box) == {f"{S1}/a.b.c": 1, f"{T1}/a.b.c": 1}
    swap(None)
    box.live(10.0)
    box.sync()
    box.assert_equal()


# What cannot be read.


@needs_root
def test_a_folder_that_cannot_be_read_keeps_its_rows_and_is_tried_again():
    def run():
        home = Path(tempfile.mkdtemp())
        write(home / "root", f"{S1}/alf/a.b.c", f"{T1}/a.b.c")
        box = EngineBox(home / "root")
        box.sync()
        alf = box.root / S1 / "alf"
        alf.chmod(0)
        replies = [box.sync().exactness]
        status = box.status()
        told = [(problem.kind, problem.path) for problem in status.problems]
        kept = sizes(box)
        box.drop = events_are_lost  # so that nothing but the next attempt can find out
        alf.chmod(0o700)
        write(box.root, f"{S1}/alf/a.b.c", size=5)
        box.hear()
        box.drop = lambda _: False
        box.live(31.0)
        after = sizes(box)
        replies.append(box.sync().exactness)
        box.assert_equal()
        problems = box.status().problems
        box.close()
        shutil.rmtree(home)
        return replies, told, kept, problems, after

    replies, told, kept, problems, after = as_nobody(run)
    assert replies == [PARTIAL, EXACT]
    assert told == [("unreadable", f"{S1}/alf")]
    assert kept == {f"{S1}/alf/a.b.c": 1, f"{T1}/a.b.c": 1}
    assert problems == []
    assert after == {f"{S1}/alf/a.b.c": 5, f"{T1}/a.b.c": 1}


def test_a_link_that_cannot_be_followed_keeps_what_it_led_to(make_box):
    # ENAMETOOLONG stands for EIO, ESTALE and the like, which say nothing about what is there.
    box = make_box(f"{T1}/a.b.c")
    write(box.root.parent / "outside", "alf/a.b.c", "x.y.z")
    (box.root / "s/2020-01-01").mkdir(parents=True)
    (box.root / S1).symlink_to(box.root.parent / "outside")
    (box.root / T1 / "x.y.z").symlink_to(box.root.parent / "outside/x.y.z")
    box.sync()
    before = sizes(box)
    assert before == {f"{T1}/a.b.c": 1, f"{T1}/x.y.z": 1, f"{S1}/alf/a.b.c": 1, f"{S1}/x.y.z": 1}
    for link in (box.root / S1, box.root / T1 / "x.y.z"):
        link.unlink()
        link.symlink_to("x" * 300)
    assert box.sync().exactness == PARTIAL
    assert sizes(box) == before
    assert {problem.path for problem in box.status().problems} == {"s/2020-01-01", T1}
    for link in (box.root / S1, box.root / T1 / "x.y.z"):
        link.unlink()
    assert box.sync().exactness == EXACT
    assert sizes(box) == {f"{T1}/a.b.c": 1}
    assert box.status().problems == []


# Links.


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda outside: write(outside, "x.y.z", size=9), id="target of a file grows"),
        pytest.param(lambda outside: (outside / "x.y.z").unlink(), id="target of a file goes"),
        pytest.param(lambda outside: write(outside, "late.y.z"), id="target of a dangling link comes"),
        pytest.param(lambda outside: (outside / "session").rename(outside / "away"), id="target of a session goes"),
        pytest.param(lambda outside: write(outside, "later/alf/d.e.f"), id="target of a dangling session comes"),
        pytest.param(lambda outside: exchange(outside / "session", outside / "second"), id="another target"),
        pytest.param(lambda outside: write(outside, "session/alf/new/d.e.f"), id="a folder in a linked session"),
    ],
)
def test_what_links_lead_to_is_seen_by_sync_and_now_and_then(make_box, change):
    box = make_box(f"{T1}/alf/a.b.c", poll_interval_seconds=300)
    outside = box.root.parent / "outside"
    write(outside, "x.y.z", "session/alf/a.b.c", "second/a.b.c")
    for link, target in {
        f"{T1}/x.y.z": "x.y.z", f"{T1}/late.y.z": "late.y.z", S1: "session", S2: "later",
    }.items():  # fmt: skip
        (box.root / link).parent.mkdir(parents=True, exist_ok=True)
        (box.root / link).symlink_to(outside / target)
    assert box.sync().exactness == EXACT
    box.assert_equal()
    detail = "every change is seen at once; what links lead to, every 300 s and by sync"
    assert (box.status().state, box.status().detail) == ("live", detail)
    change(outside)
    box.live(301.0)
    by_itself, expected = sizes(box), box.truth()
    assert box.sync().exactness == EXACT
    assert by_itself == sizes(box)
    assert box.rows().datasets == expected.datasets
    change_back = outside / "x.y.z"
    write(outside, "x.y.z", size=30)
    assert box.sync().exactness == EXACT
    assert sizes(box)[f"{T1}/x.y.z"] == change_back.stat().st_size == 30
    box.assert_equal()


# Hard links.

A, C, N = f"{S1}/alf/a.b.c", f"{S2}/c.d.e", f"{T1}/n.e.w"


def link(first, second):
    def run(root):
        os.link(root / first, root / second)

    return run


def append(path):
    def run(root):
        with (root / path).open("ab") as file:
            file.write(b"more")

    return run


def remove(path):
    return lambda root: (root / path).unlink()


def make_folder(path):
    return lambda root: (root / path).mkdir()


def rename(path, target):
    return lambda root: (root / path).rename(root / target)


@pytest.mark.parametrize(
    ("before", "since"),
    [
        pytest.param([link(A, N)], [append(N)], id="written to"),
        pytest.param([link(A, N)], [append(A)], id="written to by the first name"),
        pytest.param([link(A, N), link(A, f"{S2}/o.l.d")], [append(N)], id="three names"),
        pytest.param([], [link(A, N), append(N)], id="made and written to"),
        pytest.param([], [link(A, N), append(N), rename(N, f"{S2}/n.e.w")], id="made, written to, renamed"),
        pytest.param([link(A, N)], [append(N), remove(N)], id="written to and removed"),
        pytest.param([link(A, N)], [append(N), rename(N, f"{T1}/not-alf")], id="written to and renamed to junk"),
        pytest.param([link(A, N)], [append(N), rename(C, N)], id="written to and replaced"),
        pytest.param([link(A, N)], [append(N), remove(N), make_folder(N)], id="written to and now a folder"),
        pytest.param([link(A, N)], [append(N), rename("t", "u")], id="written to, its subject renamed"),
        pytest.param([link(A, N)], [append(N), rename("t", "../away")], id="written to, its subject moved out"),
        pytest.param([link(A, N)], [rename(A, f"{S2}/o.l.d"), append(N)], id="the other one renamed"),
    ],
)
def test_what_is_written_through_a_hard_link_changes_the_rows_of_all_its_names(make_box, before, since):
    box = make_box(A, C, f"{T1}/f.g.h")
    for change in before:
        change(box.root)
    box.sync()
    for change in since:
        change(box.root)
    assert box.sync().exactness == EXACT
    box.assert_equal()


def test_all_rows_are_searched_once_for_many_hard_links(make_box, one_at_a_time, monkeypatch):
    box = make_box(*[f"s/2020-01-01/{number}/a.b.c" for number in range(100, 120)])
    searches = []
    take_stale = HardLinks.take_stale
    monkeypatch.setattr(HardLinks, "take_stale", lambda *given: searches.append(1) or take_stale(*given))
    shutil.copytree(box.root / "s", box.root / "t", copy_function=os.link)
    box.sync()
    box.assert_equal()
    assert len(searches) == 1


# The root.


def test_a_root_that_is_not_there_at_the_start_is_offline_until_it_comes(tmp_path):
    root = tmp_path / "root"
    box = EngineBox(root)
    try:
        root.rmdir()
        box.live(3.0)
        status = box.status()
        assert status.state == "offline"
        assert str(root) in status.detail
        assert os.listdir(box.out_dir) == []
        for request in (SyncRequest, FlushRequest, RescanRequest, SnapshotRequest):
            with pytest.raises(RootOffline, match=str(root)):
                box.answer(box.ask(request))
        write(root, f"{S1}/a.b.c")
        box.live(6.0)
        assert box.status().state == "live"
        assert box.sync().exactness == EXACT
        box.assert_equal()
    finally:
        box.close()


def test_a_root_that_is_renamed_away_keeps_its_rows_and_fails_who_waits(make_box):
    box = make_box(f"{S1}/a.b.c", f"{T1}/a.b.c")
    stored = box.stored()
    write(box.root, f"{S1}/d.e.f")
    away = box.root.with_name("away")
    reply = box.ask(SyncRequest)
    box.root.rename(away)
    with pytest.raises(RootOffline, match="rows are kept"):
        box.answer(reply)
    box.live(60.0)
    status = box.status()
    assert (status.state, status.n_datasets) == ("offline", 2)
    assert box.stored() == stored
    write(away, f"{T1}/g.h.i")
    shutil.rmtree(away / "s")
    away.rename(box.root)
    box.live(6.0)
    assert box.status().state == "live"
    assert box.sync().exactness == EXACT
    assert sizes(box) == {f"{T1}/a.b.c": 1, f"{T1}/g.h.i": 1}
    box.assert_equal()


def test_nothing_is_written_while_the_root_is_away(make_box):
    box = make_box(f"{S1}/a.b.c")
    for name in ("d.e.f", "g.h.i"):
        write(box.root, f"{S1}/{name}")
        box.live(0.2)
    assert stored_paths(box) == {"a.b.c", "d.e.f"}
    n_flushes = box.n_flushes
    box.root.rename(box.root.with_name("away"))
    box.live(60.0)
    status = box.status()
    assert (status.state, box.n_flushes, status.generation - status.flushed_generation) == ("offline", n_flushes, 1)
    assert status.oldest_unflushed_seconds > 60.0
    box.root.with_name("away").rename(box.root)
    box.live(6.0)
    assert stored_paths(box) == {"a.b.c", "d.e.f", "g.h.i"}


def test_it_goes_offline_in_the_middle_of_a_scan(make_box, one_at_a_time):
    box = make_box(*[f"s{number}/2020-01-01/001/a.b.c" for number in range(5)])
    reply = box.ask(RescanRequest)
    for _ in range(7):
        box.step()
    box.root.rename(box.root.with_name("away"))
    box.root.mkdir()
    box.step()
    assert box.status().state == "offline"
    with pytest.raises(RootOffline):
        reply.result(0)
    assert [note.seconds for note in box.status().rescans if note.seconds is None] == []
    box.root.rmdir()
    box.root.with_name("away").rename(box.root)
    box.live(6.0)
    assert len(sizes(box)) == 5
    assert box.sync().exactness == EXACT
    box.assert_equal()


# Settings.


def test_exclude_is_changed_by_a_reload(make_box):
    box = make_box(f"{S1}/a.b.c", f"{S1}/alf/d.e.f", f"{T1}/a.b.c")
    for exclude, expected in [
        (("t/", "*.e.f"), {f"{S1}/a.b.c"}),
        (("*.b.c",), {f"{S1}/alf/d.e.f"}),
        ((), {f"{S1}/a.b.c", f"{S1}/alf/d.e.f", f"{T1}/a.b.c"}),
    ]:
        box.new_settings["exclude"] = exclude
        box.inbox.post(Reload())
        reply = box.sync()  # what was ordered before it counts
        assert (set(sizes(box)), reply.exactness) == (expected, EXACT)
        box.assert_equal()
        assert box.status().events_lost == 0
    write(box.root, f"{T1}/alf/d.e.f")
    box.sync()
    box.assert_equal()


def test_an_excluded_folder_that_changes_stays_out(make_box):
    box = make_box(f"{S1}/a.b.c", f"{T1}/a.b.c", exclude=("t/", "*.e.f"))
    write(box.root, f"{T1}/d.b.c", f"{S1}/d.e.f", f"{S1}/t/a.b.c")
    box.sync()
    assert set(sizes(box)) == {f"{S1}/a.b.c"}
    box.assert_equal()


def test_lab_is_changed_by_a_reload(make_box):
    box = make_box(f"{S1}/a.b.c", "own/Subjects/u/2020-01-01/001/a.b.c")
    ids = {row["id"] for row in box.stored()[0]}
    box.new_settings["lab"] = "ours"
    box.inbox.post(Reload())
    box.sync()
    assert {row["subject"]: row["lab"] for row in box.stored()[0]} == {"s": "ours", "u": "own"}
    assert {row["id"] for row in box.stored()[0]} == ids


def test_intervals_are_changed_by_a_reload(make_box):
    box = make_box(f"{S1}/a.b.c", settle_seconds=5, longest_wait_seconds=50, flush_interval_seconds=19)
    box.new_settings.update(settle_seconds=0.5, longest_wait_seconds=1, flush_interval_seconds=2)
    box.inbox.post(Reload())
    for name in ("d.e.f", "g.h.i"):
        write(box.root, f"{S1}/{name}")
        box.live(0.4)
        assert f"{S1}/{name}" not in sizes(box)
        box.live(0.2)
        assert f"{S1}/{name}" in sizes(box)
        box.live(2.0)
        assert name in stored_paths(box)


def test_settings_that_are_refused_change_nothing(make_box):
    box = make_box(f"{S1}/a.b.c")
    before = box.engine.settings

    def refuse():
        raise ConfigError("lab: no")

    box.settings = refuse
    box.inbox.post(Reload())
    box.run()
    assert box.engine.settings is before
    assert box.status().state == "live"


# The end.


def test_the_end_flushes_what_changed_just_before(make_box):
    box = make_box(f"{S1}/a.b.c", flush_interval_seconds=1000)
    write(box.root, f"{S1}/d.e.f", f"{T1}/g.h.i")
    box.inbox.post(Stop())
    box.inbox.post(Stop())
    box.run_to_the_end()
    assert stored_paths(box) == {"a.b.c", "d.e.f", "g.h.i"}
    assert not box.engine.unsaved


def test_the_end_does_not_wait_for_the_first_scan(tmp_path, one_at_a_time):
    write(tmp_path / "root", f"{S1}/a.b.c")
    box = EngineBox(tmp_path / "root")
    box.step()
    reply = box.ask(SyncRequest)
    box.inbox.post(Stop())
    box.step()
    assert box.engine.is_done
    assert os.listdir(box.out_dir) == []
    box.close()
    with pytest.raises(AlfwatchdError, match="stopping"):
        reply.result(0)


@pytest.mark.parametrize("trouble", ["a lost cookie", "lost events", "a scan that runs"])
def test_the_end_does_not_wait_for_a_scan_of_everything(make_box, one_at_a_time, trouble):
    box = make_box(*[f"s{number}/2020-01-01/001/a.b.c" for number in range(20)])
    write(box.root, "s0/2020-01-01/001/d.e.f")
    box.hear()
    if trouble == "a lost cookie":
        box.drop = cookies_are_lost
    elif trouble == "lost events":
        box.inbox.post(EventsLost("overflow"))
    else:
        box.ask(RescanRequest)
    box.step()
    n_looks = []
    box.count_looks(n_looks)
    box.inbox.post(Stop())
    box.run_to_the_end()
    assert "d.e.f" in stored_paths(box)
    assert not box.engine.unsaved
    assert len(n_looks) < 20


def test_the_end_of_an_offline_root_writes_nothing(make_box):
    box = make_box(f"{S1}/a.b.c")
    stored = box.stored()
    box.root.rename(box.root.with_name("away"))
    box.live(2.0)
    box.inbox.post(Stop())
    box.step()
    assert box.engine.is_done
    assert box.stored() == stored


def test_a_last_flush_that_fails_is_told(make_box):
    box = make_box(f"{S1}/a.b.c")
    box.out_dir.rename(box.home / "away")
    write(box.root, f"{S1}/d.e.f")
    box.live(30.0)
    assert not box.status().saved
    n_flushes, began = box.n_flushes, box.now
    box.inbox.post(Stop())
    box.run_to_the_end()
    assert (box.n_flushes, box.now) == (n_flushes + 1, began)  # one more attempt, without waiting for its time
    assert str(box.out_dir) in box.engine.unsaved


# Folders that are not watched.


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
        box.refuse = lambda _: None  # somebody raised the limit
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
def test_folders_that_are_gone_are_not_missed(make_box, path):
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


def test_a_file_system_that_other_hosts_may_write_to_is_polled_though_it_is_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "WATCHABLE", frozenset())  # as if the root were a network mount
    write(tmp_path / "root", f"{S1}/a.b.c")
    box = EngineBox(tmp_path / "root", poll_interval_seconds=60)
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


def test_polling_that_was_asked_for(make_box):
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


# After a restart.


def test_what_changed_while_nothing_ran_is_taken_in(make_box):
    box = make_box(f"{S1}/a.b.c", f"{T1}/a.b.c")
    generation = box.status().flushed_generation
    box.stop()
    shutil.rmtree(box.root / "t")
    write(box.root, f"{S1}/d.e.f", f"{S2}/a.b.c")
    box.start()
    assert box.sync().generation > generation
    box.assert_equal()
