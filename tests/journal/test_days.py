"""What a lab asks after years: what arrived when."""

from datetime import timedelta

import pytest

from alfwatchd.journal import segments
from alfwatchd.journal.journal import Bounds, read_days
from kit.journal import NOON, JournalBox, change


@pytest.fixture
def box(tmp_path):
    return JournalBox(tmp_path)


def test_days_are_kept_for_ever(tmp_path, monkeypatch):
    """A lab asks after years what arrived when; the journal itself is long gone."""
    monkeypatch.setattr(segments, "FULL_BYTES", 300)
    box = JournalBox(tmp_path, Bounds(n_bytes=2000))
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
