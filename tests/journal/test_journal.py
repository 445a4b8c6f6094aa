"""The journal on disk: it goes on after kills, forgets what is old, and never tells what it cannot know."""

import os
import random

import pytest

from alfwatchd.journal import segments
from alfwatchd.journal.entries import Cursor
from alfwatchd.journal.journal import Bounds, Journal
from alfwatchd.journal.segments import list_segments
from kit.journal import JournalBox, change


@pytest.fixture
def box(tmp_path):
    return JournalBox(tmp_path)


def test_a_journal_tells_what_changed_since(box):
    begun = box.add()
    assert box.told(begun) == []
    assert [box.add(change(number)) for number in (1, 2)] == [2, 3]
    assert box.told(begun) == [(2, "001"), (3, "002")]
    assert box.told(2) == [(3, "002")]
    assert box.told(3) == []
    assert box.told(0) is None, "before it began"
    assert box.told(4) is None, "a generation that is not there yet"
    assert box.told(Cursor("00000000", 2)) is None, "another journal"


def test_it_goes_on_in_the_next_process(box):
    begun = box.add()
    box.add(change(1))
    journal = box.journal.id
    box.open()
    box.add(change(2))
    assert box.journal.id == journal
    assert box.told(begun) == [(2, "001"), (3, "002")]
    assert Journal(box.folder, box.bounds).extent == box.journal.extent


def test_where_the_tables_are_others_it_begins_again(box):
    """A backup was restored, or a kill came between tables and journal: nobody knows what changed."""
    begun = box.add()
    box.add(change(1))
    box.journal.follow(box.journal.id, 7)
    box.journal.record(8, box.now, [change(2)])
    assert (box.told(begun), box.told(2), box.told(8)) == (None, None, [])
    box.journal.follow("", 8)
    box.journal.record(9, box.now, [change(3)])
    assert (box.told(8), box.told(9)) == (None, [])


def test_nothing_is_added_where_nothing_changed(box):
    begun = box.add()
    size = sum(each.stat().st_size for each in box.journal.folder.iterdir())
    box.journal.follow(box.journal.id, begun)
    box.journal.record(begun, box.now, [])
    assert sum(each.stat().st_size for each in box.journal.folder.iterdir()) == size


@pytest.mark.parametrize("seed", range(20))
def test_damage_costs_no_more_than_what_is_damaged(box, seed):
    """It may cost the journal, but never a wrong answer."""
    chance = random.Random(seed)
    begun = box.add()
    for number in range(5):
        box.add(change(number))
    whole = box.told(begun)
    (segment,) = list_segments(box.journal.folder)
    content = bytearray(segment.path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    segment.path.write_bytes(content)
    box.open()
    told = box.told(begun)
    assert told is None or whole[: len(told)] == told
    box.add(change(7))
    assert box.told(begun) is None or box.journal.last == len(told) + 2


def test_what_is_old_goes_and_readers_behind_it_take_everything(tmp_path):
    box = JournalBox(tmp_path, Bounds(seconds=5 * 86400.0))
    begun = box.add()
    for number in range(10):
        box.add(change(number), days=1)
        for each in list_segments(box.journal.folder)[:-1]:
            if each.path.stat().st_mtime > box.now.timestamp():  # the files are of now, the story is older
                os.utime(each.path, (box.now.timestamp(),) * 2)
    assert box.told(begun) is None
    floor = box.journal.extent.floor
    assert 4 <= floor <= 7
    assert box.told(floor) == [(number + 2, f"{number:03d}") for number in range(floor - 1, 10)]
    box.open()
    assert box.journal.extent.floor == floor


def test_too_much_goes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "FULL_BYTES", 300)
    box = JournalBox(tmp_path, Bounds(n_bytes=3000))
    for number in range(200):
        box.add(change(number))
    assert sum(each.stat().st_size for each in box.journal.folder.glob("*.jsonl*")) < 4000 + 20_000
    assert sum(segments.size_of(each) for each in list_segments(box.journal.folder)) < 3500
    assert box.journal.extent.floor > 100


def test_a_folder_that_cannot_be_written_harms_nobody(box, caplog):
    begun = box.add()
    for each in list_segments(box.journal.folder):
        each.path.unlink()
        each.path.mkdir()
    box.add(change(1))
    assert "what changed is not in the journal" in caplog.text
    for each in box.journal.folder.iterdir():
        each.rmdir()
    box.add(change(2))
    assert box.told(begun) is None
    now = box.generation
    box.add(change(3))
    assert box.told(now) == [(4, "003")]


def test_readers_in_this_process_are_woken(box):
    woken = []
    end = box.journal.feed.listen(lambda: woken.append(box.journal.feed.extent.last))
    box.add()
    box.add(change(1))
    end()
    box.add(change(2))
    assert woken == [1, 2]
