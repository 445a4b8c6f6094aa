"""The files of the journal: a kill at any moment loses at most the batch that was being written."""

import random

import pytest

from alfwatchd.journal import segments
from alfwatchd.journal.entries import Batch, pack_batch
from alfwatchd.journal.segments import list_segments
from kit.journal import NOON, JournalBox, change


@pytest.fixture
def box(tmp_path):
    return JournalBox(tmp_path)


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


@pytest.mark.parametrize("place", [0, 1, -1])
def test_readers_behind_a_damaged_file_take_everything_instead_of_missing_what_it_held(box, monkeypatch, place):
    monkeypatch.setattr(segments, "FULL_BYTES", 500)
    begun = box.add()
    for number in range(12):
        box.add(change(number))
    box.open()
    assert len(box.told(begun)) == 12
    found = list_segments(box.journal.folder)[place]
    content = found.path.read_bytes()
    found.path.write_bytes(content[: len(content) * 2 // 3])
    assert box.told(begun) is None
    assert box.told(box.generation) == []
    box.add(change(20))
    assert box.told(box.generation - 1) == [(box.generation, "020")]


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
