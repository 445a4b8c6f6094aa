"""The sessions by which a disk without an identity is known again: with wrong ones, another disk would be the root."""

import pytest

from alfwatchd.tree.known_sample import KnownSession
from kit.trees import fast_folder, indexing, scan_all, write

S1, T1 = "s/2020-01-01/001", "t/2020-01-01/001"


@pytest.fixture
def indexer():
    with fast_folder() as folder:
        write(folder, f"{S1}/a.b.c", f"{T1}/a.b.c")
        with indexing(folder) as made:
            made.root = folder
            yield made


def test_before_the_first_scan_those_of_earlier_tables_are_known(indexer):
    """They alone tell then whether the root is the one that the tables are of."""
    known = indexer.known
    assert known.is_empty()
    known.expect([KnownSession(("lab/x", "x"), 7)])
    assert not known.is_empty()
    assert known.sample(lambda path: path == "x") == [KnownSession(("lab/x", "x"), 7)]
    assert known.sample(lambda path: path == "y") == []
    assert known.take_earlier() == [KnownSession(("lab/x", "x"), 7)]
    assert (known.take_earlier(), known.is_empty()) == ((), True)


def test_after_a_scan_those_of_the_tables_are_known_with_their_inodes(indexer):
    """Inodes are the strongest sign that a disk is the same one."""
    scan_all(indexer)
    inodes = {path: (indexer.root / path).stat().st_ino for path in (S1, T1)}
    assert indexer.known.inodes() == inodes
    assert indexer.known.sample(lambda path: path == T1) == [KnownSession((T1,), inodes[T1])]
