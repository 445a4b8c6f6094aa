"""What is noted of rows that go, and what becomes of it when they are there again."""

import uuid
from dataclasses import replace

import pytest

from alfwatchd.alf import ids
from alfwatchd.tables.adoption import adopt
from alfwatchd.tables.earlier import NO_DATASET, NO_SESSION, NOTHING_EARLIER, EarlierDataset, EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.notes import Note, has_earlier, note_all, note_changes, with_notes
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import datasets_of, earlier, folder_rows, sessions_of

PATH = "s/2020-01-01/001"
EID, OTHER, OWN = (uuid.UUID(int=number, version=4).bytes for number in (1, 2, 3))
ROWS = {
    "alf/a.b.c": EarlierDataset(OWN, 3),
    "alf/d.e.f": EarlierDataset(None, 1),
}
COLUMNS = EarlierSession(EID, "protocol", "p,q")
EARLIER = earlier({PATH: COLUMNS}, {PATH: ROWS})
NOTED = {"alf/a.b.c": replace(NO_DATASET, id=OWN, qc=3), "alf/d.e.f": replace(NO_DATASET, qc=1)}


def here(*rel_paths, path=PATH):
    files = {name.rpartition("/")[2]: pack_signature(7, 1, 2, False) for name in rel_paths}
    return Session(path, tuple(filter(None, [folder_rows("alf", files)])))


def rows(*sessions):
    return Snapshot(1, {session.path: session for session in sessions})


# (story, what is here, notes)
STORIES = [
    ("all is here", rows(here(*ROWS)), []),
    ("the session went", rows(), [Note(PATH, "", COLUMNS, NOTED)]),
    ("a dataset went", rows(here("alf/a.b.c")), [Note(PATH, "", NO_SESSION, {"alf/d.e.f": NOTED["alf/d.e.f"]})]),
    ("all datasets went", rows(here()), [Note(PATH, "", NO_SESSION, NOTED)]),
    ("under another spelling", rows(here(*ROWS, path="s/2020-01-01/1")), []),
]


@pytest.mark.parametrize(("story", "snapshot", "notes"), STORIES, ids=[case[0] for case in STORIES])
def test_what_is_noted(story, snapshot, notes):
    rules = TableRules(known=KnownColumns.of(EARLIER))
    assert list(note_all(snapshot, rules)) == notes
    gone = [] if snapshot.sessions else [(EID, here(*ROWS))]
    assert list(note_changes(gone, snapshot.sessions.values(), {}, rules)) == notes


def test_where_tables_knew_nothing_there_is_nothing_to_note():
    assert list(note_all(rows(), TableRules())) == []
    assert list(note_changes([(EID, here())], [here()], {}, TableRules())) == []


def test_an_id_that_was_given_in_this_run_is_noted():
    second = next(eid for number, eid in enumerate(ids.session_ids(PATH)) if number)
    for lab, key in (("", PATH), ("lab", f"lab/{PATH}")):
        notes = list(note_changes([(second, here())], [], {PATH: second}, TableRules(lab=lab)))
        assert notes == [Note(key, lab, EarlierSession(second, "", ""), {})]
        found = with_notes(NOTHING_EARLIER, notes, {}, {})
        for now in ("", "lab", "other"):
            assert TableRules(lab=now, known=KnownColumns.of(found)).claim(here()).earlier == second


def test_what_a_database_knows_better_is_noted_of_sessions():
    rules = TableRules(known=KnownColumns.of(EARLIER)).adopt(
        adopt(sessions_of({"id": str(uuid.UUID(bytes=OTHER))}), datasets_of())
    )
    assert list(note_all(rows(here(*ROWS)), rules)) == [Note(PATH, "", COLUMNS, {})]


NOTE = Note(PATH, "", COLUMNS, NOTED)


def test_what_tables_list_counts_more_than_notes():
    assert with_notes(NOTHING_EARLIER, [NOTE], {PATH: {"alf/a.b.c"}}, {}) == earlier(
        {}, {PATH: {"alf/d.e.f": NOTED["alf/d.e.f"]}}, is_noted=True
    )
    newer = earlier({PATH: EarlierSession(OTHER, "", "")}, {})
    assert with_notes(newer, [NOTE], {PATH: {*ROWS}}, {}) == newer


def test_the_latest_note_counts_and_datasets_add_up():
    later = Note(PATH, "", EarlierSession(OTHER, "", ""), {"alf/a.b.c": replace(NO_DATASET, qc=4)})
    found = with_notes(NOTHING_EARLIER, [NOTE, later], {}, {})
    assert found.sessions == {PATH: later.session}
    assert found.datasets == {PATH: {**NOTED, **later.datasets}}


def eid_and_ids(found, lab=""):
    known = KnownColumns.of(found)
    rows = known.earlier_datasets(here().key)
    return TableRules(lab=lab, known=known).claim(here()).earlier, {path: row.id for path, row in rows.items()}


# (story, lab then, lab in the tables, datasets that these list by key, what notes give the session: eid and ids)
LABS = [
    ("it is away", "lab", "", {}, (EID, {"alf/a.b.c": OWN, "alf/d.e.f": None})),
    ("it is listed without a lab", "lab", "", {PATH: {"alf/a.b.c"}}, (None, {"alf/d.e.f": None})),
    ("it is listed with a lab", "", "lab", {f"lab/{PATH}": {"alf/a.b.c"}}, (None, {"alf/d.e.f": None})),
    ("with another lab", "lab", "new", {f"new/{PATH}": {"alf/a.b.c"}}, (None, {"alf/d.e.f": None})),
    ("as what only a database knows, too", "lab", "", {f"lab/{PATH}": set(), PATH: {"alf/a.b.c"}}, (None, {})),
]


@pytest.mark.parametrize(("story", "then", "now", "listed", "expected"), LABS, ids=[case[0] for case in LABS])
def test_after_the_lab_has_changed_notes_change_no_listed_row(story, then, now, listed, expected):
    """Ids in tables would change without any cause, a run later than the lab, and without a record."""
    note = replace(NOTE, key=f"{then}/{PATH}" if then else PATH, lab=then)
    found = with_notes(earlier({}, {}, now), [note], listed, {})
    assert eid_and_ids(found, now) == expected


def test_of_a_session_with_another_eid_that_a_database_had_only_the_eid_is_noted():
    """Ids of its datasets that do not come from the database stay."""
    tables = earlier({}, {f"lab/{PATH}": ROWS}, "lab")
    note = replace(NOTE, key=f"lab/{PATH}", lab="lab", datasets={})
    found = with_notes(tables, [note], {f"lab/{PATH}": {*ROWS}}, {}, {f"lab/{PATH}"})
    assert (found.sessions, found.datasets) == ({f"lab/{PATH}": COLUMNS}, tables.datasets)


@pytest.mark.parametrize(("holder", "eid"), [({}, EID), ({EID: PATH}, EID), ({EID: "t/2020-01-01/001"}, None)])
def test_an_eid_that_another_session_has_meanwhile_does_not_come_back(holder, eid):
    found = with_notes(NOTHING_EARLIER, [NOTE], {}, holder)
    assert found.sessions[PATH] == replace(COLUMNS, eid=eid)


# (story, what earlier tables knew, what is here, whether the next run must read the tables)
SHOWN = [
    ("nothing", NOTHING_EARLIER, rows(here()), False),
    ("of earlier tables", EARLIER, rows(), True),
    ("notes, and it is away", replace(EARLIER, is_noted=True), rows(), False),
    ("notes, and it is back", replace(EARLIER, is_noted=True), rows(here()), True),
    ("likewise, spelled otherwise", replace(EARLIER, is_noted=True), rows(here(path="s/2020-01-01/1")), True),
    (
        "of a lab that the setting gave",
        earlier({f"lab/{PATH}": COLUMNS}, {}, other_labs=("lab",), is_noted=True), rows(here()), True,
    ),
    ("in a lab", earlier({f"lab/{PATH}": COLUMNS}, {}, is_noted=True), rows(here(path=f"lab/Subjects/{PATH}")), True),
    ("another session", replace(EARLIER, is_noted=True), rows(here(path="t/2020-01-01/001")), False),
]  # fmt: skip


@pytest.mark.parametrize(("story", "known", "snapshot", "shows"), SHOWN, ids=[case[0] for case in SHOWN])
def test_the_next_run_reads_tables_only_where_they_hold_what_nothing_else_does(story, known, snapshot, shows):
    assert has_earlier(snapshot, TableRules(known=KnownColumns.of(known)), {}) is shows
    assert has_earlier(snapshot, TableRules(known=KnownColumns.of(known)), {PATH: EID})


def test_what_a_person_removed_does_not_come_back_with_an_older_note():
    """The path came back once more, and its qc was FAIL again."""
    old = Note(PATH, "", EarlierSession(None, "", "p"), {"alf/a.b.c": EarlierDataset(None, 3)})
    removed = earlier({PATH: NO_SESSION}, {PATH: {"alf/a.b.c": NO_DATASET}})
    rules = TableRules(known=KnownColumns.of(removed))
    [note] = note_all(rows(here("alf/a.b.c")), rules)
    assert note == Note(PATH, "", NO_SESSION, {"alf/a.b.c": NO_DATASET}, is_removed=True)
    found = with_notes(NOTHING_EARLIER, [old, note], {}, {})
    assert (found.sessions, dict(found.datasets)) == ({}, {PATH: {"alf/a.b.c": NO_DATASET}})
    assert with_notes(NOTHING_EARLIER, [old, note, old], {}, {}).sessions == {PATH: old.session}, "set again"


@pytest.mark.parametrize("key", [PATH, f"lab/{PATH}"])
def test_what_a_person_removed_is_removed_under_each_spelling_of_the_session(key):
    old, removed = (Note(each, "lab", columns, {}) for each, columns in ((PATH, COLUMNS), (key, NO_SESSION)))
    tables = earlier(lab="lab")
    assert with_notes(tables, [old, replace(removed, is_removed=True)], {}, {}).sessions == {}


def test_what_a_person_set_after_the_removal_stays():
    """The tables list it, so an older note of the removal does not count."""
    tables = earlier({PATH: EarlierSession(None, "", "b")}, {})
    removed = Note(PATH, "", NO_SESSION, {}, is_removed=True)
    assert with_notes(tables, [removed], {PATH: set()}, {}).sessions == tables.sessions
