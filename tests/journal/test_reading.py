"""Pages of a journal: any way of turning them must lead to the same rows."""

import random
from dataclasses import replace

import pytest

from alfwatchd.journal.entries import Batch, Cursor
from alfwatchd.journal.reading import Extent, make_page
from alfwatchd.tree.session_changes import SessionChange

JOURNAL = "0123abcd"
SEEN_AT = "2026-01-02T03:04:05.678+00:00"


def make_story(chance, n_batches):
    """Return batches, and the state after each generation: path -> eid."""
    state, states, batches = {}, [{}], []
    for generation in range(1, n_batches + 1):
        changes = []
        for path in chance.sample("abcdefgh", chance.randrange(1, 6)):
            eid = state.get(path, "")
            new = f"{generation}{path}"
            if not eid:
                changes.append(SessionChange(path, "added", eid=new))
                state[path] = new
            elif chance.random() < 0.5:
                changes.append(SessionChange(path, "removed", eid=state.pop(path)))
            else:
                changes.append(SessionChange(path, columns=("id",), eid=new, eid_before=eid))
                state[path] = new
        batches.append(Batch.of(generation, SEEN_AT, changes))
        states.append(dict(state))
    return batches, states


def apply(state, page):
    for each in page.told:
        state.pop(each.change.path, None)
        if each.change.kind != "removed":
            state[each.change.path] = each.change.eid


@pytest.mark.parametrize("seed", range(60))
def test_pages_of_any_size_lead_from_any_state_to_the_last(seed):
    chance = random.Random(seed)
    batches, states = make_story(chance, 12)
    extent = Extent(JOURNAL, 0, 12)
    start = chance.randrange(13)
    cursor, state, n_pages = Cursor("", start), dict(states[start]), 0
    while True:
        seen = chance.randrange(max(1, cursor.generation), 13)  # the journal grows while it is read
        page = make_page(extent._replace(last=seen), cursor, batches, chance.randrange(1, 9), lambda _: True)
        assert not page.is_fresh
        assert len({each.change.path for each in page.told}) == len(page.told)
        assert [each.generation for each in page.told] == sorted(each.generation for each in page.told)
        apply(state, page)
        cursor, n_pages = Cursor.parse(str(page.next)), n_pages + 1
        if seen == 12 and page.is_last:
            break
        assert n_pages < 200
    assert state == states[12]


@pytest.mark.parametrize("sums_up", [True, False])
@pytest.mark.parametrize("seed", range(30))
def test_a_reader_may_stop_behind_any_change_and_go_on_there(seed, sums_up):
    chance = random.Random(seed)
    batches, states = make_story(chance, 12)
    extent = Extent(JOURNAL, 0, 12)
    cursor, state, told, n_pages = Cursor("", 0), {}, [], 0
    while cursor.generation < 12:
        page = make_page(extent, cursor, batches, chance.randrange(1, 9), lambda _: True, sums_up=sums_up)
        n_taken = chance.randrange(1, len(page.told) + 1) if n_pages < 50 else len(page.told)
        page = replace(page, told=page.told[:n_taken])
        apply(state, page)
        told += page.told
        cursor, n_pages = Cursor.parse(str(page.told[-1].cursor if page.told else page.next)), n_pages + 1
        assert n_pages < 200
    assert state == states[12]
    if not sums_up:
        assert [(each.generation, each.change) for each in told] == [
            (batch.generation, change) for batch in batches for change in batch.changes
        ]


def test_a_place_in_the_middle_of_a_page_comes_before_what_is_told_behind_it():
    """A reader that goes on there must still hear that the session was added."""
    batches = [
        Batch.of(1, SEEN_AT, [SessionChange("a", "added", eid="1")]),
        Batch.of(2, SEEN_AT, [SessionChange("b", "added", eid="2")]),
        Batch.of(3, SEEN_AT, [SessionChange("a", added=1, names=("+x.y.z",))]),
    ]
    extent = Extent(JOURNAL, 0, 3)
    told = make_page(extent, Cursor("", 0), batches, 9, lambda _: True).told
    assert [(each.change.path, str(each.cursor)) for each in told] == [("b", f"{JOURNAL}.0"), ("a", f"{JOURNAL}.3")]
    again = make_page(extent, told[0].cursor, batches, 9, lambda _: True).told
    assert [(each.change.path, each.change.kind) for each in again] == [("b", "added"), ("a", "added")]


def test_what_is_not_wanted_is_passed_over_and_not_read_again():
    batches, _ = make_story(random.Random(1), 12)
    extent = Extent(JOURNAL, 0, 12)
    page = make_page(extent, Cursor("", 0), batches, 1, lambda change: change.path == "nothing")
    assert (page.told, page.next, page.is_last) == ((), Cursor(JOURNAL, 12), True)


@pytest.mark.parametrize(
    ("since", "is_fresh"),
    [
        (Cursor("", 3), False), (Cursor("", 2), True), (Cursor("", 12), False), (Cursor("", 13), True),
        (Cursor(JOURNAL, 3), False), (Cursor("ffffffff", 3), True),
    ],
)  # fmt: skip
def test_a_reader_from_elsewhere_takes_everything(since, is_fresh):
    batches, _ = make_story(random.Random(1), 12)
    page = make_page(Extent(JOURNAL, 3, 12), since, batches, 100, lambda _: True)
    assert page.is_fresh is is_fresh
    assert page.next == Cursor(JOURNAL, 12)
