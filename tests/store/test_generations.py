"""A generation is raised at each change that readers can see, and at nothing else."""

import pytest

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.errors import TablesError
from alfwatchd.journal.entries import Cursor
from alfwatchd.store.reader import read_version
from alfwatchd.tables.earlier import EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.rules import TableRules
from kit.flushes import FlushBox
from kit.rows import earlier
from kit.tables import closed_folder, failing, snapshot

pytestmark = pytest.mark.usefixtures("no_readers")


@pytest.fixture
def box():
    with closed_folder() as folder:
        box = FlushBox(folder)
        yield box
        box.writer.close()


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


def test_a_change_of_the_database_alone_makes_one(box):
    """A reader that followed the generation took pairs that did not belong together."""
    first = box.write(snapshot("st"))
    known = KnownColumns.of(earlier({"s/2020-01-01/001": EarlierSession(None, "", "p")}, {}))
    assert box.write(snapshot("st"), TableRules(known=known)) == first + 1
    (told,) = box.journal.feed.page(Cursor("", first), 9).told
    assert (told.change.path, told.change.columns) == ("s/2020-01-01/001", ("projects",))
    again = KnownColumns.of(earlier({"s/2020-01-01/001": EarlierSession(None, "", "p")}, {}))
    assert box.write(snapshot("st"), TableRules(known=again)) == first + 1
