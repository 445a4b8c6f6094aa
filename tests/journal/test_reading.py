"""Pages of a journal: any way of turning them must lead to the same rows."""

import random

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
