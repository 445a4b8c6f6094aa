"""The two files on disk: at every moment whole, and each dataset row with its session."""

import datetime
import errno
import json
import os
import re
import shutil
import struct
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iblutil.io.params import FileLock
from one.alf.cache import load_tables, make_parquet_db
from one.api import One
from watchdog.observers.inotify_c import InotifyConstants, inotify_add_watch, inotify_init

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.errors import OutDirError, TablesError
from alfwatchd.store import writer as store_module
from alfwatchd.store.reader import (
    METADATA_KEY,
    compare,
    open_datasets,
    read_generation,
    read_ids_and_sizes,
    read_sessions,
    read_tables,
)
from alfwatchd.store.writer import TableWriter, check_out_dir
from alfwatchd.tables.columns import datasets_table, sessions_table
from alfwatchd.tables.earlier import EarlierSession
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.folder import Changes
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.children import mount_tmpfs, needs_root, with_own_mounts
from kit.rows import earlier, folder_rows
from kit.trees import fast_folder, write

pytestmark = pytest.mark.usefixtures("no_readers")

PATIENCE = 120.0


@pytest.fixture
def out_dir():
    """A folder in which nothing is left open; other descriptors are none of the store's, pyarrow opens some."""
    with fast_folder() as folder:
        yield folder
        deadline = time.monotonic() + PATIENCE  # Arrow's own threads let go of a file some time after it was read
        while left := [path for path in open_files() if path.startswith(str(folder))]:
            assert time.monotonic() < deadline, left
            time.sleep(0.01)


def ids_and_sizes(out_dir):
    with open_datasets(out_dir) as datasets:
        return read_ids_and_sizes(datasets)


def open_files():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return found


def snapshot(subjects, generation=1, *, n_datasets=2, size=7):
    """Return a snapshot with one session per letter."""
    names = [f"a{number}.b.c" for number in range(n_datasets)]
    files = {name: pack_signature(size, 1, 2, False) for name in names}
    folders = tuple(filter(None, [folder_rows("alf", files)]))
    sessions = [Session(f"{subject}/2020-01-01/001", folders) for subject in subjects]
    return Snapshot(generation, {session.path: session for session in sessions})


def subjects(out_dir):
    return "".join(sorted(read_file(out_dir / SESSIONS)["subject"].to_pylist()))


def read_file(path):
    """Read a table; `pyarrow.parquet.read_table` opens a path twice, and may find two files, and closes it later."""
    with pq.ParquetFile(path) as file:
        return file.read()


def contents(out_dir):
    return {path.name: path.read_bytes() for path in out_dir.iterdir()}


# What is in the files.


def test_one_opens_what_was_written(out_dir):
    TableWriter(out_dir, "/data/root").write(snapshot("st", 3), TableRules())
    cache = load_tables(out_dir)
    assert (len(cache.sessions), len(cache.datasets)) == (2, 4)
    assert cache["_meta"]["raw"]["sessions"]["origin"] == {"/data/root"}
    assert len(One(cache_dir=out_dir, mode="local").search(subject="s")) == 1


def test_a_damaged_column_of_sessions_holds_up_no_flush(out_dir):
    """It is read where some sessions go and others come: readers of the old datasets still need the old sessions."""
    TableWriter(out_dir, "/data/root").write(snapshot("ab"), TableRules())
    path = out_dir / SESSIONS
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
        columns = {group.column(number).path_in_schema: group.column(number) for number in range(group.num_columns)}
        place = columns["projects"].data_page_offset
    content = path.read_bytes()
    path.write_bytes(content[:place] + b"\x0e" * 8 + content[place + 8 :])
    with pytest.raises(OSError, match="thrift"):
        read_file(path)
    TableWriter(out_dir, "/data/root").write(snapshot("bc", 2), TableRules())
    assert subjects(out_dir) == "bc"


@pytest.mark.parametrize("n_checks", range(4))
def test_what_was_mounted_over_the_folder_gets_no_table(out_dir, n_checks):
    """Before each file is written, and before it goes in place, the folder must be the one that is locked."""
    checks = iter([True] * n_checks)

    def check():
        if not next(checks, False):
            raise OSError(errno.ESTALE, "another folder is there now", str(out_dir))

    store = TableWriter(out_dir, "/data/root", check_folder=check)
    with pytest.raises(TablesError, match="another folder is there now"):
        store.write(snapshot("s", 3), TableRules())
    assert os.listdir(out_dir) == ([SESSIONS] if n_checks >= 2 else [])


def test_metadata(out_dir):
    kept = earlier({"s/2020-01-01/001": EarlierSession(None, "", "p")}, {})
    for rules in (TableRules(), TableRules(lab="lab", with_hashes=True, kept=kept)):
        TableWriter(out_dir, "/data/root").write(snapshot("s", 3), rules)
        for name in (SESSIONS, DATASETS):
            metadata = pq.read_metadata(out_dir / name).metadata
            one = json.loads(metadata[b"one_metadata"])
            assert one.keys() == {"date_created", "origin"}
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", one["date_created"])
            assert one["origin"] == "/data/root"
            own = json.loads(metadata[METADATA_KEY])
            age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(own.pop("written_at"))
            assert abs(age) < datetime.timedelta(minutes=10)
            assert own == {
                "generation": 3,
                "namespace": str(rules.namespace),
                "lab": rules.lab,
                "with_hashes": rules.with_hashes,
                "ids_with_lab": True,
                "has_kept": rules.kept is kept,
                "adopted": "",
                "keep_missing": False,
            }
            assert b"pandas" in metadata


def test_tables_tell_when_their_walk_began(out_dir):
    began = datetime.datetime(2024, 5, 6, 9, 8, 7, 654321, datetime.timezone(datetime.timedelta(hours=2)))
    TableWriter(out_dir, "/data").write(snapshot("s", 3), TableRules(), began)
    for name in (SESSIONS, DATASETS):
        assert json.loads(pq.read_metadata(out_dir / name).metadata[METADATA_KEY])["written_at"] == (
            "2024-05-06T07:08:07+00:00"
        )


def test_what_is_read_is_what_was_written(out_dir):
    rules = TableRules(lab="lab")
    TableWriter(out_dir, "/data").write(snapshot("st", 5), rules)
    stored = read_tables(out_dir)
    assert stored.sessions.equals(sessions_table(snapshot("st"), rules))
    written = datasets_table(snapshot("st"), rules)
    assert read_file(out_dir / DATASETS).cast(written.schema).equals(written)  # before 20, pyarrow makes int8 int32
    assert stored.datasets.to_pylist() == written.to_pylist()
    assert (stored.datasets.schema.field("eid").type, stored.datasets.schema.field("id").type) == (pa.string(),) * 2
    assert (stored.generation, stored.metadata["lab"]) == (5, "lab")
    assert stored.modified == (out_dir / DATASETS).stat().st_mtime
    assert read_generation(out_dir) == (5, stored.metadata)
    assert read_sessions(out_dir).equals(stored.sessions)
    expected = {uuid.UUID(row["id"]).bytes: row["file_size"] for row in stored.datasets.to_pylist()}
    assert {row["id"]: row["file_size"] for row in ids_and_sizes(out_dir).to_pylist()} == expected


def test_both_files_have_the_same_generation_at_rest(out_dir):
    store = TableWriter(out_dir, "/data")
    for generation, present in enumerate(["s", "st", "t", "uv", ""], 1):
        store.write(snapshot(present, generation), TableRules())
        found = {generation_of(out_dir / name) for name in (SESSIONS, DATASETS)}
        assert (found, subjects(out_dir)) == ({generation}, present)


def generation_of(path):
    return json.loads(pq.read_metadata(path).metadata[METADATA_KEY])["generation"]


# How the files are replaced.


def parse_events(buffer):
    """Yield the kind and the file name of each event; see inotify(7)."""
    place = 0
    while place < len(buffer):
        _, event, _, length = struct.unpack_from("iIII", buffer, place)
        place += struct.calcsize("iIII") + length
        yield event, buffer[place - length : place].rstrip(b"\0").decode()


@contextmanager
def trace(folder):
    """Record what happens in a folder, in order, as (event, file name)."""
    fd = inotify_init()
    steps = []
    words = {
        InotifyConstants.IN_CREATE: "create",
        InotifyConstants.IN_MOVED_TO: "arrive",
        InotifyConstants.IN_MOVED_FROM: "leave",
        InotifyConstants.IN_DELETE: "delete",
        InotifyConstants.IN_MODIFY: "modify",
    }
    mask = 0
    for each in words:
        mask |= each
    try:
        inotify_add_watch(fd, bytes(folder), mask)
        yield steps
        (folder / "end").touch()
        while not steps or steps[-1][1] != "end":
            buffer = os.read(fd, 1 << 20)
            steps += [(words[event], name) for event, name in parse_events(buffer)]
        del steps[-1]
    finally:
        os.close(fd)
        (folder / "end").unlink()


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
    store = TableWriter(out_dir, "/data")
    store.write(snapshot(before), TableRules())
    if restarted:
        store = TableWriter(out_dir, "/data")
    with trace(out_dir) as steps:
        store.write(snapshot(after, 2), TableRules())
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
    store = TableWriter(out_dir, "/data")
    store.write(snapshot("s"), TableRules())
    inodes = []
    with at_each_rename(out_dir, lambda: inodes.append((out_dir / SESSIONS).stat().st_ino)) as calls:
        store.write(snapshot("st", 2), TableRules())
    assert calls == [f"{out_dir}/.sessions.pqt.tmp", str(out_dir), f"{out_dir}/.datasets.pqt.tmp", str(out_dir)]
    assert inodes == [(out_dir / SESSIONS).stat().st_ino] * 2


def orphans(out_dir):
    """Return the eids of dataset rows that have no session."""
    datasets, sessions = (read_file(out_dir / name) for name in (DATASETS, SESSIONS))
    return set(datasets["eid"].to_pylist()) - set(sessions["id"].to_pylist())


SUBJECT_SETS = st.sets(st.sampled_from("stuv")).map(sorted)


@settings(max_examples=25)
@given(st.lists(st.tuples(SUBJECT_SETS, st.booleans(), st.sampled_from(["", SESSIONS, DATASETS])), max_size=6))
def test_every_dataset_has_its_session_at_every_moment(history):
    """Whatever is added and removed, at restarts too, and after writes that failed half-way."""
    with fast_folder() as out_dir, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "_TO_SESSIONS", 0.0)  # nobody reads here but the test, within a moment
        patch.setattr(store_module, "_TO_DATASETS", 0.0)
        store = TableWriter(out_dir, "/data")
        store.write(snapshot("st"), TableRules())
        n_looks = []

        def check():
            assert orphans(out_dir) == set()
            n_looks.append(1)

        for generation, (present, restarted, broken) in enumerate(history, 2):
            if restarted:
                store = TableWriter(out_dir, "/data")
            with at_each_rename(out_dir, check), failing(out_dir, broken):
                try:
                    store.write(snapshot(present, generation), TableRules())
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

    store, seen = TableWriter(out_dir, "/data"), []
    store.write(rows("s/2020-01-01/1", "t/2020-01-01/001"), TableRules())
    with at_each_rename(out_dir, lambda: seen.append(read_file(out_dir / SESSIONS)["subject"].to_pylist())):
        store.write(rows("s/2020-01-01/001", "u/2020-01-01/001"), TableRules())  # renamed, and so of the same eid
    assert [sorted(each) for each in seen] == [["s", "t", "u"], ["s", "t", "u"], ["s", "u"]]


@contextmanager
def failing(out_dir, name):
    """Let the writing of a file fail: a folder with something in it lies where its temporary file should be."""
    place = out_dir / f".{name}.tmp"
    if name:
        (place / "something").mkdir(parents=True)
    try:
        yield
    finally:
        if name:
            shutil.rmtree(place)


def test_a_reader_never_sees_half_a_file(out_dir):
    store = TableWriter(out_dir, "/data")
    store.write(snapshot("s", n_datasets=2000), TableRules())
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
            store.write(snapshot("st" if generation % 2 else "su", generation, n_datasets=2000), TableRules())
    finally:
        done.set()
        for reader in readers:
            reader.join(PATIENCE)
    assert errors == []


# The lock that One takes, too.


def test_the_lock_of_one_is_honoured(out_dir):
    store = TableWriter(out_dir, "/data")
    store.write(snapshot("s"), TableRules())
    before = contents(out_dir)
    writer = threading.Thread(target=store.write, args=(snapshot("t", 2), TableRules()))
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
    store = TableWriter(out_dir, "/data")
    assert not store.is_untouched()
    store.write(snapshot("s"), TableRules())
    assert store.is_untouched()
    assert not TableWriter(out_dir, "/data").is_untouched()
    for name in (SESSIONS, DATASETS):
        copy = out_dir / "copy"
        copy.write_bytes((out_dir / name).read_bytes())
        copy.rename(out_dir / name)
        assert not store.is_untouched()
        store.write(snapshot("s", 2), TableRules())
        assert store.is_untouched()
        (out_dir / name).unlink()
        assert not store.is_untouched()
        store.write(snapshot("s", 3), TableRules())
    os.utime(out_dir / SESSIONS, ns=(1, 1))
    assert not store.is_untouched()


def test_rows_that_another_program_put_back_go_in_the_right_order(out_dir):
    # One.save_cache merges what it has in memory into the files.
    store, other = TableWriter(out_dir, "/data"), TableWriter(out_dir, "/other")
    store.write(snapshot("s"), TableRules())
    other.write(snapshot("st"), TableRules())
    with trace(out_dir) as steps:
        store.write(snapshot("s", 2), TableRules())
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
    before = ids_and_sizes(out_dir)
    TableWriter(out_dir, "/data").write(snapshot("st", 3), TableRules())
    assert (subjects(out_dir), orphans(out_dir)) == ("st", set())
    after = ids_and_sizes(out_dir)
    old, new = (set(table["id"].to_pylist()) if table else set() for table in (before, after))
    assert compare(before, after) == Changes(len(new - old), 0, len(old - new))
    assert len(new) == 4
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
    assert (read_tables(out_dir), generation) == (None, 0 if len(missing) == 2 else 3)  # which never goes back
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
    store = TableWriter(out_dir, "/data")
    store.write(snapshot("s", 3), TableRules())
    with failing(out_dir, DATASETS), pytest.raises(TablesError):
        store.write(snapshot("st", 4), TableRules())
    assert [generation_of(out_dir / name) for name in (SESSIONS, DATASETS)] == [4, 3]
    assert (read_generation(out_dir)[0], read_tables(out_dir).generation) == (4, 4)
    assert not store.is_untouched()


# Disks that fail.


def test_a_file_that_cannot_be_replaced_is_told(out_dir):
    (out_dir / SESSIONS).mkdir()
    (out_dir / SESSIONS / "x").touch()
    with pytest.raises(TablesError, match="could not be written"):
        TableWriter(out_dir, "/data").write(snapshot("s"), TableRules())
    assert [path.name for path in out_dir.iterdir()] == [SESSIONS]


@needs_root
def test_a_full_disk_keeps_what_is_there(out_dir):
    def run():
        place = out_dir / "disk"
        place.mkdir()
        mount_tmpfs(place, "size=256k")
        store = TableWriter(place, "/data")
        store.write(snapshot("s", 1), TableRules())
        before = contents(place)
        with (place / "ballast").open("wb", buffering=0) as ballast:
            try:
                while ballast.write(bytes(4096)):
                    pass
            except OSError as error:
                full = str(error)
        messages = []
        for _ in range(3):
            try:
                store.write(snapshot("st", 2, n_datasets=3000), TableRules())
            except TablesError as error:
                messages.append(str(error))
        after = contents(place)
        (place / "ballast").unlink()
        n_leaked = sum(path.startswith(str(place)) for path in open_files())
        store.write(snapshot("st", 2, n_datasets=10), TableRules())
        return full, messages, before, after, n_leaked, subjects(place), sorted(os.listdir(place))

    full, messages, before, after, n_leaked, found, names = with_own_mounts(run)
    assert "No space left" in full
    assert len(messages) == 3
    assert all("No space left on device" in message for message in messages)
    assert after.keys() == before.keys() | {"ballast"}
    assert {name: after[name] for name in before} == before
    assert (n_leaked, found, names) == (0, "st", [DATASETS, SESSIONS])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "", Changes(0, 0, 0)),
        ("", "s", Changes(2, 0, 0)),
        ("st", "st", Changes(0, 0, 0)),
        ("st", "t", Changes(0, 0, 2)),
        ("st", "tu", Changes(2, 0, 2)),
        (None, "s", Changes(2, 0, 0)),
        ("s", None, Changes(0, 0, 2)),
        (None, None, Changes(0, 0, 0)),
    ],
)
@pytest.mark.parametrize("size", [7, 8])
def test_what_changed_between_two_tables(before, after, expected, size):
    def table(present, size):
        if present is None:
            return None
        rows = datasets_table(snapshot(present, size=size), TableRules()).select(["id", "file_size"])
        return rows.cast(pa.schema([("id", pa.string()), ("file_size", pa.uint64())]))

    kept = set(before or "") & set(after or "")
    changed = 2 * len(kept) * (size != 7)
    assert compare(table(before, 7), table(after, size)) == Changes(expected.added, changed, expected.removed)


def test_an_output_folder_must_be_there(out_dir):
    check_out_dir(out_dir)
    (out_dir / "file").touch()
    for path in (out_dir / "missing", out_dir / "file"):
        with pytest.raises(OutDirError, match="does not exist or is not a folder"):
            check_out_dir(path)
    assert issubclass(OutDirError, AssertionError)  # as upstream's


def test_an_output_folder_must_be_writable():
    if os.geteuid() == 0:
        # Nothing is closed to root but what the kernel itself keeps closed.
        with pytest.raises(OutDirError, match="not writable"):
            check_out_dir(Path("/proc/self"))
        return
    with fast_folder() as folder:
        folder.chmod(0o555)
        with pytest.raises(OutDirError, match="not writable"):
            check_out_dir(folder)
