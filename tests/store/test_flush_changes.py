"""A generation is raised at each change that readers can see, and at nothing else; the journal tells which it was."""

import random
import uuid
from contextlib import closing

import pyarrow.parquet as pq
import pytest

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.errors import TablesError
from alfwatchd.journal.entries import Cursor
from alfwatchd.store.reader import read_version
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.earlier import EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.flushes import PLAIN, FlushBox
from kit.rows import earlier, folder_rows
from kit.tables import closed_folder, failing, snapshot

pytestmark = pytest.mark.usefixtures("no_readers")


@pytest.fixture
def box():
    with closed_folder() as folder:
        box = FlushBox(folder)
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


@pytest.mark.parametrize("seed", range(16))
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
