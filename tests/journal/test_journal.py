"""The journal on disk: it goes on after kills, forgets what is old, and never tells what it cannot know."""

import os
import random
from datetime import UTC, datetime, timedelta

import pytest

from alfwatchd.journal import segments
from alfwatchd.journal.entries import Batch, Cursor, pack_batch
from alfwatchd.journal.journal import Bounds, Journal, read_days
from alfwatchd.journal.reading import read_extent
from alfwatchd.journal.segments import list_segments
from alfwatchd.tree.session_changes import SessionChange

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def change(number, kind="added", lab="lab", **more):
    return SessionChange(f"{lab}/Subjects/s/2020-01-01/{number:03d}", kind, n_bytes=10, bytes_after=10, **more)


class Box:
    """A journal that is told of generations 1, 2, ..., as a writer of tables does it."""

    def __init__(self, folder, bounds=None):
        self.folder, self.bounds = folder, bounds or Bounds()
        self.now = NOON
        self.generation = 0
        self.open()

    def open(self):
        self.journal = Journal(self.folder, self.bounds, lambda: self.now.timestamp())

    def add(self, *changes, **passed):
        self.now += timedelta(**passed)
        self.journal.follow(self.journal.id, self.generation)
        self.generation += 1
        self.journal.record(self.generation, self.now, changes)
        return self.generation

    def told(self, since, limit=1000):
        if isinstance(since, int):
            since = Cursor("", since)
        page = self.journal.feed.page(since, limit)
        return None if page.is_fresh else [(each.generation, each.change.path[-3:]) for each in page.told]


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


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
    assert read_extent(box.journal.folder) == box.journal.extent


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


@pytest.mark.parametrize("seed", range(5))
def test_a_torn_batch_is_none_and_is_overwritten(box, seed):
    """A kill while a batch is written must not lose those before it, nor those that come."""
    begun = box.add()
    for number in range(3):
        box.add(change(number))
    (segment,) = list_segments(box.journal.folder)
    whole = segment.path.read_bytes()
    torn = pack_batch(Batch.of(99, NOON.isoformat(), [change(4)]))
    for n_bytes in random.Random(seed).sample(range(1, len(torn)), 5):
        segment.path.write_bytes(whole + torn[:n_bytes])
        box.open()
        assert (box.journal.last, box.told(begun)) == (4, [(2, "000"), (3, "001"), (4, "002")])
    box.add(change(9))
    box.open()
    assert box.told(begun)[-1] == (5, "009")


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


def test_full_files_are_compressed_and_read_all_the_same(box, monkeypatch):
    monkeypatch.setattr(segments, "FULL_BYTES", 500)
    begun = box.add()
    for number in range(30):
        box.add(change(number))
    names = sorted(each.name for each in box.journal.folder.iterdir())
    assert [name.endswith(".gz") for name in names[:-1]] == [True] * (len(names) - 1)
    assert len(names) > 3
    expected = [(number + 2, f"{number:03d}") for number in range(30)]
    assert box.told(begun) == expected
    box.open()
    assert box.told(begun) == expected
    assert box.told(20) == expected[19:]


def test_a_kill_between_the_compressed_file_and_the_next_costs_nothing(box, monkeypatch):
    monkeypatch.setattr(segments, "FULL_BYTES", 500)
    begun = box.add()
    for number in range(12):
        box.add(change(number))
    last = list_segments(box.journal.folder)[-1]
    content = last.path.read_bytes()
    segments.compress(last)
    box.open()
    assert box.told(begun) == [(number + 2, f"{number:03d}") for number in range(12)]
    box.add(change(12))
    last.path.write_bytes(content)  # as if the plain file had not been removed before the kill
    assert box.told(begun)[-1] == (14, "012")


def test_what_is_old_goes_and_readers_behind_it_take_everything(tmp_path):
    box = Box(tmp_path, Bounds(seconds=5 * 86400.0))
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
    box = Box(tmp_path, Bounds(n_bytes=3000))
    for number in range(200):
        box.add(change(number))
    assert sum(each.stat().st_size for each in box.journal.folder.glob("*.jsonl*")) < 4000 + 20_000
    assert sum(segments.size_of(each) for each in list_segments(box.journal.folder)) < 3500
    assert box.journal.extent.floor > 100


def test_days_are_kept_for_ever(tmp_path, monkeypatch):
    """A lab asks after years what arrived when; the journal itself is long gone."""
    monkeypatch.setattr(segments, "FULL_BYTES", 300)
    box = Box(tmp_path, Bounds(n_bytes=2000))
    box.add()
    for day in range(6):
        box.add(*(change(number, lab="one") for number in range(day)), days=1)
        box.add(change(0, "removed", lab="two"), *(change(900 + n, lab="two") for n in range(2)))
        if day % 2:
            box.open()
    expected = []
    for day in range(6):
        date = (NOON + timedelta(days=day + 1)).date().isoformat()
        expected += [(date, "one", day, 0, 10 * day)] * (day > 0) + [(date, "two", 2, 1, 30)]
    assert read_days(box.journal.folder) == expected
    with (box.journal.folder / "days.jsonl").open("ab") as file:
        file.write(b'{"day":"2026-01-0')  # torn by a kill
    box.add(days=1)
    box.add(change(1, lab="one"), days=1)
    box.add(days=1)
    assert read_days(box.journal.folder)[-1][1:] == ("one", 1, 0, 10)


def test_a_renamed_session_neither_arrived_nor_went(box):
    box.add()
    old, new = change(1, "removed", renamed_to="x"), change(2, renamed_from="y")
    box.add(old, new)
    assert [each[2:4] for each in read_days(box.journal.folder)] == [(0, 0)]


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


def test_files_of_two_journals_are_never_read_as_one(box):
    """A state folder that was copied over another one."""
    box.add()
    box.add(change(1))
    segments.begin_segment(box.journal.folder, "deadbeef", 0)
    box.open()
    assert (box.journal.last, box.journal.extent.floor) == (2, 1)
    segments.begin_segment(box.journal.folder, "deadbeef", 9)
    box.open()
    assert (box.journal.id, box.journal.extent.floor, box.told(1)) == ("deadbeef", 9, None)


def test_readers_in_this_process_are_woken(box):
    woken = []
    end = box.journal.feed.listen(lambda: woken.append(box.journal.feed.extent.last))
    box.add()
    box.add(change(1))
    end()
    box.add(change(2))
    assert woken == [1, 2]
