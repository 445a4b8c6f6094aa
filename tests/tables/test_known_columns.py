"""What a database and earlier tables know together: which of them counts, and under which key."""

import uuid
from dataclasses import replace

import pytest

from alfwatchd.tables.adoption import NO_ADOPTION, adopt
from alfwatchd.tables.earlier import NO_SESSION, EarlierDataset, EarlierSession
from alfwatchd.tables.known_columns import NOTHING_KNOWN, KnownColumns
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.rows import Session
from kit.rows import datasets_of, earlier, sessions_of

S1, S2 = "s/2020-01-01/001", "s/2020-01-01/002"
E1, D1, D2, D3 = (str(uuid.UUID(int=number, version=4)) for number in range(1, 5))
OWN = uuid.UUID(int=9, version=4).bytes


def raw(text):
    return uuid.UUID(text).bytes


def database(*rel_paths, **session):
    rows = [{"eid": E1, "rel_path": path, "id": own} for path, own in zip(rel_paths, (D1, D2, D3), strict=False)]
    return adopt(sessions_of({"id": E1, **session}), datasets_of(*rows))


def key(path=S1):
    return Session(path).key


BEFORE = earlier(
    {S1: EarlierSession(OWN, "old", ""), S2: EarlierSession(OWN, "", "p")},
    {S1: {"a.b.c": EarlierDataset(raw(D3), 3), "x.y.z": EarlierDataset(None, 4)}},
)


def test_without_a_database_all_that_earlier_tables_know_counts():
    known = KnownColumns.of(BEFORE)
    assert known.rest is BEFORE
    assert known.earlier_session(key()) == BEFORE.sessions[S1]
    assert known.earlier_datasets(key()) == BEFORE.datasets[S1]
    assert NOTHING_KNOWN.earlier_session(key()) == NO_SESSION
    assert (NOTHING_KNOWN.has_eids, known.has_eids) == (False, True)


def test_what_the_database_knows_better_does_not_count_but_is_not_forgotten():
    """A database may lose a session again: then the session has what earlier tables knew of it."""
    known = KnownColumns.of(BEFORE, database("a.b.c"))
    assert [known.earlier_session(key(path)) for path in (S1, S2)] == [NO_SESSION, BEFORE.sessions[S2]]
    assert known.earlier_datasets(key()) == {"x.y.z": EarlierDataset(None, 4)}
    assert known.earlier is BEFORE
    again = known.adopt(database(subject="other"))
    assert (again.rest, again.earlier_session(key())) == (BEFORE, BEFORE.sessions[S1])


def test_a_session_in_no_lab_folder_is_the_databases_too():
    # Its row in earlier tables has no lab, and the database's session has one.
    known = KnownColumns.of(BEFORE, database("a.b.c", lab="only"))
    assert known.earlier_session(key()) == NO_SESSION
    assert known.earlier_datasets(key()) == {"x.y.z": EarlierDataset(None, 4)}


def test_one_look_up_tells_rows_of_both():
    known = KnownColumns.of(BEFORE, database("a.b.c", "d.e.f"))
    adopted = [known.adoption.session_at(S1), None]
    paths = [b"a.b.c", b"d.e.f", b"x.y.z", b"a.b.c"]
    found = known.find([Session(S1), Session(S2)], adopted, [3, 1], paths)
    assert found.keys == [S1, S2]
    ids = [known.adoption.rows.ids[row].tobytes() if row >= 0 else None for row in found.adopted]
    assert ids == [raw(D1), raw(D2), None, None]
    qc = [known.rest.datasets.rows.qc[row] if row >= 0 else None for row in found.earlier]
    assert qc == [None, None, 4, None]
    assert found.has_id.tolist() == [False] * 4
    alone = KnownColumns.of(BEFORE).find([Session(S1)], [None], [3], paths[:3])
    assert (alone.adopted.tolist(), alone.has_id.tolist()) == ([-1] * 3, [True, False, False])
    nothing = NOTHING_KNOWN.find([Session(S1)], [None], [3], paths[:3])
    assert (nothing.adopted.tolist(), nothing.earlier.tolist(), nothing.keys) == ([-1] * 3, [-1] * 3, [""])


@pytest.mark.parametrize("of_newer", [{"sessions": {f"L2/{S1}": EarlierSession(OWN, "", "")}},
                                      {"datasets": {f"L2/{S1}": {"a.b.c": EarlierDataset(None, 1)}}}])  # fmt: skip
def test_a_session_that_is_adopted_whole_gets_nothing_of_an_older_lab(of_newer):
    """The key of a session in earlier tables does not depend on the database: else it would get ids of another one."""
    sessions = {f"L1/{S1}": EarlierSession(raw(D2), "older", ""), **of_newer.get("sessions", {})}
    before = earlier(sessions, of_newer.get("datasets", {}), "L2", other_labs=("L1",))
    known = KnownColumns.of(before, database("a.b.c", lab="L2"))
    assert known.key_of(key()) == f"L2/{S1}"
    assert known.earlier_session(key()) == NO_SESSION
    assert known.earlier_datasets(key()) == {}


@pytest.mark.parametrize("adoption", [NO_ADOPTION, database("a.b.c"), database(subject="other")])
def test_new_ids_leave_the_other_columns_of_earlier_tables(adoption):
    known = KnownColumns.of(BEFORE, adoption)
    now = known.without_ids()
    for before, after in ((known.earlier, now.earlier), (known.rest, now.rest)):
        rows = {path: replace(row, eid=None) for path, row in before.sessions.items()}
        assert after.sessions == {path: row for path, row in rows.items() if row != NO_SESSION}
        qc = {path: row.qc for path, row in before.datasets[S1].items()}
        assert {path: (row.id, row.qc) for path, row in after.datasets[S1].items()} == {
            path: (None, each) for path, each in qc.items()
        }
    assert now.adoption is adoption
    assert not now.gives_same(known)


def test_new_ids_change_no_qc_of_the_twin_of_an_adopted_file():
    """The row has the id of the database, so its qc was the database's: it must not come back with new ids."""
    twin = f"a.b.{D1}.c"
    before = earlier({}, {S1: {twin: EarlierDataset(raw(D1), 3)}})
    assert not KnownColumns.of(before, database("a.b.c")).without_ids().rest.shows


def test_what_was_made_before_a_person_asked_for_new_ids_brings_no_old_id_back():
    """The database is read in a thread of its own, which may have begun before the request."""
    late = KnownColumns.of(BEFORE, database("a.b.c"))
    rules = TableRules(known=KnownColumns.of(BEFORE)).without_earlier_ids().use(late)
    assert rules.known.adoption is late.adoption
    for known in (rules.known, rules.adopt(database(subject="other")).known):
        assert {row.eid for row in known.earlier.sessions.values()} == {None}
        assert {row.id for row in known.earlier.datasets[S1].values()} == {None}
        assert not known.rest.has_eids


def test_the_same_columns_need_no_writing():
    first, again = (KnownColumns.of(BEFORE, database(subject="other")) for _ in range(2))
    assert first.gives_same(again)
    assert not first.gives_same(KnownColumns.of(BEFORE))
    assert not first.gives_same(KnownColumns.of(BEFORE, database()))
