"""Which rows of a database stand for which files, and what these take from it."""

import uuid
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from alfwatchd.alf import ids
from alfwatchd.tables.adoption import adopt
from alfwatchd.tables.columns import datasets_table, sessions_table
from alfwatchd.tables.earlier import EarlierDataset, EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import datasets_of, earlier, folder_rows, sessions_of

S1, S2 = "s/2020-01-01/001", "s/2020-01-01/002"
E1, E2, D1, D2, D3 = (str(uuid.UUID(int=0xE00 + number, version=4)) for number in range(5))
MD5 = "0123456789abcdef" * 2
OWN_EID = str(uuid.UUID(bytes=ids.session_id(S1)))


def own_id(rel_path, path=S1):
    return str(uuid.UUID(bytes=ids.dataset_id(ids.session_id(path), rel_path)))


def here(*rel_paths, path=S1, size=7, digest=b""):
    folders = {}
    for rel_path in rel_paths:
        folder, _, name = rel_path.rpartition("/")
        folders.setdefault(folder, {})[name] = pack_signature(size, 2, 3, False) + digest
    return Session(path, tuple(folder_rows(folder, files) for folder, files in sorted(folders.items())))


def tables(sessions, adoption, **rules):
    snapshot = Snapshot(1, {session.path: session for session in sessions})
    adopted = TableRules(**rules).adopt(adoption)
    snapshot = adopted.complete(snapshot)
    return sessions_table(snapshot, adopted).to_pylist(), datasets_table(snapshot, adopted).to_pylist()


def one_session(*datasets, **options):
    rows = [{"eid": E1, "rel_path": "a.b.c", **row} for row in datasets]
    return adopt(sessions_of({"id": E1}), datasets_of(*rows), **options)


# --- sessions -------------------------------------------------------------------------------------------------------


def test_what_a_session_takes():
    adoption = adopt(sessions_of({"id": E1, "task_protocol": "ephys", "projects": "a,b"}), datasets_of())
    (row, other), _ = tables([here(), here(path=S2)], adoption)
    first, second = sorted([row, other], key=lambda row: row["number"])
    assert (first["id"], first["task_protocol"], first["projects"]) == (E1, "ephys", "a,b")
    assert (second["id"], second["projects"]) == (str(uuid.UUID(bytes=ids.session_id(S2))), "")


# (story, lab in the database, path here, lab setting, eid)
LABS = [
    ("the same lab", "lab", f"lab/Subjects/{S1}", "", E1),
    ("the setting's lab", "lab", S1, "lab", E1),
    ("no lab on either side", "", S1, "", E1),
    ("another lab", "lab", f"other/Subjects/{S1}", "", None),
    ("no lab here", "lab", S1, "", E1),
    ("no lab there", "", f"lab/Subjects/{S1}", "", None),
    ("differs by case", "Lab", f"lab/Subjects/{S1}", "", None),
    ("another spelling of the number", "", "s/2020-01-01/1", "", E1),
]


@pytest.mark.parametrize(("story", "lab", "path", "setting", "eid"), LABS, ids=[case[0] for case in LABS])
def test_sessions_are_matched_by_lab_subject_date_and_number(story, lab, path, setting, eid):
    adoption = adopt(sessions_of({"id": E1, "lab": lab}), datasets_of())
    session = here(path=path)
    ((row,), _) = tables([session], adoption, lab=setting)
    assert row["id"] == (eid or str(uuid.UUID(bytes=TableRules().given_eid(session))))


def test_two_folders_for_one_session_do_not_share_its_eid():
    adoption = adopt(sessions_of({"id": E1, "lab": "lab"}), datasets_of({"eid": E1, "id": D1}))
    both = [here("a.b.c"), here("a.b.c", path=f"lab/Subjects/{S1}")]
    sessions, datasets = tables(both, adoption, lab="lab")
    eid = ids.session_id(f"lab/{S1}")
    own = str(uuid.UUID(bytes=ids.dataset_id(eid, "a.b.c")))
    assert {row["id"] for row in sessions} == {E1, str(uuid.UUID(bytes=eid))}
    assert {(row["eid"], row["id"]) for row in datasets} == {(E1, D1), (str(uuid.UUID(bytes=eid)), own)}


def lying_in(session_path, **row):
    """Return datasets of E1 that the database tells to lie in a folder."""
    table = datasets_of({"eid": E1, "id": D1, **row})
    return table.append_column("session_path", pa.array([session_path]))


def test_files_that_the_database_tells_to_lie_in_another_folder():
    # Two sessions inside ONE-api: the number, or the lab, of their files' paths is another one than their own.
    adoption = adopt(sessions_of({"id": E1, "number": 2}), lying_in("s/2020-01-01/1"), keep_missing=True)
    for path in (S2, "s/2020-01-01/1", S1):
        ((row,), (dataset,)) = tables([here("a.b.c", path=path)], adoption)
        assert (row["id"], dataset["eid"], dataset["id"], dataset["exists"]) == (E1, E1, D1, True)
    sessions, datasets = tables([here("a.b.c"), here("a.b.c", path=S2)], adoption)
    assert {row["number"]: row["id"] for row in sessions} == {1: OWN_EID, 2: E1}
    assert {row["eid"]: row["id"] for row in datasets} == {OWN_EID: own_id("a.b.c"), E1: D1}


def test_a_folder_of_another_session_is_that_sessions():
    adoption = adopt(sessions_of({"id": E1, "number": 2}, {"id": E2}), lying_in(S1))
    assert [row["id"] for row in tables([here()], adoption)[0]] == [E2]
    assert adopt(sessions_of({"id": E1}), lying_in("no session")).elsewhere == {}


CONTRADICTIONS = [
    (
        "two sessions of one path",
        [{"id": E1}, {"id": E2}],
        [E1, E2],
        f"2 sessions of this path, {E1} (1 datasets) and {E2}",
    ),
    ("neither has datasets", [{"id": E1}, {"id": E2}], [], f"{E1} (0 datasets) and {E2} (0 datasets)"),
    ("two paths of one session", [{"id": E1}, {"id": E1, "number": 2}], [E1], f"2 sessions of this id, {E1}"),
    ("an id that ONE does not take", [{"id": str(uuid.UUID(int=1, version=5))}], [E1], "ONE does not accept"),
]


@pytest.mark.parametrize(("story", "rows", "eids", "message"), CONTRADICTIONS, ids=[case[0] for case in CONTRADICTIONS])
def test_a_database_that_contradicts_itself_is_not_adopted_and_is_told(story, rows, eids, message):
    datasets = [{"eid": eid, "id": D1} for eid in eids]
    adoption = adopt(sessions_of(*rows), datasets_of(*datasets))
    assert len(adoption.conflicts) == len({row.get("number", 1) for row in rows})
    assert message in adoption.conflicts[0].message
    assert (adoption.conflicts[0].session, adoption.conflicts[0].rel_path) == (S1, "")
    ((row,), (dataset,)) = tables([here("a.b.c")], adoption)
    assert (row["id"], dataset["id"]) == (OWN_EID, own_id("a.b.c"))


@pytest.mark.parametrize("order", [[E1, E2], [E2, E1]])
def test_of_two_sessions_of_one_path_the_one_with_all_datasets_is_adopted(order):
    # To register a session twice leaves an empty one in Alyx.
    adoption = adopt(sessions_of(*({"id": eid} for eid in order)), datasets_of({"eid": E1, "id": D1}))
    ((row,), (dataset,)) = tables([here("a.b.c")], adoption)
    assert (row["id"], dataset["id"], adoption.conflicts) == (E1, D1, ())


def test_the_same_row_twice_is_no_contradiction():
    adoption = adopt(sessions_of({"id": E1}, {"id": E1}), datasets_of(*[{"eid": E1, "id": D1}] * 2))
    assert not adoption.conflicts
    ((row,), (dataset,)) = tables([here("a.b.c")], adoption)
    assert (row["id"], dataset["id"]) == (E1, D1)


def test_a_session_in_no_lab_folder_is_that_of_the_only_lab_which_has_it():
    # A server that two labs share has no lab folders: what has the lab in its row, One cannot load there.
    rows = [{"id": E1, "lab": "labA"}, {"id": E2, "lab": "labB", "subject": "t"}]
    adoption = adopt(sessions_of(*rows), datasets_of({"eid": E1, "id": D1}, {"eid": E2, "id": D2}))
    sessions, datasets = tables([here("a.b.c"), here("a.b.c", path="t/2020-01-01/001")], adoption)
    assert {row["subject"]: (row["id"], row["lab"]) for row in sessions} == {"s": (E1, ""), "t": (E2, "")}
    assert {(row["eid"], row["id"]) for row in datasets} == {(E1, D1), (E2, D2)}


@pytest.mark.parametrize("others", [[{"id": E2}], [{"id": E2}, {"id": D3}]], ids=["once", "in a conflict"])
def test_a_session_in_no_lab_folder_is_nobodys_where_two_labs_have_it(others):
    rows = [{"id": E1, "lab": "labA"}, *({"lab": "labB", **other} for other in others)]
    (row,), _ = tables([here()], adopt(sessions_of(*rows), datasets_of()))
    assert row["id"] == OWN_EID


# --- datasets -------------------------------------------------------------------------------------------------------


def test_what_a_dataset_takes():
    adoption = one_session({"id": D1, "qc": "FAIL", "hash": MD5, "file_size": 7})
    (row,) = tables([here("a.b.c", size=7)], adoption)[1]
    assert (row["eid"], row["id"], row["qc"], row["hash"], row["exists"]) == (E1, D1, "FAIL", MD5, True)


def test_a_hash_is_taken_where_the_size_agrees_or_is_not_told():
    (row,) = tables([here("a.b.c", size=8)], one_session({"id": D1, "hash": MD5, "file_size": 7}))[1]
    assert (row["id"], row["file_size"], row["hash"]) == (D1, 8, None)
    (row,) = tables([here("a.b.c", size=7)], one_session({"id": D1, "hash": MD5, "file_size": None}))[1]
    assert row["hash"] == MD5


def test_where_files_are_hashed_here_a_hash_that_is_not_known_yet_is_not_the_databases():
    """A file that was rewritten with equal size, and is hashed just now, had the hash of its old content."""
    database = one_session({"id": D1, "hash": MD5}, {"id": D2, "rel_path": "gone.b.c", "hash": MD5})
    (row,) = tables([here("a.b.c")], database, with_hashes=True)[1]
    assert (row["id"], row["hash"]) == (D1, None)


def test_a_hash_that_was_computed_here_wins():
    own = bytes(range(16))
    (row,) = tables([here("a.b.c", digest=own)], one_session({"id": D1, "hash": MD5}), with_hashes=True)[1]
    assert row["hash"] == own.hex()


def test_a_dataset_that_the_database_does_not_know_keeps_its_id_when_its_session_is_adopted():
    rows = tables([here("a.b.c", "x.y.z")], one_session({"id": D1}))[1]
    assert {row["rel_path"]: (row["eid"], row["id"]) for row in rows} == {
        "a.b.c": (E1, D1),
        "x.y.z": (E1, own_id("x.y.z")),
    }


def test_datasets_of_sessions_that_are_not_known_are_not_adopted():
    adoption = adopt(sessions_of({"id": E1}), datasets_of({"eid": E2, "id": D1}, {"eid": None, "id": D2}))
    (row,) = tables([here("a.b.c")], adoption)[1]
    assert (row["eid"], row["id"]) == (E1, own_id("a.b.c"))


def test_one_id_for_two_datasets_stays_so():
    # In the fixtures of ONE-api, one dataset has two paths.
    rows = tables([here("a.b.c", "x/a.b.c", "y.y.y")], one_session({"id": D1}, {"id": D1, "rel_path": "x/a.b.c"}))[1]
    assert {row["rel_path"]: row["id"] for row in rows} == {"a.b.c": D1, "x/a.b.c": D1, "y.y.y": own_id("y.y.y")}


def test_two_ids_for_one_dataset_are_reported_and_neither_is_taken():
    adoption = one_session({"id": D1}, {"id": D2}, {"id": D3, "rel_path": "x.y.z"})
    (conflict,) = adoption.conflicts
    assert conflict[:2] == (S1, "a.b.c")
    assert D1 in conflict.message
    assert D2 in conflict.message
    rows = tables([here("a.b.c", "x.y.z")], adoption)[1]
    assert {row["rel_path"]: row["id"] for row in rows} == {"a.b.c": own_id("a.b.c"), "x.y.z": D3}


def named(uuid_text, name="spikes.times", ext="npy"):
    return f"alf/{name}.{uuid_text}.{ext}"


# (story, rel_paths here, rows there as (rel_path, id), ids that are taken, None for own)
UUIDS = [
    ("here", [named(D1)], [("alf/spikes.times.npy", D1)], [D1]),
    ("there", ["alf/spikes.times.npy"], [(named(D1), D1)], [D1]),
    ("on both sides", [named(D1)], [(named(D1), D1)], [D1]),
    ("here it is that of another dataset", [named(D2)], [("alf/spikes.times.npy", D1)], [None]),
    ("two here, of which one is it", [named(D1), named(D2)], [("alf/spikes.times.npy", D1)], [D1, None]),
    ("one with and one without here", ["alf/spikes.times.npy", named(D1)], [("alf/spikes.times.npy", D1)], [D1, None]),
    ("two there, and none says which", ["alf/spikes.times.npy"], [(named(D1), D1), (named(D2), D2)], [None]),
    ("two there, and the name says which", [named(D2)], [(named(D1), D1), (named(D2), D2)], [D2]),
    ("another folder", ["raw/spikes.times.npy"], [(named(D1), D1)], [None]),
    ("another extension", [named(D1, ext="csv")], [("alf/spikes.times.npy", D1)], [None]),
]


@pytest.mark.parametrize(("story", "paths", "rows", "expected"), UUIDS, ids=[case[0] for case in UUIDS])
def test_a_uuid_in_the_file_name(story, paths, rows, expected):
    adoption = one_session(*({"rel_path": rel_path, "id": own} for rel_path, own in rows))
    found = {row["rel_path"]: row["id"] for row in tables([here(*paths)], adoption)[1]}
    assert found == {path: own or own_id(path) for path, own in zip(paths, expected, strict=True)}


# --- default revisions ----------------------------------------------------------------------------------------------

OLD, NEW = "#2020-01-01#/a.b.c", "#2021-01-01#/a.b.c"
# (story, what is here, what the database says of each, which is the default)
REVISIONS = [
    ("the newest, as without a database", [OLD, NEW], {OLD: None, NEW: None}, NEW),
    ("what the database says", [OLD, NEW], {OLD: True, NEW: False}, OLD),
    ("what the database says, of what has none", ["a.b.c", NEW], {"a.b.c": True, NEW: False}, "a.b.c"),
    ("says none", [OLD, NEW], {OLD: False, NEW: False}, NEW),
    ("says both", [OLD, NEW], {OLD: True, NEW: True}, NEW),
    ("says one that is not here", [NEW], {OLD: True, NEW: False}, NEW),
    ("knows not all of them", [OLD, NEW], {OLD: True}, OLD),
]


@pytest.mark.parametrize(("story", "paths", "said", "default"), REVISIONS, ids=[case[0] for case in REVISIONS])
@pytest.mark.parametrize("keep_missing", [False, True])
def test_exactly_one_revision_is_the_default_and_the_database_chooses(story, paths, said, default, keep_missing):
    rows = [
        {"rel_path": path, "id": own, "default_revision": is_default}
        for (path, is_default), own in zip(said.items(), (D1, D2), strict=False)
    ]
    found = tables([here(*paths)], one_session(*rows, keep_missing=keep_missing))[1]
    assert [row["rel_path"] for row in found if row["default_revision"]] == [default]


# --- rows whose file is not here ------------------------------------------------------------------------------------


def test_rows_whose_file_is_not_here_are_left_out_or_kept():
    known = sessions_of({"id": E1}, {"id": E2, "number": 2, "projects": "p"}, {"id": D3, "number": 3})
    rows = [
        {"eid": E1, "id": D1, "rel_path": "x.y.z", "file_size": 9, "hash": MD5, "qc": "PASS"},
        {"eid": E2, "id": D2, "rel_path": "a.b.c", "file_size": None},
    ]
    sessions, datasets = tables([here("a.b.c")], adopt(known, datasets_of(*rows)))
    assert [row["id"] for row in sessions] == [E1]
    assert [row["rel_path"] for row in datasets] == ["a.b.c"]
    sessions, datasets = tables([here("a.b.c")], adopt(known, datasets_of(*rows), keep_missing=True))
    assert [(row["id"], row["projects"]) for row in sessions] == [(E1, ""), (E2, "p")]
    told = {(row["eid"], row["rel_path"]): (row["exists"], row["id"], row["file_size"], row["qc"]) for row in datasets}
    assert told == {
        (E1, "a.b.c"): (True, own_id("a.b.c"), 7, "NOT_SET"),
        (E1, "x.y.z"): (False, D1, 9, "PASS"),
        (E2, "a.b.c"): (False, D2, 0, "NOT_SET"),
    }


def test_what_one_could_not_open_is_not_kept():
    known = sessions_of({"id": E1}, {"id": E2, "subject": "no subject"})
    paths = ["no.dataset", "../a.b.c", "/a.b.c", "alf//a.b.c", "alf/./a.b.c", "alf/a.b\0.c", ""]
    rows = [{"eid": E1, "id": D1, "rel_path": path} for path in paths]
    rows.append({"eid": E2, "id": D2, "rel_path": "a.b.c"})
    adoption = adopt(known, datasets_of(*rows), keep_missing=True)
    assert tables([], adoption) == (tables([here()], adoption)[0], [])


# --- together with what was there -----------------------------------------------------------------------------------


def test_the_database_wins_over_earlier_tables_and_other_rows_keep_what_they_had():
    before = earlier(
        {S1: EarlierSession(uuid.UUID(E2).bytes, "old", "old"), S2: EarlierSession(None, "mine", "")},
        {
            S1: {
                "a.b.c": EarlierDataset(uuid.UUID(D2).bytes, 3),
                "x.y.z": EarlierDataset(uuid.UUID(D3).bytes, 1),
            }
        },
    )
    rules = TableRules(known=KnownColumns.of(before)).adopt(one_session({"id": D1, "qc": "PASS"}))
    snapshot = Snapshot(1, {S1: here("a.b.c", "x.y.z"), S2: here(path=S2)})
    sessions = {row["number"]: row for row in sessions_table(snapshot, rules).to_pylist()}
    assert (sessions[1]["id"], sessions[1]["task_protocol"], sessions[2]["task_protocol"]) == (E1, "", "mine")
    datasets = {row["rel_path"]: row for row in datasets_table(snapshot, rules).to_pylist()}
    assert (datasets["a.b.c"]["id"], datasets["a.b.c"]["qc"]) == (D1, "PASS")
    assert (datasets["x.y.z"]["id"], datasets["x.y.z"]["qc"]) == (D3, "PASS")
    assert [*rules.known.rest.datasets[S1]] == ["x.y.z"]


def test_equal_content_has_an_equal_digest_and_other_content_another():
    made = [
        one_session({"id": D1}),
        one_session({"id": D1}),
        one_session({"id": D2}),
        one_session({"id": D1, "qc": "PASS"}),
        one_session({"id": D1, "rel_path": "x.y.z"}),
        one_session({"id": D1}, keep_missing=True),
        adopt(sessions_of({"id": E1, "projects": "p"}), datasets_of({"eid": E1, "id": D1})),
    ]
    digests = [adoption.digest for adoption in made]
    assert digests[0] == digests[1]
    assert len(set(digests)) == len(made) - 1


def test_empty_tables_change_nothing():
    adoption = adopt(pa.table({}), pa.table({}))
    assert tables([here("a.b.c")], adoption)[1][0]["id"] == own_id("a.b.c")
    assert not adoption.conflicts


# --- many at once ---------------------------------------------------------------------------------------------------


def test_many_sessions_at_once_get_what_each_gets_alone():
    # Rows are looked up all together: neighbours must not mix.
    generator = np.random.default_rng(7)
    known, rows, sessions = [], [], []
    for number in range(1, 40):
        eid = str(uuid.UUID(int=number, version=4))
        names = [f"a{n}.b.c" for n in range(12) if generator.random() < 0.6]
        sessions.append(here(*[name for name in names if generator.random() < 0.7], path=f"s/2020-01-01/{number:03d}"))
        if number % 3:
            known.append({"id": eid, "number": number})
            rows += [
                {"eid": eid, "rel_path": name, "id": str(uuid.UUID(int=1000 * number + n, version=4))}
                for n, name in enumerate(names)
            ]
    adoption = adopt(sessions_of(*known), datasets_of(*rows))
    together = {(row["eid"], row["rel_path"]): row["id"] for row in tables(sessions, adoption)[1]}
    alone = {}
    for session in sessions:
        alone |= {(row["eid"], row["rel_path"]): row["id"] for row in tables([session], adoption)[1]}
    expected = {(row["eid"], row["rel_path"]): row["id"] for row in rows}
    assert together == alone
    assert {key: own for key, own in together.items() if key in expected} == {
        key: own for key, own in expected.items() if key in together
    }


# --- beside what earlier tables know --------------------------------------------------------------------------------


def test_the_twin_of_an_adopted_file_keeps_its_id_and_qc():
    """The database has the file with a UUID in its name; the plain one beside it is another file."""
    named = f"a.b.{D1}.c"
    before = earlier({}, {S1: {"a.b.c": EarlierDataset(uuid.UUID(D2).bytes, 3)}})
    adoption = one_session({"rel_path": named, "id": D1})
    _, rows = tables([here(named, "a.b.c")], adoption, known=KnownColumns.of(before))
    assert {row["rel_path"]: (row["id"], row["qc"]) for row in rows} == {named: (D1, "NOT_SET"), "a.b.c": (D2, "FAIL")}


def test_what_the_database_has_under_another_name_is_known_once():
    """Tables of before hold the id that the database gave: it need not be kept a second time."""
    before = earlier({}, {S1: {f"a.b.{D1}.c": EarlierDataset(uuid.UUID(D1).bytes, 0)}})
    adoption = one_session({"rel_path": "a.b.c", "id": D1})
    assert not KnownColumns.of(before, adoption).rest.shows


def test_a_session_that_is_adopted_whole_gets_nothing_of_an_older_lab():
    older, newer = f"L1/{S1}", f"L2/{S1}"
    rows = {older: {"a.c.d": EarlierDataset(uuid.UUID(D3).bytes, 3)}, newer: {"a.b.c": EarlierDataset(None, 1)}}
    before = replace(earlier({}, rows), lab="L2", other_labs=("L1",))
    adoption = adopt(sessions_of({"id": E1, "lab": "L2"}), datasets_of({"eid": E1, "rel_path": "a.b.c", "id": D1}))
    _, found = tables([here("a.b.c", "a.c.d")], adoption, known=KnownColumns.of(before), lab="L2")
    assert {row["rel_path"]: row["qc"] for row in found} == {"a.b.c": "NOT_SET", "a.c.d": "NOT_SET"}
