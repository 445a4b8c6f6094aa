"""What a log says of a scan, an adoption or a prune: which sessions have other rows now, and in which columns."""

from dataclasses import replace
from operator import attrgetter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.store.changed_sessions import compare_tables, open_tables
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.session_changes import SessionChange
from kit.tables import snapshot
from kit.trees import fast_folder

pytestmark = pytest.mark.usefixtures("no_readers")

PATH = "{}/2020-01-01/001"


@pytest.fixture
def folders():
    with fast_folder() as folder:
        both = folder / "old", folder / "new"
        for each in both:
            each.mkdir()
        yield both


def write(folder, subjects, **made):
    found = snapshot(subjects, **made)
    TableWriter(folder, "/data").write(found, TableRules())


def compare(folders):
    """Return how sessions differ, without names and ids; None where that cannot be told."""
    found = compare_whole(folders)
    return found and [replace(each, names=(), eid="", eid_before="") for each in found]


def compare_whole(folders):
    with open_tables(folders[0]) as old, open_tables(folders[1]) as new:
        return compare_tables(old, new) if old and new else None


def change(folder, name, **columns):
    """Give columns of a table other values, as a database does."""
    table = pq.read_table(folder / name)
    for column, values in columns.items():
        place = table.schema.get_field_index(column)
        table = table.set_column(place, column, pa.array(values(table.column(column).to_pylist())))
    pq.write_table(table, folder / name)


@pytest.mark.parametrize("n_datasets", [2, 9000])  # the many are in several row groups
def test_sessions_that_came_and_went_and_changed(folders, n_datasets):
    write(folders[0], "stu", n_datasets=n_datasets)
    write(folders[1], "tuv", n_datasets=n_datasets)
    n_bytes = 7 * n_datasets
    assert compare(folders) == [
        SessionChange(PATH.format("s"), "removed", removed=n_datasets, n_bytes=-n_bytes),
        SessionChange(PATH.format("v"), "added", added=n_datasets, n_bytes=n_bytes),
    ]


def test_each_session_is_new_gone_or_kept(folders):
    for before in ("", "s", "st"):
        for after in ("", "s", "t", "tu"):
            for size in (7, 8):
                write(folders[0], before)
                write(folders[1], after, size=size)
                was, is_now = set(before), set(after)
                expected = [
                    SessionChange(PATH.format(each), "removed", removed=2, n_bytes=-14) for each in was - is_now
                ]
                expected += [
                    SessionChange(PATH.format(each), "added", added=2, n_bytes=2 * size) for each in is_now - was
                ]
                if size != 7:
                    expected += [SessionChange(PATH.format(each), changed=2, n_bytes=2) for each in was & is_now]
                assert compare(folders) == sorted(expected, key=attrgetter("path")), (before, after, size)


def test_other_sizes_and_other_numbers_of_row_groups(folders):
    write(folders[0], "st", n_datasets=1)
    write(folders[1], "st", n_datasets=20_000, size=8)
    n_bytes = 8 * 20_000 - 7
    expected = [SessionChange(PATH.format(name), "changed", 19_999, 1, 0, n_bytes) for name in "st"]
    assert compare(folders) == expected


def test_columns_of_a_database(folders):
    """A person who looks for the cause of a changed id finds the session, and `columns=id`, in the log."""
    write(folders[0], "st")
    write(folders[1], "st")
    change(
        folders[1],
        DATASETS,
        qc=lambda values: ["FAIL", *values[1:]],
        hash=lambda values: ["0" * 32, *values[1:]],
        default_revision=lambda values: [False, *values[1:]],
    )
    (first,) = compare(folders)
    assert first.columns == ("default_revision", "hash", "qc")
    assert (first.kind, first.added, first.changed, first.removed, first.n_bytes) == ("changed", 0, 0, 0, 0)
    change(folders[1], SESSIONS, projects=lambda values: ["x"] * len(values))
    assert sum("projects" in each.columns for each in compare(folders)) == 2


def test_an_eid_that_changed_takes_no_dataset_away(folders):
    write(folders[0], "s")
    write(folders[1], "s")
    eid = "ffffffff-ffff-4fff-bfff-ffffffffffff"
    change(folders[1], SESSIONS, id=lambda _: [eid])
    change(folders[1], DATASETS, eid=lambda values: [eid] * len(values))
    assert compare(folders) == [SessionChange(PATH.format("s"), "changed", changed=2, columns=("id",))]


def test_ids_and_names_are_told(folders):
    write(folders[0], "s")
    write(folders[1], "st", n_datasets=3)
    (kept, added) = compare_whole(folders)
    sessions = pq.read_table(folders[1] / SESSIONS)
    eids = dict(zip(sessions["subject"].to_pylist(), sessions["id"].to_pylist(), strict=True))
    assert (kept.eid, kept.names) == (eids["s"], ("+alf/a2.b.c",))
    assert (added.eid, added.names) == (eids["t"], ("+alf/a0.b.c", "+alf/a1.b.c", "+alf/a2.b.c"))
    new = "ffffffff-ffff-4fff-bfff-ffffffffffff"
    old = eids["t"]
    write(folders[0], "st", n_datasets=3)
    change(folders[1], SESSIONS, id=lambda ids: [new if each == old else each for each in ids])
    change(folders[1], DATASETS, eid=lambda ids: [new if each == old else each for each in ids])
    (changed,) = compare_whole(folders)
    assert (changed.eid, changed.eid_before) == (new, old)


def test_a_dataset_with_another_name_came_and_another_one_went(folders):
    write(folders[0], "s")
    write(folders[1], "s")
    change(folders[1], DATASETS, rel_path=lambda paths: ["alf/other.times.npy", *paths[1:]])
    [changed] = compare(folders)
    assert (changed.added, changed.changed, changed.removed) == (1, 0, 1)


def test_nothing_changed(folders):
    write(folders[0], "st")
    write(folders[1], "st")
    assert compare(folders) == []


@pytest.mark.parametrize("name", [SESSIONS, DATASETS])
@pytest.mark.parametrize("content", [None, b"torn", "columns"])
def test_what_cannot_be_compared_is_told(folders, name, content):
    """Damaged tables, and those of other programs, are no tables."""
    write(folders[0], "s")
    write(folders[1], "st")
    (folders[0] / name).unlink()
    if content == "columns":
        pq.write_table(pa.table({"id": ["a"]}), folders[0] / name)
    elif content is not None:
        (folders[0] / name).write_bytes(content)
    assert compare(folders) is None


def test_sizes_that_a_database_does_not_know(folders):
    """The flusher ended at the first null."""
    write(folders[0], "s")
    change(folders[0], DATASETS, file_size=lambda sizes: [None for _ in sizes])
    write(folders[1], "s")
    [changed] = compare(folders)
    assert (changed.path, changed.kind, changed.added) == (PATH.format("s"), "changed", 0)
    assert changed.n_bytes == 7 * changed.changed > 0


@pytest.mark.parametrize(("column", "value"), [("number", None), ("subject", None), ("date", 7), ("number", "x")])
def test_tables_of_others_whose_sessions_make_no_sense(folders, column, value):
    write(folders[0], "s")
    change(folders[0], SESSIONS, **{column: lambda values: [value for _ in values]})
    write(folders[1], "s")
    assert compare(folders) is None or compare(folders)
