"""What `sync` and `rescan` promise.

If one of these fails, a client reads tables that lack its own changes although `sync` has answered.
"""

import os

import pytest

from alfwatchd.api import RescanRequest, SyncRequest
from alfwatchd.errors import UsageError
from alfwatchd.tree.folder import NOT_WATCHED
from alfwatchd.watch.events import EventsLost
from kit.engine import EngineBox
from kit.engine_tree import (
    EXACT,
    S1,
    S2,
    SCANNED,
    T1,
    cookies_are_lost,
    events_are_lost,
    rescans,
    sizes,
    start_reconcile,
    write,
)

pytestmark = pytest.mark.usefixtures("no_readers")


def test_the_engine_does_no_work_for_a_client_that_has_disconnected(make_box):
    """One that asks every second and waits for no more than that would fill the engine during a long scan."""
    box = make_box(f"{S1}/a.b.c")
    write(box.root, f"{S1}/d.e.f")
    for reply in [box.ask(SyncRequest) for _ in range(100)]:
        reply.cancel()
    box.step()
    assert len(box.engine.model.barriers) == 0
    assert not box.engine.model.barriers.await_flush


def test_sync_takes_in_what_changed_just_before(make_box):
    box = make_box(f"{S1}/a.b.c")
    write(box.root, f"{S1}/d.e.f", f"{S2}/alf/probe00/g.h.i")
    reply = box.sync()
    assert reply.exactness == EXACT
    assert reply.seconds < 0.1  # it waits for no settle time
    assert sizes(box) == {f"{S1}/a.b.c": 1, f"{S1}/d.e.f": 1, f"{S2}/alf/probe00/g.h.i": 1}
    assert rescans(box) == ["start"]
    box.assert_equal()


def test_sync_right_at_the_start_waits_for_the_first_scan(tmp_path):
    write(tmp_path / "root", f"{S1}/alf/a.b.c", f"{S2}/a.b.c")
    box = EngineBox(tmp_path / "root", one_look_per_step=True)
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
def test_events_that_are_lost_while_a_sync_waits_are_made_up_for(make_box, is_first):
    box = make_box(f"{S1}/a.b.c", f"{T1}/a.b.c", one_look_per_step=True)
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


def test_a_scan_that_began_before_the_loss_is_not_enough(make_box):
    box = make_box(*[f"s{number}/2020-01-01/001/a.b.c" for number in range(5)], one_look_per_step=True)
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


def test_sync_waits_for_the_scan_that_makes_up_for_lost_events(make_box):
    box = make_box(*[f"s{number}/2020-01-01/001/a.b.c" for number in range(5)], one_look_per_step=True)
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


def test_sync_sees_new_folders_that_a_reconcile_found_first(make_box):
    # The reconcile has found a session and watches it, but not its collections yet: no event tells of those.
    box = make_box(
        "s/2020-01-01/", reconcile_interval_seconds=1000, reconcile_entries_per_second=1000, one_look_per_step=True
    )
    start_reconcile(box)
    looks = []
    box.count_looks(looks)
    while "s" not in looks:
        box.step(0.003)
    box.ambushes["before opening"].append(lambda _: write(box.root, f"{S1}/alf/probe00/a.b.c"))
    while box.indexer.tree.find(S1) is None or box.indexer.tree.find(S1).wd == NOT_WATCHED:
        box.step(0.003)
    assert box.indexer.tree.find(f"{S1}/alf").wd == NOT_WATCHED
    assert box.sync().exactness == EXACT
    box.assert_equal()


def test_sync_does_not_wait_for_a_reconcile(make_box):
    box = make_box(
        f"{S1}/a.b.c", reconcile_interval_seconds=1000, reconcile_entries_per_second=1, one_look_per_step=True
    )
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
