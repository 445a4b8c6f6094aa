"""The loop: when folders settle, how long a step may sleep, how the engine ends and starts again.

If one of these fails, changes come late or never, or the last ones are lost when the daemon stops.
"""

import os
import shutil

import pytest

from alfwatchd.api import PrunedNotice, RescanRequest, SyncRequest
from alfwatchd.engine.messages import Stop
from alfwatchd.errors import AlfwatchdError
from alfwatchd.watch.events import EventsLost
from kit.engine import EngineBox
from kit.engine_tree import (
    S1,
    S2,
    T1,
    cookies_are_lost,
    sizes,
    stored_paths,
    write,
)

pytestmark = pytest.mark.usefixtures("no_readers")


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


def test_what_a_prune_deleted_is_looked_at_where_nothing_is_watched(make_box):
    box = make_box(f"{S1}/a.b.c", f"{S1}/d.e.f", watch="poll")
    (box.root / S1 / "a.b.c").unlink()
    box.inbox.post(PrunedNotice((S1, "gone/2020-01-01/001")))
    box.run()
    box.run(0.2)
    assert sizes(box) == {f"{S1}/d.e.f": 1}


def test_the_end_flushes_what_changed_just_before(make_box):
    box = make_box(f"{S1}/a.b.c", flush_interval_seconds=1000)
    write(box.root, f"{S1}/d.e.f", f"{T1}/g.h.i")
    box.inbox.post(Stop())
    box.inbox.post(Stop())
    box.run_to_the_end()
    assert stored_paths(box) == {"a.b.c", "d.e.f", "g.h.i"}
    assert not box.engine.unsaved


def test_the_end_does_not_wait_for_the_first_scan(tmp_path):
    write(tmp_path / "root", f"{S1}/a.b.c")
    box = EngineBox(tmp_path / "root", one_look_per_step=True)
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
def test_the_end_does_not_wait_for_a_scan_of_everything(make_box, trouble):
    box = make_box(*[f"s{number}/2020-01-01/001/a.b.c" for number in range(20)], one_look_per_step=True)
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


def test_a_last_flush_that_fails_is_reported(make_box):
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


def test_what_changed_while_the_daemon_was_down_is_found_at_the_next_start(make_box):
    box = make_box(f"{S1}/a.b.c", f"{T1}/a.b.c")
    generation = box.status().generation
    box.stop()
    shutil.rmtree(box.root / "t")
    write(box.root, f"{S1}/d.e.f", f"{S2}/a.b.c")
    box.start()
    assert box.sync().generation > generation
    box.assert_equal()
