"""What clients are told before the tables are on disk.

If one of these fails, a client believes in a session that is not there, or the daemon loses events in a burst of files.
"""

import itertools
import shutil

import pytest

from alfwatchd.engine.pending_changes import PendingChanges
from alfwatchd.journal.pending import Pending
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Tables
from kit.engine import EngineBox
from kit.rows import folder_rows

PATH = "lab/Subjects/s/2020-01-01/001"


@pytest.fixture
def box(tmp_path):
    made = EngineBox(tmp_path / "root", flush_interval_seconds=1000.0)
    write(made, "lab/Subjects/s/2020-01-01/009/alf/spikes.times.npy")
    made.sync()
    made.pending = made.journal.feed.pending
    made.number = made.pending.number
    yield made
    made.close()


def write(box, path, size=5):
    file = box.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)


def ask(box):
    """Have the engine note changes from now on."""
    box.pending.ask(box.now + 1e6)
    box.run(1.0)


def news(box):
    """Return what was told since the last time."""
    found = box.pending.newer(box.number, 1000)
    box.number = box.pending.number
    return [(each.change.kind, each.change.path[-3:], each.change.names, each.change.bytes_after) for each in found]


def test_a_new_file_is_told_before_the_flush(box):
    ask(box)
    write(box, f"{PATH}/alf/spikes.times.npy")
    box.run(1.0)
    box.run(1.0)
    assert news(box) == [("added", "001", ("+alf/spikes.times.npy",), 5)]
    assert box.journal.last == 1
    box.live(10.0)
    assert news(box) == []


def test_a_session_that_changes_again_is_told_with_all_that_differs_from_the_disk(box):
    ask(box)
    write(box, f"{PATH}/alf/spikes.times.npy")
    box.live(2.0)
    write(box, f"{PATH}/alf/spikes.amps.npy", 7)
    box.live(2.0)
    assert news(box) == [("added", "001", ("+alf/spikes.amps.npy", "+alf/spikes.times.npy"), 12)]


def test_after_the_flush_nothing_is_left_and_what_follows_is_compared_with_it(box):
    ask(box)
    write(box, f"{PATH}/alf/spikes.times.npy")
    box.live(2.0)
    news(box)
    box.sync()
    assert box.pending.newer(0, 10) == []
    write(box, f"{PATH}/alf/spikes.amps.npy", 7)
    box.live(2.0)
    assert news(box) == [("changed", "001", ("+alf/spikes.amps.npy",), 12)]


def test_a_session_that_came_and_went_is_told_to_be_gone(box):
    ask(box)
    write(box, f"{PATH}/alf/spikes.times.npy")
    box.live(2.0)
    assert [each[:2] for each in news(box)] == [("added", "001")]
    shutil.rmtree(box.root / PATH)
    box.live(5.0)
    assert news(box) == [("removed", "001", (), 0)]


def test_a_change_that_is_undone_is_told_to_be_none(box):
    ask(box)
    extra = "lab/Subjects/s/2020-01-01/009/alf/spikes.amps.npy"
    write(box, extra)
    box.live(2.0)
    assert [each[:2] for each in news(box)] == [("changed", "009")]
    (box.root / extra).unlink()
    box.live(5.0)
    assert news(box) == [("changed", "009", (), 5)]


def test_while_nobody_asks_nothing_is_told_or_kept(box):
    write(box, f"{PATH}/alf/spikes.times.npy")
    box.live(2.0)
    assert news(box) == []
    box.pending.ask(box.now + 10.0)
    box.live(1.0)
    write(box, f"{PATH}/alf/spikes.amps.npy")
    box.live(2.0)
    assert [each[2] for each in news(box)] == [("+alf/spikes.amps.npy",)]
    box.live(20.0)
    assert box.pending.newer(0, 10) == []
    write(box, f"{PATH}/alf/spikes.clusters.npy")
    box.live(2.0)
    assert news(box) == []


def test_what_changes_while_a_flush_is_under_way_is_still_pending_after_it(box):
    ask(box)
    write(box, f"{PATH}/alf/spikes.times.npy")
    box.live(2.0)
    news(box)
    tables = box.indexer.tables
    box.engine.model.pending.begin_flush(tables)
    write(box, f"{PATH}/alf/spikes.amps.npy", 7)
    box.live(2.0)
    news(box)
    box.engine.model.pending.succeed(tables)
    box.live(1.0)
    assert news(box) == [("changed", "001", ("+alf/spikes.amps.npy",), 12)]


def test_after_a_flush_that_failed_everything_is_still_pending(box):
    ask(box)
    write(box, f"{PATH}/alf/spikes.times.npy")
    box.live(2.0)
    news(box)
    tables = box.indexer.tables
    box.engine.model.pending.begin_flush(tables)
    box.engine.model.pending.fail()
    write(box, f"{PATH}/alf/spikes.amps.npy", 7)
    box.live(2.0)
    assert news(box) == [("added", "001", ("+alf/spikes.amps.npy", "+alf/spikes.times.npy"), 12)]


def test_a_comparison_that_takes_long_is_not_made_again_soon():
    """Of 50,000 files that come into one session, each comparison would look at all that are there."""
    pending, tables, seconds = Pending(lambda: 0.0), Tables(), itertools.count(0, 3)
    changes = PendingChanges(pending, lambda: next(seconds))  # each comparison takes three seconds
    pending.ask(1e6)
    changes.step(tables, 0.0, lambda: "")
    told = []
    for number, now in enumerate(range(100, 300, 10)):
        files = {f"spikes.times.{number}.npy": pack_signature(number, 2, 3, False)}
        tables.replace_session(Session(PATH, (folder_rows("alf", files),)))
        before = pending.number
        assert changes.due(tables, now) >= now
        changes.step(tables, now, lambda: "")
        if pending.number > before:
            told.append(now)
    assert told == [100, 160, 220, 280]
