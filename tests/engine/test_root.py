"""Going offline and online.

If one of these fails, the rows of a disk that is unmounted for a while are lost.
"""

import os
import shutil

import pytest

from alfwatchd.api import FlushRequest, RescanRequest, SnapshotRequest, StatusRequest, SyncRequest
from alfwatchd.errors import RootOffline
from kit.engine import EngineBox
from kit.engine_tree import (
    EXACT,
    S1,
    T1,
    sizes,
    stored_paths,
    write,
)
from kit.fuzz_disk import exchange

pytestmark = pytest.mark.usefixtures("no_readers")


def test_a_root_that_is_swapped_during_a_look_keeps_its_rows(make_box):
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
    assert box.engine.model.state == "offline"
    assert sizes(box) == {f"{S1}/a.b.c": 1, f"{T1}/a.b.c": 1}
    swap(None)
    box.live(10.0)
    box.sync()
    box.assert_equal()


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


def test_a_root_that_is_renamed_keeps_its_rows_and_requests_that_wait_fail(make_box):
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
    n_flushes, generation = box.n_flushes, box.status().generation
    box.root.rename(box.root.with_name("away"))
    box.live(60.0)
    status = box.status()
    assert (status.state, box.n_flushes, status.generation) == ("offline", n_flushes, generation)
    assert status.oldest_unflushed_seconds > 60.0
    box.root.with_name("away").rename(box.root)
    box.live(6.0)
    assert stored_paths(box) == {"a.b.c", "d.e.f", "g.h.i"}


def test_a_root_that_goes_offline_during_a_scan_keeps_its_rows(make_box):
    box = make_box(*[f"s{number}/2020-01-01/001/a.b.c" for number in range(5)], one_look_per_step=True)
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


def test_offline_always_has_a_reason(make_box):
    """A root that is back is opened by the first request: status of that moment said `offline` and nothing more."""
    box = make_box(f"{S1}/a.b.c")
    away = box.root.with_name("away")
    box.root.rename(away)
    box.live(10.0)
    assert box.status().state == "offline"
    away.rename(box.root)
    asked, told = box.ask(SyncRequest), box.ask(StatusRequest)
    box.step()
    status = told.result()
    assert status.state != "offline"
    assert status.detail
    box.answer(asked)


def test_a_first_start_does_not_speak_of_tables_of_the_last_run(tmp_path):
    write(tmp_path / "root", f"{S1}/a.b.c", f"{T1}/a.b.c")
    box = EngineBox(tmp_path / "root", one_look_per_step=True)
    try:
        for detail in ("alfwatchd has written no tables here yet", "the tables on disk are those of the last run"):
            told = box.ask(StatusRequest)
            box.step()
            assert told.result().state == "starting"
            assert detail in told.result().detail
            box.live(30.0)
            box.sync()
            box.stop()
            box.start()
    finally:
        box.close()
