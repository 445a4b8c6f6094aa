"""Columns, types and order are those that ONE reads, whatever the rows."""

import hashlib
import random
import subprocess
import sys
import uuid

import pandas as pd
import pyarrow as pa
import pytest
from one.alf.cache import DATASETS_COLUMNS, QC_TYPE, SESSIONS_COLUMNS

from alfwatchd.alf import ids
from alfwatchd.tables.columns import QC_CATEGORIES, datasets_table, sessions_table
from alfwatchd.tables.earlier import EarlierDataset, EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import earlier, folder_rows

MD5 = hashlib.md5(b"content").digest()
V4 = uuid.UUID("f0000000-0000-4000-8000-000000000001")
OTHER_V4 = uuid.UUID("00000000-0000-4000-8000-000000000002")

SESSION_TYPES = {
    "lab": pa.string(),
    "subject": pa.string(),
    "date": pa.date32(),
    "number": pa.uint16(),
    "task_protocol": pa.string(),
    "projects": pa.string(),
    "id": pa.string(),
}
DATASET_TYPES = {
    "rel_path": pa.string(),
    "file_size": pa.uint64(),
    "hash": pa.null(),
    "exists": pa.bool_(),
    "qc": pa.dictionary(pa.int8(), pa.string(), ordered=True),
    "default_revision": pa.bool_(),
    "eid": pa.dictionary(pa.int32(), pa.string()),
    "id": pa.dictionary(pa.int32(), pa.string()),
}


def session(path, *rel_paths, size=1, digest=b""):
    folders = {}
    for rel_path in rel_paths:
        folder, _, name = rel_path.rpartition("/")
        folders.setdefault(folder, {})[name] = pack_signature(size, 1, 2, False) + digest
    return Session(path, tuple(folder_rows(folder, files) for folder, files in folders.items()))


def snapshot(*sessions):
    return Snapshot(1, {each.path: each for each in sessions})


def by_rel_path(table, column):
    rows = table.select(["rel_path", column]).to_pylist()
    assert len({row["rel_path"] for row in rows}) == len(rows)
    return {row["rel_path"]: row[column] for row in rows}


def text(raw):
    return str(uuid.UUID(bytes=raw))


MANY = snapshot(
    session("s/2020-01-01/1", "alf/a.b.c", "alf/#2020-01-01#/a.b.c", "x.y.z"),
    session("lab/Subjects/s/2020-01-01/001", "alf/a.b.c", size=2**40),
    session("t/2019-12-31/123"),
    *(session(f"u/2021-01-01/{number:03d}", *(f"alf/a{i}.b.c" for i in range(20))) for number in range(20)),
)


def test_sessions_have_exactly_the_columns_of_one():
    table = sessions_table(MANY, TableRules())
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == SESSION_TYPES
    assert table.schema.names == list(SESSION_TYPES)
    assert set(table.schema.names) == set(SESSIONS_COLUMNS)
    assert sum(column.null_count for column in table.columns) == 0


def test_datasets_have_exactly_the_columns_of_one_and_the_default_revision():
    table = datasets_table(MANY, TableRules())
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == DATASET_TYPES
    assert table.schema.names == list(DATASET_TYPES)
    assert set(table.schema.names) == {*DATASETS_COLUMNS, "default_revision"}
    assert {name for name in table.schema.names if table[name].null_count} == {"hash"}


def test_session_rows_hold_what_the_path_says():
    rows = sessions_table(MANY, TableRules()).to_pylist()
    found = {(row["lab"], row["subject"], row["date"].isoformat(), row["number"], row["id"]) for row in rows}
    assert {
        ("", "s", "2020-01-01", 1, text(ids.session_id("s/2020-01-01/001"))),
        ("lab", "s", "2020-01-01", 1, text(ids.session_id("lab/s/2020-01-01/001"))),
        ("", "t", "2019-12-31", 123, text(ids.session_id("t/2019-12-31/123"))),
    } <= found
    assert len(rows) == 23
    assert {(row["task_protocol"], row["projects"]) for row in rows} == {("", "")}


def test_dataset_rows_hold_what_the_disk_says():
    eid = ids.session_id("lab/s/2020-01-01/001")
    rows = datasets_table(MANY, TableRules()).to_pylist()
    assert len(rows) == 404
    assert [row for row in rows if row["eid"] == text(eid)] == [
        {
            "rel_path": "alf/a.b.c",
            "file_size": 2**40,
            "hash": None,
            "exists": True,
            "qc": "NOT_SET",
            "default_revision": True,
            "eid": text(eid),
            "id": text(ids.dataset_id(eid, "alf/a.b.c")),
        }
    ]


def test_every_column_is_sorted_along():
    # Each file has its own size, so a column left in another order than its ids shows.
    names = [f"a{i}.b.c" for i in range(50)]
    values = {name: pack_signature(i, 0, 0, False) + bytes([i + 1] * 16) for i, name in enumerate(names)}
    rows = {"s/2020-01-01/001": {name: EarlierDataset(None, i % 5) for i, name in enumerate(names)}}
    row = Session("s/2020-01-01/001", (folder_rows("", values),))
    table = datasets_table(snapshot(row), TableRules(with_hashes=True, known=KnownColumns.of(earlier({}, rows))))
    eid = ids.session_id("s/2020-01-01/001")
    assert table["rel_path"].to_pylist() != names
    for found in table.to_pylist():
        i = names.index(found["rel_path"])
        assert (found["file_size"], found["hash"]) == (i, bytes([i + 1] * 16).hex())
        assert (found["qc"], found["id"]) == (QC_CATEGORIES[i % 5], text(ids.dataset_id(eid, found["rel_path"])))


@pytest.mark.parametrize("shuffled", [False, True])
def test_rows_are_sorted_by_id(shuffled):
    order = list(MANY.sessions.values())
    if shuffled:
        random.Random(1).shuffle(order)
    sessions = sessions_table(snapshot(*order), TableRules())["id"].to_pylist()
    datasets = datasets_table(snapshot(*order), TableRules())
    pairs = list(zip(datasets["eid"].to_pylist(), datasets["id"].to_pylist(), strict=True))
    assert sessions == sorted(sessions)
    assert pairs == sorted(pairs)
    assert len(set(pairs)) == 404
    assert {eid for eid, _ in pairs} < set(sessions)


def test_order_of_arrival_does_not_change_the_tables():
    backwards = snapshot(*reversed(MANY.sessions.values()))
    assert sessions_table(MANY, TableRules()).equals(sessions_table(backwards, TableRules()), check_metadata=True)
    assert datasets_table(MANY, TableRules()).equals(datasets_table(backwards, TableRules()), check_metadata=True)


@pytest.mark.parametrize("rows", [MANY, snapshot()], ids=["many", "empty"])
def test_pandas_takes_the_ids_as_the_index(rows):
    sessions = sessions_table(rows, TableRules()).to_pandas()
    assert sessions.index.names == ["id"]
    assert list(sessions.columns) == ["lab", "subject", "date", "number", "task_protocol", "projects"]
    assert sessions["number"].dtype == "uint16"
    datasets = datasets_table(rows, TableRules()).to_pandas()
    assert datasets.index.names == ["eid", "id"]
    assert "eid" not in datasets.columns
    assert datasets["file_size"].dtype == DATASETS_COLUMNS["file_size"]
    assert sessions.index.is_monotonic_increasing
    assert datasets.index.is_monotonic_increasing


def test_pandas_takes_qc_as_one_compares_it():
    qc = datasets_table(MANY, TableRules()).to_pandas()["qc"]
    assert list(qc.cat.categories) == list(QC_TYPE.categories)
    assert qc.cat.ordered
    assert (qc < "PASS").all()
    assert tuple(QC_TYPE.categories) == QC_CATEGORIES


def test_no_hash_is_a_column_of_null_type_that_pandas_reads_as_none():
    table = datasets_table(MANY, TableRules())
    assert table.schema.field("hash").type == pa.null()
    assert {id(value) for value in table.to_pandas()["hash"]} == {id(None)}


def test_hashes_are_lower_case_hex_and_null_where_not_known():
    known = session("s/2020-01-01/001", "a.b.c", digest=MD5)
    unknown = session("t/2020-01-01/001", "d.e.f")
    table = datasets_table(snapshot(known, unknown), TableRules(with_hashes=True))
    assert table.schema.field("hash").type == pa.string()
    assert by_rel_path(table, "hash") == {"a.b.c": hashlib.md5(b"content").hexdigest(), "d.e.f": None}
    assert by_rel_path(table, "file_size") == {"a.b.c": 1, "d.e.f": 1}


def test_known_hashes_stay_out_of_the_tables_where_hashing_is_off():
    table = datasets_table(snapshot(session("s/2020-01-01/001", "a.b.c", digest=MD5)), TableRules())
    assert table["hash"].to_pylist() == [None]
    assert table["file_size"].to_pylist() == [1]


def test_empty_tables_keep_their_types():
    sessions = sessions_table(snapshot(), TableRules())
    assert (sessions.num_rows, dict(zip(sessions.schema.names, sessions.schema.types, strict=True))) == (
        0,
        SESSION_TYPES,
    )
    for rules, hash_type in [(TableRules(), pa.null()), (TableRules(with_hashes=True), pa.string())]:
        datasets = datasets_table(snapshot(), rules)
        expected = {**DATASET_TYPES, "hash": hash_type}
        del expected["qc"]  # One takes no empty one, and adds it
        assert datasets.num_rows == 0
        assert dict(zip(datasets.schema.names, datasets.schema.types, strict=True)) == expected


def test_sessions_without_datasets_have_a_row():
    rows = snapshot(session("s/2020-01-01/001"))
    assert sessions_table(rows, TableRules())["subject"].to_pylist() == ["s"]
    assert datasets_table(rows, TableRules()).num_rows == 0


def test_the_lab_setting_fills_in_and_is_part_of_the_ids():
    rows = {row["id"]: row["lab"] for row in sessions_table(MANY, TableRules(lab="filled")).to_pylist()}
    assert rows[text(ids.session_id("filled/s/2020-01-01/001"))] == "filled"
    assert rows[text(ids.session_id("lab/s/2020-01-01/001"))] == "lab"
    others = sessions_table(MANY, TableRules(lab="other"))["id"].to_pylist()
    assert {rows[eid] for eid in rows.keys() & set(others)} == {"lab"}


def test_the_namespace_setting_changes_all_ids():
    namespace = uuid.UUID("01234567-89ab-4def-8123-456789abcdef")
    plain, other = (sessions_table(MANY, TableRules(namespace=each)) for each in (ids.NAMESPACE, namespace))
    assert not set(plain["id"].to_pylist()) & set(other["id"].to_pylist())
    assert text(ids.session_id("s/2020-01-01/001", namespace)) in other["id"].to_pylist()


EARLIER_SESSION = EarlierSession(V4.bytes, "_iblrig_task", "project")
EARLIER_DATASETS = {"a.b.c": EarlierDataset(OTHER_V4.bytes, 3), "gone.b.c": EarlierDataset(None, 4)}


# (lab filled in the earlier tables, path on disk, key in those tables, whether they are the same session)
@pytest.mark.parametrize(
    ("filled", "path", "key", "same"),
    [
        ("", "s/2020-01-01/001", "s/2020-01-01/001", True),
        ("", "s/2020-01-01/1", "s/2020-01-01/001", True),
        ("", "lab/Subjects/s/2020-01-01/001", "lab/s/2020-01-01/001", True),
        ("filled", "s/2020-01-01/001", "filled/s/2020-01-01/001", True),
        ("filled", "s/2020-01-01/001", "s/2020-01-01/001", True),
        ("filled", "lab/Subjects/s/2020-01-01/001", "lab/s/2020-01-01/001", True),
        ("filled", "filled/Subjects/s/2020-01-01/001", "filled/s/2020-01-01/001", True),
        ("", "s/2020-01-01/001", "lab/s/2020-01-01/001", False),
        ("", "s/2020-01-01/002", "s/2020-01-01/001", False),
    ],
)
@pytest.mark.parametrize("lab", ["", "filled", "other"])  # the setting now: it may have changed since
def test_rows_keep_what_earlier_tables_knew(lab, filled, path, key, same):
    rules = TableRules(lab=lab, known=KnownColumns.of(earlier({key: EARLIER_SESSION}, {key: EARLIER_DATASETS}, filled)))
    rows = snapshot(session(path, "a.b.c", "new.b.c"), session("zz/2020-01-01/001", "other.b.c"))
    sessions = {row["subject"]: row for row in sessions_table(rows, rules).to_pylist()}
    row = sessions["s"]
    assert (row["id"] == str(V4), row["task_protocol"], row["projects"]) == (
        (True, "_iblrig_task", "project") if same else (False, "", "")
    )
    assert sessions["zz"]["projects"] == ""
    datasets = datasets_table(rows, rules)
    eids, own, qc = (by_rel_path(datasets, column) for column in ("eid", "id", "qc"))
    assert eids["a.b.c"] == eids["new.b.c"] == row["id"]
    assert (own["a.b.c"] == str(OTHER_V4), qc["a.b.c"]) == ((True, "FAIL") if same else (False, "NOT_SET"))
    assert own["new.b.c"] == text(ids.dataset_id(uuid.UUID(row["id"]).bytes, "new.b.c"))
    assert (qc["new.b.c"], qc["other.b.c"]) == ("NOT_SET", "NOT_SET")


def test_kept_ids_take_part_in_the_order():
    before = earlier(
        {"s/2020-01-01/001": EarlierSession(V4.bytes, "", "")},
        {"s/2020-01-01/001": {"a5.b.c": EarlierDataset(OTHER_V4.bytes, 0)}},
    )
    rows = snapshot(session("s/2020-01-01/001", *(f"a{i}.b.c" for i in range(9))), *MANY.sessions.values())
    table = datasets_table(rows, TableRules(known=KnownColumns.of(before)))
    pairs = list(zip(table["eid"].to_pylist(), table["id"].to_pylist(), strict=True))
    assert pairs == sorted(pairs)
    assert (str(V4), str(OTHER_V4)) in pairs


def test_all_qc_values_survive_pandas():
    names = [f"a.b{i}.c" for i in range(5)]
    before = earlier({}, {"s/2020-01-01/001": {name: EarlierDataset(None, i) for i, name in enumerate(names)}})
    frame = datasets_table(
        snapshot(session("s/2020-01-01/001", *names)), TableRules(known=KnownColumns.of(before))
    ).to_pandas()
    found = frame.set_index("rel_path")["qc"].sort_index()
    assert list(found) == list(QC_CATEGORIES)
    assert list(found >= "WARNING") == [False, False, True, True, True]
    assert isinstance(frame.index, pd.MultiIndex)


def test_pandas_is_not_imported():
    code = """
import sys
from alfwatchd.tables.columns import datasets_table, sessions_table
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import PackedFiles, pack_signature
from alfwatchd.tree.rows import FolderRows, Session
from alfwatchd.tree.sessions import Snapshot
packed = PackedFiles.pack({"a.b.c": pack_signature(1, 2, 3, False)})
session = Session("s/2020-01-01/001", (FolderRows("alf", packed),))
for make in (sessions_table, datasets_table):
    make(Snapshot(1, {session.path: session}), TableRules(with_hashes=True))
print("pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
