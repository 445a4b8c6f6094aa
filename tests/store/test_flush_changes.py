"""A generation is raised at each change that readers can see, and at nothing else; the journal tells which it was."""

import random
import uuid
from contextlib import closing

import pyarrow.parquet as pq
import pytest

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.errors import TablesError
from alfwatchd.journal.entries import Cursor
from alfwatchd.journal.journal import Bounds, Journal
from alfwatchd.store.reader import read_version
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.earlier import EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import earlier, folder_rows
from kit.tables import closed_folder, failing, read_file, snapshot

pytestmark = pytest.mark.usefixtures("no_readers")

PLAIN = TableRules()


class Box:
    """A writer with a journal, and a reader who follows the journal only."""

    def __init__(self, folder):
        self.out_dir, self.state_dir = folder / "out", folder / "state"
        for each in (self.out_dir, self.state_dir):
            each.mkdir()
        self.cursor, self.rows = Cursor("", 0), {}
        self.n_fresh = 0
        self.begin()

    def begin(self, *, layout=True):
        self.journal = Journal(self.state_dir, Bounds())
        place = self.state_dir / "layout" if layout else None
        self.writer = TableWriter(self.out_dir, "/data", place, journal=self.journal)

    def restart(self, **made):
        self.writer.close()
        self.begin(**made)

    def write(self, rows, rules=PLAIN):
        return self.writer.write(rows, rules).generation

    def on_disk(self):
        """Return path -> all that the tables say of a session."""
        sessions = read_file(self.out_dir / SESSIONS).to_pylist()
        datasets = {}
        for row in read_file(self.out_dir / DATASETS).to_pylist():
            datasets.setdefault(row["eid"], []).append(tuple(sorted((key, str(row[key])) for key in row)))
        return {
            f"{row['subject']}/{row['date']}/{row['number']:03d}": (row, sorted(datasets.get(row["id"], [])))
            for row in sessions
        }

    def follow(self, limit=3):
        """Take over only what the journal names, and everything where it says so."""
        now = self.on_disk()
        while True:
            page = self.journal.feed.page(self.cursor, limit)
            if page.is_fresh:
                self.rows, self.n_fresh = dict(now), self.n_fresh + 1
            for told in page.told:
                self.rows.pop(told.change.path, None)
                if told.change.kind != "removed":
                    self.rows[told.change.path] = now[told.change.path]
            self.cursor = page.next
            if page.is_last:
                return now


@pytest.fixture
def box():
    with closed_folder() as folder:
        box = Box(folder)
        yield box
        box.writer.close()


def sessions_of(chance, hashes):
    """Return sessions with some datasets each; equal ones are not the same object, as after a scan."""
    made = []
    for number in chance.sample(range(6), chance.randrange(7)):
        files = {}
        for name in chance.sample("abc", chance.randrange(4)):
            digest = chance.choice((b"", b"d" * 16, b"e" * 16)) if hashes else b""
            files[f"{name}.b.c"] = pack_signature(chance.randrange(3), chance.randrange(9), 1, False) + digest
        made.append(Session(f"s{number}/2020-01-01/001", tuple(filter(None, [folder_rows("alf", files)]))))
    return made


def known(chance):
    """Return what a database or earlier tables say of some sessions."""
    rows = {
        f"s{number}/2020-01-01/001": EarlierSession(
            uuid.UUID(int=chance.randrange(3) + 10 * number).bytes if chance.random() < 0.5 else None,
            "", chance.choice(("", "p", "q")),
        )
        for number in chance.sample(range(6), 3)
    }  # fmt: skip
    return KnownColumns.of(earlier(rows, {}))


@pytest.mark.parametrize("seed", range(40))
def test_a_reader_of_the_journal_has_the_rows_of_the_tables(box, seed):
    """Whatever happens: restarts, other columns, failures, other programs that write, a journal that is lost."""
    chance = random.Random(seed)
    rules, rows = TableRules(with_hashes=bool(seed % 2)), []
    before, generation = None, 0
    for step in range(25):
        rows = chance.choice((rows, sessions_of(chance, seed % 2)))
        story = chance.randrange(12)
        if story == 0:
            box.restart(layout=chance.random() < 0.5)
        elif story == 1:
            rules = TableRules(with_hashes=rules.with_hashes, known=known(chance))
        elif story == 2:
            name = chance.choice((SESSIONS, DATASETS))
            with failing(box.out_dir, name), pytest.raises(TablesError):
                box.write(Snapshot(step, {each.path: each for each in sessions_of(chance, seed % 2)}), rules)
        elif story == 3 and before is not None:
            with closing(TableWriter(box.out_dir, "/data")) as other:
                other.write(Snapshot(step, {each.path: each for each in sessions_of(chance, seed % 2)}), PLAIN)
        elif story == 4:
            for each in box.journal.folder.glob("*"):
                each.unlink()
            box.restart()
        is_plain = story not in (2, 3, 4)
        new = box.write(Snapshot(step, {each.path: each for each in rows}), rules)
        now = box.follow(chance.randrange(1, 5))
        assert box.rows == now
        assert read_version(box.out_dir)[::2] == (new, True)
        assert new >= generation
        if before is not None and is_plain:
            assert (new > generation) is (now != before)
        before, generation = now, new


def test_an_unchanged_tree_makes_no_generation(box):
    """A restart raised it by the number of sessions, and each reader took everything again."""
    first = box.write(snapshot("stu"))
    for made in ({}, {"layout": False}, {}):
        box.restart(**made)
        assert box.write(snapshot("stu")) == first
    box.follow()
    assert box.write(snapshot("st")) == first + 1
    box.follow()
    assert box.n_fresh == 1
    assert set(box.rows) == {"s/2020-01-01/001", "t/2020-01-01/001"}


def test_a_change_of_the_database_alone_makes_one(box):
    """A reader that followed the generation took pairs that did not belong together."""
    first = box.write(snapshot("st"))
    known = KnownColumns.of(earlier({"s/2020-01-01/001": EarlierSession(None, "", "p")}, {}))
    assert box.write(snapshot("st"), TableRules(known=known)) == first + 1
    (told,) = box.journal.feed.page(Cursor("", first), 9).told
    assert (told.change.path, told.change.columns) == ("s/2020-01-01/001", ("projects",))
    again = KnownColumns.of(earlier({"s/2020-01-01/001": EarlierSession(None, "", "p")}, {}))
    assert box.write(snapshot("st"), TableRules(known=again)) == first + 1


def test_it_goes_on_where_everything_but_the_tables_is_lost(box):
    for number in range(3):
        last = box.write(snapshot("stuv"[: number + 1]))
    for each in [*box.journal.folder.iterdir(), *box.state_dir.glob("*.*")]:
        each.unlink()
    box.restart()
    assert box.write(snapshot("s")) == last + 1


def test_it_goes_on_where_the_tables_are_lost(box):
    for number in range(3):
        last = box.write(snapshot("stuv"[: number + 1]))
    for name in (SESSIONS, DATASETS):
        (box.out_dir / name).unlink()
    box.restart()
    assert box.write(snapshot("stu")) == last + 1
    box.follow()
    assert set(box.rows) == {f"{each}/2020-01-01/001" for each in "stu"}


def test_after_a_file_of_another_generation_it_is_higher_than_both(box):
    """A write failed between the two files; the next one must not make a pair of what was written at two times."""
    first = box.write(snapshot("s"))
    with failing(box.out_dir, DATASETS), pytest.raises(TablesError):
        box.write(snapshot("st"))
    assert not read_version(box.out_dir).is_pair
    assert box.write(snapshot("su")) == first + 2
    box.follow()
    assert box.rows == box.on_disk()


def test_a_renamed_session_is_told_at_both_paths(box):
    first = box.write(snapshot("s", size=1))
    old = snapshot("s", size=1).sessions["s/2020-01-01/001"]
    new = Session("t/2020-01-01/001", old.folders)
    box.write(Snapshot(2, {new.path: new}))
    gone, came = (each.change for each in box.journal.feed.page(Cursor("", first), 9).told)
    assert (gone.kind, gone.path, gone.renamed_to) == ("removed", old.path, new.path)
    assert (came.kind, came.path, came.renamed_from) == ("added", new.path, old.path)
    rows = pq.read_table(box.out_dir / SESSIONS).to_pylist()
    assert came.eid == rows[0]["id"]
    assert gone.eid not in ("", came.eid)
