"""The writer beside other programs: it takes ONE's lock, and never mixes rows of others with ours."""

import os
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from iblutil.io.params import FileLock
from one.alf.cache import load_tables, make_parquet_db

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.errors import TablesError
from alfwatchd.store.reader import (
    read_generation,
    read_sessions,
    read_tables,
)
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.rules import TableRules
from kit.tables import (
    PATIENCE,
    closed_folder,
    contents,
    failing,
    generation_of,
    ids_and_sizes,
    orphans,
    snapshot,
    subjects,
    trace,
)
from kit.trees import write

pytestmark = pytest.mark.usefixtures("no_readers")


@pytest.fixture
def out_dir():
    with closed_folder() as folder:
        yield folder


# The lock that One takes, too.


def test_the_lock_of_one_is_honoured(out_dir):
    table_writer = TableWriter(out_dir, "/data")
    table_writer.write(snapshot("s"), TableRules())
    before = contents(out_dir)
    writer = threading.Thread(target=table_writer.write, args=(snapshot("t", 2), TableRules()))
    with FileLock(out_dir / ".ONE", timeout=5):
        writer.start()
        while not (out_dir / ".sessions.pqt.tmp").exists():
            assert writer.is_alive()
        writer.join(0.3)
        assert {name: contents(out_dir)[name] for name in before} == before
    writer.join(PATIENCE)
    assert (subjects(out_dir), (out_dir / ".ONE.lock").exists()) == ("t", False)


# Other programs.


def test_what_another_program_did_is_seen(out_dir):
    table_writer = TableWriter(out_dir, "/data")
    assert not table_writer.is_untouched()
    table_writer.write(snapshot("s"), TableRules())
    assert table_writer.is_untouched()
    assert not TableWriter(out_dir, "/data").is_untouched()
    for name in (SESSIONS, DATASETS):
        copy = out_dir / "copy"
        copy.write_bytes((out_dir / name).read_bytes())
        copy.rename(out_dir / name)
        assert not table_writer.is_untouched()
        table_writer.write(snapshot("s", 2), TableRules())
        assert table_writer.is_untouched()
        (out_dir / name).unlink()
        assert not table_writer.is_untouched()
        table_writer.write(snapshot("s", 3), TableRules())
    os.utime(out_dir / SESSIONS, ns=(1, 1))
    assert not table_writer.is_untouched()


def test_rows_that_another_program_put_back_go_in_the_right_order(out_dir):
    # One.save_cache merges what it has in memory into the files.
    table_writer, other = TableWriter(out_dir, "/data"), TableWriter(out_dir, "/other")
    table_writer.write(snapshot("s"), TableRules())
    other.write(snapshot("st"), TableRules())
    with trace(out_dir) as steps:
        table_writer.write(snapshot("s", 2), TableRules())
    assert [name for step, name in steps if step == "arrive"] == [DATASETS, SESSIONS]


def by_one(*, hash_ids):
    def make(out_dir, tmp_path):
        write(tmp_path, "lab/Subjects/s/2020-01-01/001/alf/a.b.c", "old/2020-01-01/001/a.b.c")
        make_parquet_db(tmp_path, out_dir, hash_ids=hash_ids)

    return make


def no_column_of_ours(out_dir, tmp_path):
    for name in (SESSIONS, DATASETS):
        pq.write_table(pa.table({"id": ["x", "y"], "other": [1, 2]}), out_dir / name)


def odd_types(out_dir, tmp_path):
    sessions = {"id": ["x"], "lab": [None], "subject": ["s"], "date": ["yesterday"], "number": [-1]}
    pq.write_table(pa.table(sessions | {"task_protocol": [None], "projects": [None]}), out_dir / SESSIONS)
    pq.write_table(pa.table({"eid": [1], "id": [2], "rel_path": ["a"], "file_size": ["big"]}), out_dir / DATASETS)


def same_bytes(text):
    def make(out_dir, tmp_path):
        for name in (SESSIONS, DATASETS):
            (out_dir / name).write_bytes(text)

    return make


def truncated(out_dir, tmp_path):
    TableWriter(out_dir, "/data").write(snapshot("su"), TableRules())
    for name in (SESSIONS, DATASETS):
        os.truncate(out_dir / name, (out_dir / name).stat().st_size // 2)


def one_is_missing(name):
    def make(out_dir, tmp_path):
        TableWriter(out_dir, "/data").write(snapshot("su"), TableRules())
        (out_dir / name).unlink()

    return make


FOREIGN = {
    "nothing": lambda *_: None,
    "ONE": by_one(hash_ids=True),
    "ONE without hashed ids": by_one(hash_ids=False),
    "other columns": no_column_of_ours,
    "odd types": odd_types,
    "empty files": same_bytes(b""),
    "garbage": same_bytes(b"PAR1 is how it begins, and PAR1"),
    "truncated": truncated,
    "no sessions": one_is_missing(SESSIONS),
    "no datasets": one_is_missing(DATASETS),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_whatever_was_there_is_replaced(out_dir, tmp_path, make):
    make(out_dir, tmp_path)
    TableWriter(out_dir, "/data").write(snapshot("st", 3), TableRules())
    assert (subjects(out_dir), orphans(out_dir)) == ("st", set())
    assert len(ids_and_sizes(out_dir)) == 4
    assert len(load_tables(out_dir).datasets) == 4


@pytest.mark.parametrize("hash_ids", [True, False])
def test_tables_of_one_are_read(out_dir, tmp_path, hash_ids):
    by_one(hash_ids=hash_ids)(out_dir, tmp_path)
    stored = read_tables(out_dir)
    assert (len(stored.sessions), len(stored.datasets), stored.generation, stored.metadata) == (2, 2, 0, {})
    assert {"id", "subject"} <= set(stored.sessions.column_names)
    assert {"eid", "id", "rel_path"} <= set(stored.datasets.column_names)
    assert read_generation(out_dir) == (0, {})
    assert len(ids_and_sizes(out_dir)) == 2


@pytest.mark.parametrize("missing", [(SESSIONS,), (DATASETS,), (SESSIONS, DATASETS)])
def test_tables_are_two_files_or_none(out_dir, missing):
    TableWriter(out_dir, "/data").write(snapshot("s", 3), TableRules())
    for name in missing:
        (out_dir / name).unlink()
    generation, metadata = read_generation(out_dir)
    assert (read_tables(out_dir), generation) == (None, 0 if len(missing) == 2 else 1)  # which never goes back
    assert (metadata == {}) is (DATASETS in missing)
    assert (read_sessions(out_dir) is None) is (SESSIONS in missing)
    assert (ids_and_sizes(out_dir) is None) is (DATASETS in missing)


@pytest.mark.parametrize("make", [same_bytes(b""), same_bytes(b"garbage" * 10), truncated])
def test_broken_files_are_told(out_dir, tmp_path, make):
    make(out_dir, tmp_path)
    with pytest.raises(TablesError, match=r"sessions\.pqt: not a readable Parquet file .*; remove it"):
        read_tables(out_dir)
    assert (read_generation(out_dir), read_sessions(out_dir), ids_and_sizes(out_dir)) == ((0, {}), None, None)


def test_a_pair_that_does_not_match_can_be_told(out_dir):
    table_writer = TableWriter(out_dir, "/data")
    table_writer.write(snapshot("s", 3), TableRules())
    with failing(out_dir, DATASETS), pytest.raises(TablesError):
        table_writer.write(snapshot("st", 4), TableRules())
    assert [generation_of(out_dir / name) for name in (SESSIONS, DATASETS)] == [2, 1]
    assert (read_generation(out_dir)[0], read_tables(out_dir).generation) == (2, 2)
    assert not table_writer.is_untouched()
