"""What a reader is told of several changes of one session, and places in a journal as text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.journal.entries import Batch, Cursor, merge, pack_batch, parse_changes, parse_head
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.session_changes import MOST_DATASETS, SessionChange, compare_session
from kit.rows import folder_rows

PATH = "lab/Subjects/s/2020-01-01/001"
SEEN_AT = "2026-01-02T03:04:05.678+00:00"
FILES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 3), max_size=4)
STORIES = st.lists(st.none() | FILES, min_size=3, max_size=6)


def session(sizes):
    """Make a session of file name -> size; None for no session."""
    if sizes is None:
        return None
    files = {f"{name}.b.c": pack_signature(size, 0, 1, False) for name, size in sizes.items()}
    return Session(PATH, tuple(filter(None, [folder_rows("alf", files)])))


def as_told(change):
    return (change.kind, change.n_bytes, change.bytes_after) if change is not None else None


@given(STORIES)
def test_changes_one_after_the_other_come_to_the_change_from_the_first_state_to_the_last(story):
    """A client that reads late must not believe that a session is there which came and went meanwhile."""
    states = [session(each) for each in story]
    if states[0] is None:
        states = states[next((place for place, each in enumerate(states) if each is not None), 0) :]
    changes = [compare_session(PATH, *each) for each in pairwise(states) if any(each)]
    total = None
    for number, change in enumerate(filter(None, changes)):
        total = change if number == 0 or total is None else merge(total, change)
    expected = compare_session(PATH, states[0], states[-1]) if states[0] or states[-1] else None
    if total is None or not expected:
        assert total is None or not expected or as_told(total) == as_told(expected)
        return
    assert as_told(total) == as_told(expected)
    # A dataset that changed and changed back is told as changed: nobody keeps its old size.
    assert {name for name in expected.names if name[0] != "~"} <= {*total.names}
    assert {name for name in total.names if name[0] != "~"} == {name for name in expected.names if name[0] != "~"} or (
        expected.kind == "changed"
    )


def test_a_session_that_came_and_went_is_not_told():
    assert merge(SessionChange(PATH, "added", 1), SessionChange(PATH, "removed", removed=1)) is None


def test_ids_before_and_after_are_kept():
    """A client that knows sessions by their eid drops the old one."""
    first = SessionChange(PATH, columns=("id",), eid="e2", eid_before="e1")
    assert merge(first, SessionChange(PATH, "removed", eid="e2")).eid_before == "e1"
    assert merge(first, SessionChange(PATH, columns=("id",), eid="e3", eid_before="e2")).eid_before == "e1"
    assert not merge(first, SessionChange(PATH, columns=("id",), eid="e1", eid_before="e2")).eid_before


def test_counts_hold_beyond_the_names():
    names = tuple(f"+a{number}.b.c" for number in range(MOST_DATASETS))
    first = SessionChange(PATH, "added", added=5000, names=names)
    both = merge(first, SessionChange(PATH, added=7, names=tuple(f"+x{number}.b.c" for number in range(7))))
    assert (both.kind, both.added, len(both.names)) == ("added", 5007, MOST_DATASETS)


@pytest.mark.parametrize("text", ["7", "0123abcd.7", "0123abcd.7.12"])
def test_a_cursor_is_text_and_back(text):
    assert str(Cursor.parse(text)) == text


@pytest.mark.parametrize("text", ["", "x", "-1", "7.1", "0123abcd.", "0123ABCD.7", "0123abcd.7.1.2", "1" * 40, "٣"])
def test_what_is_no_cursor_is_refused(text):
    with pytest.raises(ValueError, match="is no place in a journal"):
        Cursor.parse(text)


def test_a_batch_is_lines_and_back():
    changes = [
        SessionChange(PATH, "added", 2, names=("+alf/a.b.c", "+\udcff.b.c"), eid="e", n_bytes=3, bytes_after=3),
        SessionChange("s/2020-01-01/002", "removed", removed=1),
    ]
    batch = Batch.of(7, SEEN_AT, changes)
    assert [each.kind for each in batch.changes] == ["removed", "added"]
    head, _, body = pack_batch(batch).partition(b"\n")
    assert parse_changes(parse_head(head + b"\n"), body) == batch


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b'{"generation":1,"seen_at":"","n_changes":0,"n_bytes":0,"crc":0,"labs":{"a":[1]}}',
        b"[]",
        b'"x"',
        b"{}",
        b'{"generation":-1,"seen_at":"","n_changes":0,"n_bytes":0,"crc":0}',
        b"7",
    ],
)
def test_a_damaged_head_is_told(line):
    with pytest.raises(ValueError):
        parse_head(line)


@pytest.mark.parametrize("at", range(0, 200, 7))
def test_a_damaged_batch_is_told(at):
    head, _, body = pack_batch(Batch.of(7, SEEN_AT, [SessionChange(PATH, "added", 2, names=("+a.b.c",))])).partition(
        b"\n"
    )
    at %= len(body)
    damaged = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    with pytest.raises(ValueError, match="is damaged"):
        parse_changes(parse_head(head + b"\n"), damaged)
