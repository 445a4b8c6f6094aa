"""The file of changed ids: what is asked of it is answered by what the tables hold, and nothing in it is lost."""

import datetime
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd.errors import StateError
from alfwatchd.store.id_history import NAME, find_id, record
from alfwatchd.tables.id_changes import SCHEMA

A, B, C, D = (str(uuid.UUID(int=number, version=4)) for number in range(1, 5))
NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def changes(*pairs, hour=0):
    when = NOON + datetime.timedelta(hours=hour)
    rows = [{"old": old, "new": new, "path": "p", "when": when} for old, new in pairs]
    return pa.Table.from_pylist(rows, SCHEMA)


@pytest.fixture
def tables(tmp_path):
    """A folder of tables that hold one session, `A`, and one dataset, `D`."""
    sessions = {"id": [A], "subject": ["s"], "date": [NOON.date()], "number": [1]}
    pq.write_table(pa.table(sessions), tmp_path / "sessions.pqt")
    datasets = {"id": pa.array([D]).dictionary_encode(), "rel_path": ["a.b.c"]}
    pq.write_table(pa.table(datasets), tmp_path / "datasets.pqt")
    return tmp_path


def test_an_id_that_tables_hold_again_has_not_changed(tables):
    # As where the process was killed before the tables were replaced, and the database has it again.
    record(tables, changes((A, B), (C, D)))
    assert (find_id(tables, tables, A).new, find_id(tables, tables, B).steps) == (A, [])
    assert [(step.old, step.new) for step in find_id(tables, tables, C.upper()).steps] == [(C, D)]


def test_a_recorded_change_that_was_never_made_is_not_followed(tables):
    record(tables, changes((C, B)))
    record(tables, changes((C, D), hour=-1))  # and the clock was set back
    assert find_id(tables, tables, C).new == D


def test_rows_are_found_in_every_part_of_a_large_file(tables):
    many = [(str(uuid.uuid4()), str(uuid.uuid4())) for _ in range(70_000)]
    record(tables, changes(*many))
    record(tables, changes((many[-1][1], C), hour=1))
    assert pq.ParquetFile(tables / NAME).num_row_groups > 1
    assert find_id(tables, tables, many[0][0]).new == many[0][1]
    assert find_id(tables, tables, many[-1][0]).new == C


def test_a_damaged_file_is_told_and_put_aside_and_never_overwritten(tables):
    for content in (b"nonsense", b"PAR1 more nonsense PAR1"):
        (tables / NAME).write_bytes(content)
        with pytest.raises(StateError, match="cannot be read"):
            find_id(tables, tables, C)
        record(tables, changes((C, D)))
        assert find_id(tables, tables, C).new == D
    put_aside = [path.read_bytes() for path in sorted(tables.glob(f"{NAME}.damaged-*"))]
    assert put_aside == [b"nonsense", b"PAR1 more nonsense PAR1"]


def test_no_file_is_no_change(tables):
    assert find_id(tables, tables, C).steps == []
