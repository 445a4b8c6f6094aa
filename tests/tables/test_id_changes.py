"""Ids that change are told with both ids and the path: without it, an old id in a script or paper leads nowhere."""

import datetime
import uuid
from dataclasses import replace

import pytest

from alfwatchd.alf import ids
from alfwatchd.tables.adoption import adopt
from alfwatchd.tables.id_changes import compare_ids, follow
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from kit.rows import datasets_of, folder_rows, sessions_of

S1 = "s/2020-01-01/001"
E1, D1 = (str(uuid.UUID(int=0xE00 + number, version=4)) for number in range(2))
OWN_EID = str(uuid.UUID(bytes=ids.session_id(S1)))


def own_id(rel_path):
    return str(uuid.UUID(bytes=ids.dataset_id(ids.session_id(S1), rel_path)))


def here(*names):
    return Session(S1, (folder_rows("", {name: pack_signature(7, 2, 3, False) for name in names}),))


def one_session(*datasets):
    return adopt(sessions_of({"id": E1}), datasets_of(*({"eid": E1, "rel_path": "a.b.c", **row} for row in datasets)))


NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def test_changed_ids_are_told_with_path_and_time():
    before = adopt(sessions_of({"id": OWN_EID}), datasets_of({"eid": OWN_EID, "id": own_id("a.b.c")}))
    session = here("a.b.c", "x.y.z")
    rules = TableRules().adopt(one_session({"id": D1}))
    found = compare_ids(before, "", [[(uuid.UUID(E1).bytes, session)]], rules, NOON)
    assert (found.n_sessions, found.n_datasets) == (1, 1)
    assert found.changes.to_pylist() == [
        {"old": OWN_EID, "new": E1, "path": S1, "when": NOON, "reason": "database"},
        {"old": own_id("a.b.c"), "new": D1, "path": f"{S1}/a.b.c", "when": NOON, "reason": "database"},
    ]
    again = compare_ids(one_session({"id": D1}), "", [[(uuid.UUID(E1).bytes, session)]], rules, NOON)
    assert len(again.changes) == 0
    first = compare_ids(None, "", [[(uuid.UUID(E1).bytes, session)]], rules, NOON)
    assert (first.n_sessions, first.n_datasets, len(first.changes)) == (1, 1, 0)


def test_ids_that_change_with_the_lab_setting_are_told():
    # The lab that it fills in decides which sessions of the database are here.
    adoption = adopt(sessions_of({"id": E1, "lab": "lab"}), datasets_of({"eid": E1, "rel_path": "a.b.c", "id": D1}))
    session, rules = here("a.b.c"), TableRules(lab="lab").adopt(adoption)
    before = adopt(sessions_of({"id": OWN_EID}), datasets_of({"eid": OWN_EID, "id": own_id("a.b.c")}))
    found = compare_ids(before, "", [[(uuid.UUID(E1).bytes, session)]], rules, NOON)
    assert [(row["old"], row["new"]) for row in found.changes.to_pylist()] == [(OWN_EID, E1), (own_id("a.b.c"), D1)]


def test_a_row_that_comes_beside_one_that_keeps_its_id_is_no_change_of_it():
    # The setting lab is taken away; the database has a session of that lab, of which nothing is here then.
    adoption = adopt(sessions_of({"id": E1, "lab": "lab"}), datasets_of({"eid": E1, "rel_path": "a.b.c", "id": D1}))
    adoption = replace(adoption, keep_missing=True)
    before = adopt(sessions_of({"id": OWN_EID, "lab": "lab"}), datasets_of({"eid": OWN_EID, "id": own_id("a.b.c")}))
    both = [(uuid.UUID(E1).bytes, Session(f"lab/Subjects/{S1}")), (uuid.UUID(OWN_EID).bytes, here("a.b.c"))]
    for groups in (both, both[::-1]):
        found = compare_ids(before, "lab", [[each] for each in groups], TableRules().adopt(adoption), NOON)
        assert found.changes.to_pylist() == []


def rows_of(*steps):
    return [
        {"old": old, "new": new, "path": "p", "when": NOON + datetime.timedelta(hours=at)} for old, new, at in steps
    ]


# (story, changes as (old, new, hour), id that is asked for, ids that tables hold, where it leads)
CHAINS = [
    ("once", [("a", "b", 0)], "a", "b", ["b"]),
    ("twice", [("a", "b", 0), ("b", "c", 1)], "a", "c", ["b", "c"]),
    ("twice, and the row is gone", [("a", "b", 0), ("b", "c", 1)], "a", "", ["b", "c"]),
    ("from the middle", [("a", "b", 0), ("b", "c", 1)], "b", "c", ["c"]),
    ("never", [("a", "b", 0)], "b", "b", []),
    ("there and back", [("a", "b", 0), ("b", "a", 1)], "b", "a", ["a"]),
    ("and there again", [("a", "b", 0), ("b", "a", 1), ("a", "b", 2)], "a", "b", ["b"]),
    ("of another at the same time", [("a", "b", 0), ("b", "c", 0)], "a", "bc", ["b"]),
    ("told twice, as after a crash", [("a", "b", 0), ("a", "b", 1)], "a", "b", ["b"]),
    ("told and never made, then made otherwise", [("a", "b", 0), ("a", "c", 1)], "a", "c", ["c"]),
    ("told and never made", [("a", "b", 0)], "a", "a", []),
    ("lost to one row, come to another", [("a", "b", 0)], "a", "ab", []),
    ("the second of two is what came to another row", [("a", "b", 0), ("b", "c", 1)], "a", "b", ["b"]),
    ("the clock was set back", [("a", "b", 1), ("b", "c", 0)], "a", "c", ["b", "c"]),
]


@pytest.mark.parametrize(("story", "steps", "old", "held", "expected"), CHAINS, ids=[case[0] for case in CHAINS])
def test_an_id_is_followed_through_all_its_changes(story, steps, old, held, expected):
    assert [step.new for step in follow(rows_of(*steps), old, dict.fromkeys(held, "p"))] == expected


def test_a_change_that_was_told_and_never_made_leads_to_no_other_row():
    """The process was killed between the two, and the database has taken its change back meanwhile."""
    told = rows_of(("a", "b", 0), ("b", "c", 1))
    assert [step.new for step in follow(told, "a", {"b": "p", "c": "q"})] == ["b"]
    assert [step.new for step in follow(told, "a", {"b": "q", "c": "q"})] == ["b", "c"]  # as where folders are renamed


def test_an_id_that_two_rows_had_leads_each_to_its_own():
    """It went from one dataset of a session to another of it; later the database gave both new ones."""
    told = [
        {"old": old, "new": new, "path": path, "when": NOON + datetime.timedelta(hours=at)}
        for old, new, path, at in [("a", "b", "p", 0), ("b", "c", "p", 1), ("b", "d", "q", 2)]
    ]
    held = {"c": "p", "d": "q"}
    assert [step.new for step in follow(told, "a", held)] == ["b", "c"]
    assert [step.new for step in follow(told, "b", held)] == ["d"]  # the last row that had it
    assert [step.new for step in follow(told[1:], "b", held)] == ["d"]
