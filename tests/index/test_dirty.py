"""When a dirty folder is looked at: no change is forgotten, and one that keeps changing does not wait for ever."""

import pytest

from alfwatchd.index.dirty import DirtyMark, DirtySet
from alfwatchd.watch.events import FolderEvents

SETTLE, LONGEST = 2.0, 10.0


def dirty_set(marks=(), settle=SETTLE, longest_wait=LONGEST):
    dirty = DirtySet(settle, longest_wait)
    for folder, now in marks:
        dirty.mark(folder, now)
    return dirty


def popped(dirty, now):
    return [folder for folder, _ in dirty.pop_due(now)]


EVERY_SECOND = [("a", float(second)) for second in range(20)]

# (name, marks, clock -> folders that are popped then)
CASES = [
    ("nothing is dirty", [], [(0.0, []), (1e9, [])]),
    ("one event settles", [("a", 5.0)], [(5.0, []), (6.9, []), (7.0, ["a"]), (99.0, [])]),
    ("a second event starts the settle time again", [("a", 0.0), ("a", 1.5)], [(2.0, []), (3.4, []), (3.5, ["a"])]),
    ("a folder written without pause is looked at", EVERY_SECOND[:10], [(9.9, []), (10.0, ["a"])]),
    ("and not only when the events end", EVERY_SECOND, [(10.0, ["a"])]),
    ("folders settle on their own", [("a", 0.0), ("b", 1.0)], [(2.0, ["a"]), (2.9, []), (3.0, ["b"])]),
    ("the oldest comes first", [("b", 0.0), ("a", 0.5), ("c", 1.0)], [(50.0, ["b", "a", "c"])]),
    ("oldest by its first event", [("b", 0.0), ("a", 0.5), ("b", 1.0)], [(50.0, ["b", "a"])]),
    ("what waited longest comes first", [("a", 0.0), ("b", 7.0), ("a", 9.0)], [(10.5, ["a", "b"])]),
    ("none is left behind", [("a", 0.0), ("b", 0.1), ("a", 0.2)], [(2.2, ["a", "b"]), (1e9, [])]),
    ("the later one may settle first", [("a", 0.0), ("b", 0.5), ("a", 1.9)], [(2.5, ["b"]), (3.9, ["a"])]),
]


@pytest.mark.parametrize(("name", "marks", "steps"), CASES, ids=[case[0] for case in CASES])
def test_when_folders_are_due(name, marks, steps):
    dirty = dirty_set(marks)
    assert [(now, popped(dirty, now)) for now, _ in steps] == steps


def test_a_longest_wait_below_the_settle_time_rules():
    dirty = dirty_set([("a", 0.0)], settle=5.0, longest_wait=1.0)
    assert dirty.next_due() == 1.0
    assert popped(dirty, 1.0) == ["a"]


def test_an_event_after_the_look_counts_again():
    dirty = dirty_set([("a", 0.0), ("a", 9.0)])
    assert popped(dirty, 10.0) == ["a"]
    dirty.mark("a", 10.5)
    assert (dirty.oldest, dirty.next_due()) == (10.5, 12.5)
    assert popped(dirty, 12.0) == []
    assert popped(dirty, 12.5) == ["a"]


@pytest.mark.parametrize(
    ("marks", "next_due", "oldest"),
    [
        ([], None, None),
        ([("a", 3.0)], 5.0, 3.0),
        ([("a", 3.0), ("a", 4.0)], 6.0, 3.0),
        ([("a", 0.0), ("b", 1.0), ("a", 2.5)], 3.0, 0.0),
        ([("a", 0.0), ("b", 1.0), ("a", 9.5), ("b", 9.9)], 10.0, 0.0),
        ([("a", 0.0), ("b", 1.0), ("c", 7.5), ("a", 9.5), ("b", 9.9)], 9.5, 0.0),
        ([("a", 0.0), ("a", 9.5)], 10.0, 0.0),
    ],
)
def test_next_due_and_oldest(marks, next_due, oldest):
    dirty = dirty_set(marks)
    assert (dirty.next_due(), dirty.oldest) == (next_due, oldest)


def test_next_due_is_exactly_when_something_is_popped():
    dirty = dirty_set([("a", 0.1), ("b", 0.2), ("a", 0.3)])
    while (due := dirty.next_due()) is not None:
        assert popped(dirty, due - 1e-6) == []
        assert popped(dirty, due)
    assert len(dirty) == 0


def test_pop_all_takes_what_is_not_due_too():
    dirty = dirty_set([("b", 0.0), ("a", 1.0)])
    assert [folder for folder, _ in dirty.pop_all()] == ["b", "a"]
    assert (len(dirty), dirty.oldest, dirty.next_due(), dirty.pop_all()) == (0, None, None, [])
    dirty.mark("c", 2.0)
    assert [folder for folder, _ in dirty.pop_all()] == ["c"]


def test_membership_follows_marks():
    dirty = dirty_set([("a", 0.0), ("a", 0.5), ("b", 1.0)])
    assert ("a" in dirty, "b" in dirty, "c" in dirty, len(dirty)) == (True, True, False, 2)
    dirty.pop_due(2.5)
    assert ("a" in dirty, "b" in dirty, len(dirty)) == (False, True, 1)


def test_a_mark_gathers_what_to_look_at_until_it_is_popped():
    dirty = dirty_set()
    dirty.mark("a", 0.0).names.add("x.y.z")
    dirty.mark("a", 1.0).rewritten.add("u.v.w")
    ((folder, mark),) = dirty.pop_due(3.0)
    assert (folder, mark.first, mark.last, mark.listing) == ("a", 0.0, 1.0, False)
    assert (mark.names, mark.rewritten) == ({"x.y.z"}, {"u.v.w"})
    fresh = dirty.mark("a", 4.0)
    assert (fresh.first, fresh.names, fresh.rewritten) == (4.0, set(), set())


def test_a_listing_stays_asked_for():
    dirty = dirty_set()
    dirty.mark_listing(["a", "b"], 0.0)
    dirty.mark("a", 1.0).names.add("x.y.z")
    assert [(folder, mark.listing) for folder, mark in dirty.pop_all()] == [("a", True), ("b", True)]
    assert dirty.mark("a", 2.0).listing is False


# (files of which events told, and those of them of which only attributes changed), in batches; what is left
BATCHES = [
    ([("ab", "a")], "a"),
    ([("a", "a"), ("a", "a")], "a"),
    ([("a", ""), ("a", "a")], ""),
    ([("a", "a"), ("a", "")], ""),
    ([("a", "a"), ("a", ""), ("a", "a")], ""),
    ([("a", "a"), ("b", "b")], "ab"),
    ([("a", "a"), ("b", ""), ("c", "c")], "ac"),
]


@pytest.mark.parametrize(("batches", "left"), BATCHES)
def test_only_files_of_which_no_event_told_more_have_other_attributes_alone(batches, left):
    mark = DirtyMark(1.0, 1.0)
    for names, attributes in batches:
        mark.note(FolderEvents(set(names), set(), attributes=set(attributes)))
    assert mark.attributes == set(left)
    assert mark.names == {name for names, _ in batches for name in names}
