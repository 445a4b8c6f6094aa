"""The rows of the tables are the sessions that are there, each once, and a generation rises with each change."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Counts, Tables
from kit.rows import folder_rows

SPELLINGS = ("1", "01", "001")
S1 = "s/2020-01-01/001"


def session(path, *sizes):
    files = {f"a.b{i}.npy": pack_signature(size, 0, i, False) for i, size in enumerate(sizes)}
    folder = folder_rows("alf", files)
    return Session(path, (folder,) if folder else ())


def recount(tables):
    rows = tables.snapshot().sessions.values()
    sizes = [int.from_bytes(value[:8], "little") for row in rows for _, value in row.datasets()]
    return Counts(len(rows), len(sizes), sum(sizes))


def problems(tables):
    return {(problem.kind, problem.path) for problem in tables.problems()}


def expected_rows(present):
    """Return what the tables must hold: per session the longest spelling of those that are there."""
    best = {}
    for path, row in present.items():
        folder, _, number = path.rpartition("/")
        key = folder, int(number)
        if key not in best or len(path) > len(best[key].path):
            best[key] = row
    return {row.path: row for row in best.values()}


def test_rows_come_and_go():
    tables = Tables()
    assert (tables.counts, tables.n_changes, tables.get("s/2020-01-01/001")) == (Counts(), 0, None)
    row = session("s/2020-01-01/001", 10, 20)
    tables.replace_session(row)
    assert tables.get(row.path) is row
    assert tables.counts == Counts(1, 2, 30)
    tables.replace_session(session("s/2020-01-01/001", 5))
    assert tables.counts == Counts(1, 1, 5)
    tables.replace_session(session("t/2020-01-01/001"))
    assert tables.counts == Counts(2, 1, 5)
    tables.drop_session("s/2020-01-01/001")
    assert (tables.counts, tables.get(row.path)) == (Counts(1, 0, 0), None)


@pytest.mark.parametrize("arrival", list(itertools.permutations(SPELLINGS)))
@pytest.mark.parametrize("removal", list(itertools.permutations(SPELLINGS)))
def test_the_longest_spelling_is_the_row_whatever_the_order(arrival, removal):
    tables = Tables()
    present = {}
    steps = [(True, spelling) for spelling in arrival] + [(False, spelling) for spelling in removal]
    for arrives, spelling in steps:
        path = f"s/2020-01-01/{spelling}"
        if arrives:
            present[path] = session(path, 2 ** len(spelling))
            tables.replace_session(present[path])
        else:
            del present[path]
            tables.drop_session(path)
        rows = expected_rows(present)
        assert tables.snapshot().sessions == rows
        unpadded = {("unpadded_number", path[0]) for path in rows if len(path) < len(S1)}
        assert problems(tables) == {("twin", twin) for twin in present.keys() - rows.keys()} | unpadded
        assert tables.counts == recount(tables)


def test_a_twin_problem_names_the_folder_that_one_opens():
    tables = Tables()
    for spelling in SPELLINGS:
        tables.replace_session(session(f"s/2020-01-01/{spelling}"))
    assert all("s/2020-01-01/001" in problem.message for problem in tables.problems())


@pytest.mark.parametrize(
    "paths",
    [
        ("s/2020-01-01/1", "s/2020-01-01/11", "s/2020-01-01/111"),
        ("s/2020-01-01/1", "s/2020-01-02/001", "t/2020-01-01/001"),
        ("lab/Subjects/s/2020-01-01/1", "s/2020-01-01/001"),
        ("s/2020-01-01/0", "s/2020-01-01/1"),
    ],
)
def test_other_sessions_are_no_twins(paths):
    tables = Tables()
    for path in paths:
        tables.replace_session(session(path))
    assert set(tables.snapshot().sessions) == set(paths)
    assert not any(problem.kind == "twin" for problem in tables.problems())


def test_a_twin_keeps_up_with_its_folder_while_it_waits():
    tables = Tables()
    tables.replace_session(session("s/2020-01-01/001", 1))
    tables.replace_session(session("s/2020-01-01/1", 2))
    tables.replace_session(session("s/2020-01-01/1", 3))
    tables.drop_session("s/2020-01-01/001")
    assert tables.get("s/2020-01-01/1") == session("s/2020-01-01/1", 3)


@pytest.mark.parametrize(
    ("name", "change", "changes"),
    [
        ("a new session", lambda tables: tables.replace_session(session("t/2020-01-01/001")), True),
        ("an equal session", lambda tables: tables.replace_session(session("s/2020-01-01/001", 1)), False),
        ("another size", lambda tables: tables.replace_session(session("s/2020-01-01/001", 2)), True),
        ("a dropped session", lambda tables: tables.drop_session("s/2020-01-01/001"), True),
        ("drop of what is not there", lambda tables: tables.drop_session("t/2020-01-01/001"), False),
        ("a twin", lambda tables: tables.replace_session(session("s/2020-01-01/1", 9)), False),
        ("a dropped twin", lambda tables: tables.drop_session("s/2020-01-01/01"), False),
        ("a snapshot", Tables.snapshot, False),
    ],
)
def test_generation_rises_exactly_on_change(name, change, changes):
    tables = Tables()
    tables.replace_session(session("s/2020-01-01/01", 1))
    tables.replace_session(session("s/2020-01-01/001", 1))
    before = tables.snapshot()
    change(tables)
    after = tables.snapshot()
    assert (after.n_changes > before.n_changes) is changes
    assert (after.sessions != before.sessions) is changes
    assert after.n_changes == tables.n_changes


def test_change_times_are_no_new_generation_and_yet_kept():
    """No table shows them: after a `chmod -R` nothing is to be flushed, but files are to be hashed as they are now."""
    tables = Tables()
    rows = [
        Session(S1, (folder_rows("alf", {"a.b.c": pack_signature(1, 2, 3, False, ctime) + digest}),))
        for ctime, digest in ((4, b""), (9, b""), (9, bytes(range(16))))
    ]
    generations = []
    for row in rows:
        tables.replace_session(row)
        assert tables.get(S1) == row
        generations.append(tables.n_changes)
    assert generations == [1, 1, 2]


def test_a_snapshot_never_changes():
    tables = Tables()
    row = session("s/2020-01-01/1", 1)
    tables.replace_session(row)
    snapshot = tables.snapshot()
    generation = snapshot.n_changes
    tables.replace_session(session("s/2020-01-01/1", 2))
    tables.replace_session(session("t/2020-01-01/1", 2))
    tables.replace_session(session("s/2020-01-01/001", 3))
    tables.drop_session("s/2020-01-01/1")
    assert (snapshot.sessions, snapshot.n_changes) == ({"s/2020-01-01/1": row}, generation)


STEPS = st.tuples(
    st.booleans(), st.sampled_from(("s", "t")), st.sampled_from((*SPELLINGS, "10", "010")), st.integers(0, 3)
)


@given(st.lists(STEPS, max_size=30))
def test_any_history_ends_in_what_is_there(steps):
    tables = Tables()
    present = {}
    for arrives, subject, number, n_datasets in steps:
        path = f"{subject}/2020-01-01/{number}"
        before = tables.snapshot()
        if arrives:
            present[path] = session(path, *range(1, n_datasets + 1))
            tables.replace_session(present[path])
        else:
            present.pop(path, None)
            tables.drop_session(path)
        after = tables.snapshot()
        assert (after.n_changes > before.n_changes) == (after.sessions != before.sessions)
        rows = expected_rows(present)
        assert after.sessions == rows
        assert tables.counts == recount(tables)
        unpadded = {("unpadded_number", path[0]) for path in rows if len(path) < len(S1)}
        assert problems(tables) == {("twin", twin) for twin in present.keys() - rows.keys()} | unpadded
