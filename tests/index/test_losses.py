"""Many sessions that go at once are held for a person: it may be another disk, and their rows must not be lost."""

import pytest

from alfwatchd.index.losses import Loss, is_too_much, lab_of, say_held
from alfwatchd.tree.known_sample import KnownSession, sample


def sessions(lab, count, first=0):
    prefix = f"{lab}/Subjects/" if lab else ""
    return [f"{prefix}s{number}/2020-01-01/001" for number in range(first, first + count)]


# (story, gone, staying, largest fraction, whether it is too much)
CASES = [
    ("nothing", [], sessions("a", 5), 0.2, False),
    ("nothing of nothing", [], [], 0.2, False),
    ("one of many", sessions("a", 1), sessions("a", 9, 1), 0.2, False),
    ("the only one", sessions("a", 1), [], 0.2, True),
    ("all", sessions("a", 3), [], 0.2, True),
    ("all, whatever may be lost", sessions("a", 30), [], 1.0, True),
    ("nine of ten", sessions("a", 9), sessions("a", 1, 9), 0.2, False),
    ("a small lab", sessions("b", 9), sessions("a", 40), 0.2, False),
    ("ten of eleven", sessions("a", 10), sessions("a", 1, 10), 0.2, True),
    ("ten of fifty", sessions("a", 10), sessions("a", 40, 10), 0.2, False),
    ("eleven of fifty", sessions("a", 11), sessions("a", 39, 11), 0.2, True),
    ("all ten of a lab of a hundred and ten", sessions("b", 10), sessions("a", 100), 0.2, True),
    ("all of a lab, nothing may be lost", sessions("b", 10), sessions("a", 100), 0.0, True),
    ("ten of a lab that has more", sessions("b", 10), sessions("a", 100) + sessions("b", 1, 10), 0.2, False),
    ("ten in no lab folder of many in labs", sessions("", 10), sessions("a", 100), 0.2, True),
]


@pytest.mark.parametrize(
    ("gone", "staying", "fraction", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_what_is_too_much(gone, staying, fraction, expected):
    assert is_too_much(gone, len(gone) + len(staying), iter(staying), fraction) is expected


def test_labs():
    assert [lab_of(path) for path in ("lab/Subjects/s/2020-01-01/001", "s/2020-01-01/001")] == ["lab", ""]


def test_a_person_is_told_numbers_and_what_to_do():
    text = say_held(Loss(12, 40, 3, "2020-01-01T00:00:00+00:00"))
    assert text.startswith(
        "12 of 40 sessions are gone and 3 are new since 2020-01-01T00:00:00+00:00; their rows are kept"
    )
    assert "alfwatchd rescan --accept-root" in text
    assert "--once --accept-root" in text


def test_a_sample_is_nearly_the_same_one_each_time():
    known = [KnownSession((path,)) for path in sessions("a", 5000)]
    found = sample(known, 100)
    assert len(found) == 100
    assert sample(reversed(known), 100) == found
    fewer = sample(known[:-50], 100)
    assert len(set(fewer) & set(found)) > 90
    assert set(sample(known[:7], 100)) == set(known[:7])


def test_sessions_with_a_known_inode_come_first():
    known = [KnownSession((path,), int(path.startswith("a/Subjects/s1/"))) for path in sessions("a", 50)]
    assert [each.ino for each in sample(known, 2)] == [1, 0]
