"""How the two files are replaced: at no moment does a reader find half a file, or a dataset row without its session."""

import os
import threading
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.errors import TablesError
from alfwatchd.store import writer
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.tables import PATIENCE, closed_folder, failing, orphans, read_file, snapshot, subjects, trace
from kit.trees import fast_folder

pytestmark = pytest.mark.usefixtures("no_readers")


@pytest.fixture
def out_dir():
    with closed_folder() as folder:
        yield folder


@contextmanager
def at_each_rename(out_dir, check):
    """Call `check` after each rename: that is when the folder itself is made durable."""
    real, calls = os.fsync, []

    def fsync(fd):
        real(fd)
        place = os.readlink(f"/proc/self/fd/{fd}")
        calls.append(place)
        if place == str(out_dir):
            check()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield calls


# (sessions before, after, files in the order in which they are replaced)
ORDERS = [
    ("", "s", [SESSIONS, DATASETS]),
    ("s", "st", [SESSIONS, DATASETS]),
    ("s", "s", [SESSIONS, DATASETS]),
    ("st", "s", [DATASETS, SESSIONS]),
    ("s", "", [DATASETS, SESSIONS]),
    ("st", "tu", [SESSIONS, DATASETS, SESSIONS]),
    ("s", "t", [SESSIONS, DATASETS, SESSIONS]),
]


@pytest.mark.parametrize(("before", "after", "order"), ORDERS)
@pytest.mark.parametrize("restarted", [False, True])
def test_order_of_renames(out_dir, before, after, order, restarted):
    table_writer = TableWriter(out_dir, "/data")
    table_writer.write(snapshot(before), TableRules())
    if restarted:
        table_writer = TableWriter(out_dir, "/data")
    with trace(out_dir) as steps:
        table_writer.write(snapshot(after, 2), TableRules())
    assert [name for step, name in steps if step == "arrive"] == order
    assert subjects(out_dir) == after


def test_a_file_appears_by_a_rename_under_the_lock_of_one(out_dir):
    with trace(out_dir) as steps:
        TableWriter(out_dir, "/data").write(snapshot("s"), TableRules())
    is_locked = False
    for step, name in steps:
        if name == ".ONE.lock":
            is_locked = step != "delete"
        elif step in ("arrive", "leave"):
            assert is_locked
        else:
            assert name in (".sessions.pqt.tmp", ".datasets.pqt.tmp")
            assert not name.endswith(".pqt")  # One loads every file that does
    assert not is_locked
    assert sorted(path.name for path in out_dir.iterdir()) == [DATASETS, SESSIONS]


def test_a_file_is_durable_before_its_rename_and_the_rename_after_it(out_dir):
    table_writer = TableWriter(out_dir, "/data")
    table_writer.write(snapshot("s"), TableRules())
    inodes = []
    with at_each_rename(out_dir, lambda: inodes.append((out_dir / SESSIONS).stat().st_ino)) as calls:
        table_writer.write(snapshot("st", 2), TableRules())
    assert calls == [f"{out_dir}/.sessions.pqt.tmp", str(out_dir), f"{out_dir}/.datasets.pqt.tmp", str(out_dir)]
    assert inodes == [(out_dir / SESSIONS).stat().st_ino] * 2


SUBJECT_SETS = st.sets(st.sampled_from("stuv")).map(sorted)


@settings(max_examples=25)
@given(st.lists(st.tuples(SUBJECT_SETS, st.booleans(), st.sampled_from(["", SESSIONS, DATASETS])), max_size=6))
def test_every_dataset_has_its_session_at_every_moment(history):
    """Whatever is added and removed, at restarts too, and after writes that failed half-way."""
    with fast_folder() as out_dir, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "TO_SESSIONS_SECONDS", 0.0)  # nobody reads here but the test, within a moment
        patch.setattr(writer, "TO_DATASETS_SECONDS", 0.0)
        table_writer = TableWriter(out_dir, "/data")
        table_writer.write(snapshot("st"), TableRules())
        n_looks = []

        def check():
            assert orphans(out_dir) == set()
            n_looks.append(1)

        for generation, (present, restarted, broken) in enumerate(history, 2):
            if restarted:
                table_writer = TableWriter(out_dir, "/data")
            with at_each_rename(out_dir, check), failing(out_dir, broken):
                try:
                    table_writer.write(snapshot(present, generation), TableRules())
                except TablesError:
                    assert broken
                else:
                    assert not broken
                    assert subjects(out_dir) == "".join(present)
            check()
        assert len(n_looks) >= len(history)


def test_no_session_is_there_twice_while_those_of_before_and_after_are(out_dir):
    def rows(*paths):
        files = snapshot("s").sessions["s/2020-01-01/001"].folders
        return Snapshot(1, {path: Session(path, files) for path in paths})

    table_writer, seen = TableWriter(out_dir, "/data"), []
    table_writer.write(rows("s/2020-01-01/1", "t/2020-01-01/001"), TableRules())
    with at_each_rename(out_dir, lambda: seen.append(read_file(out_dir / SESSIONS)["subject"].to_pylist())):
        renamed = "s/2020-01-01/001"  # and so of the same eid
        table_writer.write(rows(renamed, "u/2020-01-01/001"), TableRules())
    assert [sorted(each) for each in seen] == [["s", "t", "u"], ["s", "t", "u"], ["s", "u"]]


def test_a_reader_never_sees_half_a_file(out_dir):
    table_writer = TableWriter(out_dir, "/data")
    table_writer.write(snapshot("s", n_datasets=2000), TableRules())
    done, n_reads, errors = threading.Event(), [0, 0], []

    def read(number, name):
        while not done.is_set():
            try:
                read_file(out_dir / name)
            except Exception as error:  # noqa: BLE001 - told below
                errors.append(error)
            n_reads[number] += 1

    readers = [threading.Thread(target=read, args=each) for each in enumerate((SESSIONS, DATASETS))]
    for reader in readers:
        reader.start()
    try:
        generation = 1
        while generation < 20 or min(n_reads) < 20:
            generation += 1
            table_writer.write(snapshot("st" if generation % 2 else "su", generation, n_datasets=2000), TableRules())
    finally:
        done.set()
        for reader in readers:
            reader.join(PATIENCE)
    assert errors == []
