"""Which listings of a crawl are taken in, and which of them would remove rows: a wrong one would lose data rows."""

import shutil

import pytest

from alfwatchd.index.intake import removes
from alfwatchd.scan.scanner import Scanner
from alfwatchd.scan.subtree import crawl
from alfwatchd.tree.folder import Folder, Listing
from alfwatchd.tree.packed import PackedFiles, pack_signature
from kit.trees import fast_folder, indexing, listed, scan_all, write

S1 = "s/2020-01-01/001"
FILES = PackedFiles.pack({"a.b.c": pack_signature(1, 2, 3, False)})


@pytest.fixture
def root():
    with fast_folder() as folder:
        write(folder, f"{S1}/a.b.c", f"{S1}/alf/d.e.f")
        yield folder


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        (Listing(1, 2, {"alf": 3}, FILES), False),
        (Listing(1, 2, {"alf": 3, "new": 4}, FILES), False),
        (Listing(1, 2, {"alf": 3}), True),
        (Listing(1, 2, {}, FILES), True),
        (Listing(1, 2, {}, unknown={"alf", "a.b.c"}), False),
    ],
    ids=["the same", "a new folder", "a file is gone", "a folder is gone", "names that could not be looked at"],
)
def test_a_listing_removes_rows_if_a_name_is_gone(root, listing, expected):
    with indexing(root) as indexer:
        scan_all(indexer)
        assert removes(indexer.tree.find(S1), listing) == expected


def test_a_unit_adds_rows_and_leaves_to_a_look_what_would_remove_some(root):
    """What a worker read may be old: only a look at the folder itself may remove a row."""
    with indexing(root) as indexer:
        scan_all(indexer)
        indexer.intake.take_changes()
        (root / S1 / "a.b.c").unlink()
        write(root, f"{S1}/alf/new.b.c")
        top = indexer.tree.find("s/2020-01-01")
        found = list(crawl(Scanner(str(root)), Folder.at(top.path)))
        left, n_entries = indexer.intake.accept_unit(top, found, is_first=False)
        assert [folder.path for folder in left] == [S1]
        assert n_entries > 0
        scan_all(indexer)
        assert listed(indexer) == {S1: {"alf/d.e.f", "alf/new.b.c"}}


def test_changes_are_counted_once(root):
    """The log tells how many rows a scan added."""
    with indexing(root) as indexer:
        listing = Listing(1, 2, {}, FILES)
        session = indexer.tree.root.make_child("x", 0)
        indexer.intake.accept_listing(session, listing, frozenset(), is_first=True)
        assert indexer.intake.take_changes().added == 1
        assert indexer.intake.take_changes().added == 0


def test_folders_that_could_not_be_read_are_forgotten_with_the_folder(root):
    """A problem of a folder that is gone would stay in `status` for ever."""
    with indexing(root) as indexer:
        scan_all(indexer)
        gone = indexer.tree.find(f"{S1}/alf")
        indexer.intake.note_unreadable(gone, "Permission denied")
        (problem,) = indexer.intake.problems()
        assert (problem.path, problem.kind) == (f"{S1}/alf", "unreadable")
        shutil.rmtree(root / S1 / "alf")
        scan_all(indexer)
        assert indexer.unreadable == {}
        assert indexer.problems() == []
