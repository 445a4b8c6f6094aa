"""What the tables hold is noted for the next process: it writes what differs, and trusts nothing that may be untrue."""

import json
import os
import random
import shutil
import uuid
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.errors import TablesError
from alfwatchd.store import layout, writer
from alfwatchd.store.reader import METADATA_KEY, read_tables
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables import columns, row_groups
from alfwatchd.tables.adoption import adopt
from alfwatchd.tables.columns import datasets_table, sessions_table
from alfwatchd.tables.earlier import NO_DATASETS, Earlier, EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import datasets_of, folder_rows, sessions_of
from kit.trees import fast_folder

PLAIN = TableRules()


def database(numbers, seed=0, *, keep_missing=False):
    """Return what a database knows that has these sessions: of each a dataset that is here, and one that is not."""
    eids = {number: str(uuid.UUID(int=1000 * seed + number, version=4)) for number in numbers}
    known = [{"id": eid, "subject": f"s{number}", "projects": "p"} for number, eid in eids.items()]
    rows = [
        {
            "eid": eid,
            "rel_path": name,
            "id": str(uuid.UUID(int=(seed << 64) + 10 * number + at, version=4)),
            "qc": "PASS",
        }
        for number, eid in eids.items()
        for at, name in enumerate(("alf/a1.b.c", "alf/away.b.c"))
    ]
    return adopt(sessions_of(*known), datasets_of(*rows), keep_missing=keep_missing)


DATABASES = [
    database(range(20)),
    database(range(5, 60), 1),
    database(range(20), keep_missing=True),
    database(range(30, 80), 2, keep_missing=True),
]
EARLIER = Earlier({"s1/2020-01-01/001": EarlierSession(None, "", "p")}, NO_DATASETS)


@pytest.fixture
def out_dir():
    with fast_folder() as folder, small_groups():
        yield folder


@contextmanager
def small_groups():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_groups, "ROWS_PER_GROUP", 8)
        patch.setattr(writer, "TO_SESSIONS_SECONDS", 0.0)  # nobody reads here but the tests, in their own order
        patch.setattr(writer, "TO_DATASETS_SECONDS", 0.0)
        yield


def new_writer(out_dir):
    return TableWriter(out_dir, "/data", out_dir / "layout")


@cache  # what does not change is one object, as in the daemon
def session(number, size):
    files = {f"a{each}.b.c": pack_signature(size + each, 1, 2, False) for each in range(3)}
    return Session(f"s{number}/2020-01-01/001", (folder_rows("alf", files),))


def snapshot(numbers, n_changes=1, *, sizes=None):
    """Return a snapshot of one session for each number, with three datasets of a size."""
    sessions = [session(number, (sizes or {}).get(number, 7)) for number in numbers]
    return Snapshot(n_changes, {each.path: each for each in sessions})


def check(out_dir, rows, rules=PLAIN):
    """Compare both files with what a program writes that knows no row groups."""
    rows, generations = rules.complete(rows), set()
    for name, make in ((SESSIONS, sessions_table), (DATASETS, datasets_table)):
        with pq.ParquetFile(out_dir / name) as file:
            found = file.read()
        expected = make(rows, rules)
        assert found.to_pylist() == expected.to_pylist()
        assert found.schema.remove_metadata() == expected.schema.remove_metadata()
        generations.add(json.loads(found.schema.metadata[METADATA_KEY])["generation"])
    assert len(generations) == 1


@contextmanager
def encoded():
    """Collect the paths of the sessions whose dataset rows are made; the spy lets everything through."""
    found, real = [], columns.dataset_rows

    def spy(sessions, rules):
        found.extend(each.path for _, each in sessions)
        return real(sessions, rules)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "dataset_rows", spy)
        yield found


MANY = range(40)
OTHERS = {
    "nothing": (snapshot(MANY, 2), set()),
    "a size": (snapshot(MANY, 2, sizes={3: 8}), {3}),
    "a session less": (snapshot(range(1, 40), 2), {0}),
    "a session more": (snapshot(range(41), 2), {40}),
    "another session": (snapshot([*range(1, 40), 40], 2), {0, 40}),
}


@pytest.mark.parametrize(("after", "numbers"), OTHERS.values(), ids=OTHERS)
def test_a_new_process_makes_only_rows_that_differ(out_dir, after, numbers):
    new_writer(out_dir).write(snapshot(MANY), PLAIN)
    every = snapshot(range(41))
    groups = row_groups.plan_all(every, PLAIN, 5).partition
    changed = {groups.group_of(groups.eids[f"s{number}/2020-01-01/001"]) for number in numbers}
    with encoded() as found:
        new_writer(out_dir).write(after, PLAIN)
    check(out_dir, after)
    assert set(found) == {path for group in changed for _, path in groups.members[group] if path in after.sessions}


def test_rows_that_did_not_change_stay_where_they_are(out_dir):
    table_writer = new_writer(out_dir)
    table_writer.write(snapshot(MANY), PLAIN)
    table_writer.write(snapshot(MANY, 2, sizes={3: 10**15}), PLAIN)  # a group moves into no hole of equal size
    before = places(out_dir)
    new_writer(out_dir).write(snapshot(MANY, 3, sizes={3: 10**15}), PLAIN)
    assert places(out_dir) == before
    os.remove(out_dir / "layout")
    new_writer(out_dir).write(snapshot(MANY, 4, sizes={3: 10**15}), PLAIN)
    assert places(out_dir) != before
    check(out_dir, snapshot(MANY, 4, sizes={3: 10**15}))


def places(out_dir):
    metadata = pq.read_metadata(out_dir / DATASETS)
    return [metadata.row_group(each).column(0).data_page_offset for each in range(metadata.num_row_groups)]


@pytest.mark.parametrize("n_writes", [1, 2, 3])
def test_what_is_noted_holds_after_each_write_and_not_only_at_the_end(out_dir, n_writes):
    table_writer = new_writer(out_dir)
    for generation in range(1, n_writes + 1):
        rows = snapshot(range(generation, 40), generation, sizes={7: generation})
        table_writer.write(rows, PLAIN)
    with encoded() as found:
        new_writer(out_dir).write(rows, PLAIN)
    assert found == []
    check(out_dir, rows)


def test_young_tables_of_equal_rows_stay_as_they_are(out_dir):
    # A cron job that indexes a tree in which nothing changes wrote both files again at each run.
    new_writer(out_dir).write(snapshot(MANY, 1), PLAIN)
    marks = [os.stat(out_dir / name).st_ino for name in (SESSIONS, DATASETS)]

    def write(rows, rules=PLAIN, seconds=3600.0):
        new_writer(out_dir).write(rows, rules, renewed_seconds=seconds)
        return [os.stat(out_dir / name).st_ino for name in (SESSIONS, DATASETS)]

    assert write(snapshot(MANY, 2)) == marks
    assert read_tables(out_dir).generation == 1
    assert write(snapshot(MANY, 2), seconds=0.0) != marks  # prune asks how old they are
    marks = write(snapshot(MANY, 3))
    assert write(snapshot(MANY[1:], 4)) != marks
    check(out_dir, snapshot(MANY[1:], 4))


# What may be untrue.


def layout_of(out_dir):
    return out_dir / "layout"


def flip(place):
    def change(out_dir):
        content = bytearray(layout_of(out_dir).read_bytes())
        content[int(place * (len(content) - 1))] ^= 1
        layout_of(out_dir).write_bytes(content)

    return change


def replace_table(name):
    def change(out_dir):
        copy = out_dir / "copy"
        copy.write_bytes((out_dir / name).read_bytes())
        copy.rename(out_dir / name)

    return change


UNTRUE = {
    "gone": lambda out_dir: layout_of(out_dir).unlink(),
    "empty": lambda out_dir: layout_of(out_dir).write_bytes(b""),
    "cut off": lambda out_dir: os.truncate(layout_of(out_dir), layout_of(out_dir).stat().st_size - 1),
    "a folder": lambda out_dir: (layout_of(out_dir).unlink(), layout_of(out_dir).mkdir()),
    **{f"damaged at {place}": flip(place) for place in (0, 0.01, 0.1, 0.5, 1)},
    **{f"another {name}": replace_table(name) for name in (SESSIONS, DATASETS)},
    "another time": lambda out_dir: os.utime(out_dir / DATASETS, ns=(1, 1)),
    "no sessions": lambda out_dir: (out_dir / SESSIONS).unlink(),
    "no datasets": lambda out_dir: (out_dir / DATASETS).unlink(),
}


@pytest.mark.parametrize("change", UNTRUE.values(), ids=UNTRUE)
def test_what_may_be_untrue_is_not_used(out_dir, change):
    rows = snapshot(MANY, 2)
    new_writer(out_dir).write(snapshot(MANY), PLAIN)
    change(out_dir)
    with encoded() as found:
        new_writer(out_dir).write(rows, PLAIN)
    assert set(found) == set(rows.sessions)
    check(out_dir, rows)


@pytest.mark.parametrize(
    "rules",
    [
        TableRules(lab="lab"),
        TableRules(with_hashes=True),
        TableRules(namespace=uuid.UUID(int=1)),
        TableRules(known=KnownColumns.of(EARLIER)),
    ],
    ids=["lab", "hashes", "namespace", "earlier"],
)
@pytest.mark.parametrize("is_first", [False, True])
def test_rows_that_become_other_columns_are_all_written(out_dir, rules, is_first):
    rows = snapshot(MANY, 2)
    old, new = (rules, PLAIN) if is_first else (PLAIN, rules)
    new_writer(out_dir).write(snapshot(MANY), old)
    with encoded() as found:
        new_writer(out_dir).write(rows, new)
    assert set(found) == set(rows.sessions)
    check(out_dir, rows, new)


def test_another_version_of_the_program_writes_everything(out_dir, monkeypatch):
    new_writer(out_dir).write(snapshot(MANY), PLAIN)
    monkeypatch.setattr(layout, "find_version", lambda: "other")
    with encoded() as found:
        new_writer(out_dir).write(snapshot(MANY, 2), PLAIN)
    assert len(set(found)) == len(MANY)


def test_tables_elsewhere_are_others(out_dir):
    new_writer(out_dir).write(snapshot(MANY), PLAIN)
    other = out_dir / "other"
    other.mkdir()
    for name in (SESSIONS, DATASETS):
        os.link(out_dir / name, other / name)  # the same file, down to inode and time
    with encoded() as found:
        TableWriter(other, "/data", out_dir / "layout").write(snapshot(MANY, 2), PLAIN)
    assert len(set(found)) == len(MANY)


def test_nothing_is_noted_if_no_file_is_given(out_dir):
    TableWriter(out_dir, "/data").write(snapshot(MANY), PLAIN)
    assert sorted(path.name for path in out_dir.iterdir()) == [DATASETS, SESSIONS]


def test_what_cannot_be_noted_costs_no_flush(out_dir):
    (out_dir / ".layout.tmp/kept").mkdir(parents=True)
    table_writer = new_writer(out_dir)
    table_writer.write(snapshot(MANY), PLAIN)
    check(out_dir, snapshot(MANY))
    assert table_writer.is_untouched()
    assert not (out_dir / "layout").exists()


# Crashes and failures at each point.


class Crash(BaseException):
    pass


@contextmanager
def crash_at(number):
    """End the process, as far as this can be played, before its nth step that others can see."""
    steps, real, rename = [0], os.fsync, os.replace

    def step():
        steps[0] += 1
        if steps[0] == number:
            raise Crash

    def fsync(fd):
        step()
        real(fd)

    def replace(*arguments, **options):
        step()
        rename(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        patch.setattr(os, "replace", replace)
        yield steps


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    "numbers", [MANY, range(41), range(1, 40), range(1, 41)], ids=["same", "more", "less", "other"]
)
def test_a_crash_at_any_point_leaves_tables_that_the_next_process_makes_right(out_dir, before, numbers):
    sizes = {3: 8, 9: 10**15}
    number, n_steps = 0, 1
    while number < n_steps:
        number += 1
        for path in out_dir.iterdir():
            path.unlink()
        table_writer = new_writer(out_dir)
        table_writer.write(snapshot(MANY), PLAIN)
        table_writer = table_writer if before else new_writer(out_dir)
        with crash_at(number) as steps:
            try:
                table_writer.write(snapshot(numbers, 2, sizes=sizes), PLAIN)
            except Crash:
                n_steps = number + 1
            else:
                assert steps[0] < number
        assert {row["eid"] for row in rows_of(out_dir / DATASETS)} <= {row["id"] for row in rows_of(out_dir / SESSIONS)}
        new_writer(out_dir).write(snapshot(numbers, 3, sizes=sizes), PLAIN)
        check(out_dir, snapshot(numbers, 3, sizes=sizes))
    assert number > 6


def rows_of(path):
    with pq.ParquetFile(path) as file:
        return file.read().to_pylist()


@contextmanager
def failing(out_dir, name):
    """Let the writing of a file fail: a folder with something in it lies in the place of the temporary one."""
    (out_dir / name / "something").mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(out_dir / name)


def test_a_write_that_failed_goes_on_from_what_was_noted(out_dir):
    table_writer = new_writer(out_dir)
    table_writer.write(snapshot(MANY), PLAIN)
    with failing(out_dir, ".sessions.pqt.tmp"), pytest.raises(TablesError):
        table_writer.write(snapshot(MANY, 2, sizes={3: 8}), PLAIN)
    with encoded() as found:
        table_writer.write(snapshot(MANY, 3, sizes={3: 8}), PLAIN)
    check(out_dir, snapshot(MANY, 3, sizes={3: 8}))
    assert 0 < len(found) < len(MANY)


STEPS = st.tuples(st.integers(0, 2**32), st.sampled_from(["go on", "restart", "damage", "foreign", "fail"]))


@settings(max_examples=15)
@given(st.lists(STEPS, max_size=8))
def test_whatever_happens_the_tables_are_those_of_a_plain_writer(history):
    with fast_folder() as out_dir, small_groups():
        table_writer, rules = new_writer(out_dir), PLAIN
        for generation, (seed, event) in enumerate(history, 1):
            rng = random.Random(seed)
            numbers = rng.sample(range(60), rng.choice([0, 1, 30, 58, 60]))
            rows = snapshot(numbers, generation, sizes={number: rng.randrange(9) for number in numbers[:3]})
            rule_sets = [
                PLAIN,
                TableRules(lab="lab"),
                TableRules(known=KnownColumns.of(EARLIER)),
                *map(PLAIN.adopt, DATABASES),
            ]
            last, rules = rules, rng.choice([rules] * len(rule_sets) + rule_sets)
            is_other = (last.lab, last.known.earlier) != (
                rules.lab,
                rules.known.earlier,
            )  # in one process, given ids stay
            if is_other or event in ("restart", "damage"):
                table_writer = new_writer(out_dir)
            if event == "damage" and layout_of(out_dir).exists():
                flip(rng.random())(out_dir)
            if event == "foreign" and (out_dir / DATASETS).exists():
                TableWriter(out_dir, "/data").write(snapshot(rng.sample(range(60), 20), 99), PLAIN)
            if event == "fail":
                name = rng.choice([".sessions.pqt.tmp", ".datasets.pqt.tmp"])
                with failing(out_dir, name), pytest.raises(TablesError):
                    table_writer.write(rows, rules)
            table_writer.write(rows, rules)
            check(out_dir, rows, rules)


@settings(max_examples=10)
@given(st.lists(st.integers(0, 2**32), max_size=6))
def test_each_id_that_a_database_changes_is_told_before_the_tables_are_replaced(seeds):
    with fast_folder() as out_dir, small_groups():
        told, rules = [], PLAIN
        table_writer = TableWriter(out_dir, "/data", out_dir / "layout", told.append)
        for generation, seed in enumerate([0, *seeds], 1):
            rng = random.Random(seed)
            rows = snapshot(rng.sample(range(60), rng.choice([30, 60])), generation)
            rules, last = rng.choice([PLAIN, rules, *map(PLAIN.adopt, DATABASES)]), rules
            if rng.random() < 0.3:
                table_writer = TableWriter(out_dir, "/data", out_dir / "layout", told.append)
            before = ids_in(out_dir)
            told.clear()
            table_writer.write(rows, rules)
            after = ids_in(out_dir)
            changes = {(row["old"], row["new"]) for each in told for row in each.changes.to_pylist()}
            same_rows = before.keys() & after.keys()
            assert changes == {(before[row], after[row]) for row in same_rows if before[row] != after[row]}
            assert rules.makes_same_columns(last) or len(told) == 1


def ids_in(out_dir):
    """Return (subject, rel_path) -> id of what the tables hold, sessions with an empty rel_path."""
    if not (out_dir / SESSIONS).exists():
        return {}
    tables = read_tables(out_dir)
    subjects = {row["id"]: row["subject"] for row in tables.sessions.to_pylist()}
    found = {(subject, ""): eid for eid, subject in subjects.items()}
    return found | {(subjects[row["eid"]], row["rel_path"]): row["id"] for row in tables.datasets.to_pylist()}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("name", [SESSIONS, DATASETS, "layout", ".layout.tmp"])
def test_what_stands_in_the_place_of_a_file_is_neither_read_nor_waited_for(out_dir, name, make):
    new_writer(out_dir).write(snapshot(MANY), PLAIN)
    (out_dir / name).unlink(missing_ok=True)
    make(out_dir / name)
    new_writer(out_dir).write(snapshot(MANY, 2), PLAIN)
    check(out_dir, snapshot(MANY, 2))
    assert (out_dir / "layout").is_file()
