"""When the tables are written, and what clients hear when they cannot be.

If one of these fails, the tables on disk are older than `status` says, or are written all the time.
"""

import os
from itertools import pairwise

import pyarrow.parquet as pq
import pytest

from alfwatchd.api import FlushRequest, SyncRequest
from alfwatchd.errors import TablesError
from kit.engine_tree import (
    EXACT,
    S1,
    stored_paths,
    write,
)

pytestmark = pytest.mark.usefixtures("no_readers")


def test_a_change_is_on_disk_within_the_flush_interval_and_no_sooner(make_box):
    box = make_box(f"{S1}/a.b.c", flush_interval_seconds=10)
    write(box.root, f"{S1}/d.e.f")
    box.live(0.2)
    assert stored_paths(box) == {"a.b.c", "d.e.f"}  # the interval since the last flush was over
    generation = box.status().generation
    write(box.root, f"{S1}/g.h.i")
    box.live(9.0)
    status = box.status()
    assert stored_paths(box) == {"a.b.c", "d.e.f"}
    assert (status.state, status.saved, status.generation) == ("live", True, generation)
    assert 8.5 < status.oldest_unflushed_seconds < 9.0
    n_flushes = box.n_flushes
    box.live(1.0)
    status = box.status()
    assert stored_paths(box) == {"a.b.c", "d.e.f", "g.h.i"}
    assert (status.generation, status.oldest_unflushed_seconds) == (generation + 1, None)
    assert box.n_flushes == n_flushes + 1


def test_nothing_is_written_where_nothing_changed(make_box):
    box = make_box(f"{S1}/a.b.c")
    n_flushes, marks = box.n_flushes, [os.stat(box.out_dir / name) for name in os.listdir(box.out_dir)]
    box.sync()
    box.live(100.0)
    assert box.n_flushes == n_flushes
    assert [os.stat(box.out_dir / name) for name in os.listdir(box.out_dir)] == marks


def test_a_request_that_waits_gets_a_flush_at_once(make_box):
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
    assert reply.generation == box.status().generation


def test_an_empty_root_has_tables_too(make_box):
    box = make_box()
    assert box.sync().exactness == EXACT
    assert box.stored() == ([], [])


def test_a_failed_flush_is_reported_and_tried_again(make_box):
    box = make_box(f"{S1}/a.b.c")
    before, generation = box.n_flushes, box.status().generation
    box.out_dir.rename(box.home / "away")
    write(box.root, f"{S1}/d.e.f")
    with pytest.raises(TablesError, match="the changes are kept in memory, the next attempt follows in"):
        box.sync()
    status = box.status()
    assert (status.saved, status.state) == (False, "live")
    assert str(box.out_dir) in status.last_flush_error
    assert status.generation == generation
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


def test_a_sync_is_answered_soon_while_flushes_fail_and_causes_few_attempts(make_box):
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
