"""Columns that a person sets: of the rows that are meant, and nothing else changes."""

import uuid

import pytest

from alfwatchd.alf import ids
from alfwatchd.errors import UsageError
from alfwatchd.tables.adoption import adopt
from alfwatchd.tables.columns import datasets_table, sessions_table
from alfwatchd.tables.earlier import EarlierDataset, EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.rules import TableRules
from alfwatchd.tables.set_columns import NewColumns, set_columns
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import datasets_of, earlier, folder_rows, sessions_of

S1, S2 = "lab/Subjects/s/2020-01-01/001", "lab/Subjects/s/2020-01-01/002"
NAMES = ("alf/p0/a.b.c", "alf/p0/d.e.f", "alf/x.y.z", "raw.a.c")
E1, D1 = (str(uuid.UUID(int=number, version=4)) for number in (1, 2))


def session(path):
    folders = {}
    for rel_path in NAMES:
        folder, _, name = rel_path.rpartition("/")
        folders.setdefault(folder, {})[name] = pack_signature(7, 2, 3, False)
    return Session(path, tuple(folder_rows(folder, files) for folder, files in sorted(folders.items())))


HERE = Snapshot(1, {path: session(path) for path in (S1, S2)})


def rows(rules, here=HERE):
    """Return what tables hold of each session, and the qc of each dataset."""
    of_sessions = {row["number"]: row for row in sessions_table(here, rules).to_pylist()}
    numbers = {row["id"]: number for number, row in of_sessions.items()}
    datasets = datasets_table(here, rules).to_pylist()
    return of_sessions, {(numbers[row["eid"]], row["rel_path"]): row["qc"] for row in datasets}, datasets


def test_a_session_gets_what_is_set_and_keeps_its_ids():
    before, _, datasets = rows(TableRules())
    rules, path, n_datasets = set_columns(TableRules(), HERE, S1, NewColumns.of(None, " b, a ,b", "ephys"))
    assert (path, n_datasets) == (S1, 0)
    after, _, same = rows(rules)
    assert after[1] == before[1] | {"projects": "a,b", "task_protocol": "ephys"}
    assert (after[2], same) == (before[2], datasets)
    again, *_ = set_columns(rules, HERE, S1, NewColumns.of(None, "", None))
    assert rows(again)[0][1] == before[1] | {"task_protocol": "ephys"}


@pytest.mark.parametrize(
    ("below", "named"),
    [("", NAMES), ("/alf", NAMES[:3]), ("/alf/p0/", NAMES[:2]), ("/alf/p0/a.b.c", NAMES[:1]), ("//raw.a.c", NAMES[3:])],
)
def test_qc_is_set_of_all_datasets_or_of_those_behind_the_path(below, named):
    rules, _, n_datasets = set_columns(TableRules(), HERE, S1 + below, NewColumns.of("fail", None, None))
    assert n_datasets == len(named)
    assert {each for each, qc in rows(rules)[1].items() if qc != "NOT_SET"} == {(1, name) for name in named}


@pytest.mark.parametrize("path", [S1, f"/{S1}/", f"./{S1}", "lab/s/2020-01-01/001", "lab/Subjects/s/2020-01-01/1"])
@pytest.mark.parametrize(("below", "n"), [("", 4), ("/alf", 3)])
def test_a_session_is_found_by_each_spelling_of_its_path(path, below, n):
    assert set_columns(TableRules(), HERE, path + below, NewColumns.of("PASS", None, None))[1:] == (S1, n)


def test_where_two_folders_are_one_session_the_path_must_say_which():
    """Of an eid, the path in the tables is known: the other folder was set."""
    bare = "s/2020-01-01/001"
    here, rules = Snapshot(1, {each: session(each) for each in (S1, bare)}), TableRules(lab="lab")
    for path in (S1, bare):
        assert set_columns(rules, here, path, NewColumns.of("PASS", None, None))[1] == path
    with pytest.raises(UsageError, match=f"lab/{bare}: {S1} and {bare} are both this session"):
        set_columns(rules, here, f"lab/{bare}", NewColumns.of("PASS", None, None))


def test_a_session_in_no_lab_folder_is_found_with_and_without_the_lab_of_the_setting():
    here, bare = Snapshot(1, {"s/2020-01-01/001": session("s/2020-01-01/001")}), "s/2020-01-01/001"
    for path in (bare, f"mine/{bare}"):
        rules, *_ = set_columns(TableRules(lab="mine"), here, path, NewColumns.of(None, "p", None))
        assert rows(rules, here)[0][1]["projects"] == "p"


def test_what_earlier_tables_know_of_other_columns_stays():
    own_eid, own_id = uuid.UUID(E1).bytes, uuid.UUID(D1).bytes
    key = "lab/s/2020-01-01/001"
    known = earlier({key: EarlierSession(own_eid, "old", "p")}, {key: {"alf/x.y.z": EarlierDataset(own_id, 4)}})
    rules, *_ = set_columns(TableRules(known=KnownColumns.of(known)), HERE, S1, NewColumns.of("PASS", None, "new"))
    of_sessions, qc, datasets = rows(rules)
    assert (of_sessions[1]["id"], of_sessions[1]["task_protocol"], of_sessions[1]["projects"]) == (E1, "new", "p")
    assert {row["id"] for row in datasets} >= {D1}
    assert {qc[1, name] for name in NAMES} == {"PASS"}


def test_what_is_set_stays_when_a_database_comes_that_does_not_know_the_session():
    rules, *_ = set_columns(TableRules(), HERE, S1, NewColumns.of("PASS", "p", None))
    adopted = rules.adopt(adopt(sessions_of({"id": E1, "lab": "lab", "number": 2}), datasets_of()))
    of_sessions, qc, _ = rows(adopted)
    assert (of_sessions[2]["id"], of_sessions[1]["projects"], qc[1, NAMES[0]]) == (E1, "p", "PASS")


ERRORS = [
    ("lab/Subjects/t/2020-01-01/001", ("PASS", None, None), "no session of this path is here"),
    (f"{S1}/alf/p1", ("PASS", None, None), "no dataset here is alf/p1"),
    (f"{S1}/alf", (None, "p", None), "alf: projects and task_protocol belong to the session"),
    (S1, ("GOOD", None, None), "qc=GOOD: is none of NOT_SET, PASS"),
    (S1, (None, None, None), "nothing to set: give qc=..."),
    (S1, ("", None, None), "qc=: is none of .*; qc=NOT_SET removes what was set"),
    (S1, (None, "a,b\tc", None), r"projects=a,b\\tc: has a control character"),
    (S1, (None, None, "a\udcff"), r"task_protocol=a\\udcff: has a control character, or is not valid UTF-8"),
    (S1, (None, None, "a" * 4097), "has 4097 characters; at most 4096"),
    (f"/data/one/{S1}", ("PASS", None, None), "no session of this path is here; give it relative to the root"),
]


@pytest.mark.parametrize(("path", "values", "says"), ERRORS)
def test_what_cannot_be_set_is_said(path, values, says):
    with pytest.raises(UsageError, match=says):
        set_columns(TableRules(), HERE, path, NewColumns.of(*values))


def test_a_session_that_the_database_knows_is_set_there():
    rules = TableRules().adopt(adopt(sessions_of({"id": E1, "lab": "lab"}), datasets_of()))
    with pytest.raises(UsageError, match="the database knows this session"):
        set_columns(rules, HERE, S1, NewColumns.of("PASS", None, None))


def test_ids_still_follow_from_the_path():
    rules, *_ = set_columns(TableRules(), HERE, S1, NewColumns.of("PASS", "p", "t"))
    eid = ids.session_id("lab/s/2020-01-01/001")
    assert rows(rules)[0][1]["id"] == str(uuid.UUID(bytes=eid))
