"""What a log line says of a session that changed: counts that are wrong would send a person to the wrong folder."""

import pytest

from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.session_changes import MOST_NAMED, ChangedSessions, SessionChange, compare_session
from kit.rows import folder_rows

PATH = "s/2020-01-01/001"


def session(**folders):
    """Make a session of folder -> file name -> (size, mtime)."""
    rows = (
        folder_rows(folder, {name: pack_signature(size, mtime, 1, False) for name, (size, mtime) in files.items()})
        for folder, files in folders.items()
    )
    return Session(PATH, tuple(filter(None, rows)))


OLD = session(alf={"a.b.npy": (10, 1), "c.d.npy": (20, 1)}, raw={"e.f.npy": (30, 1)})
ALL = ("alf/a.b.npy", "alf/c.d.npy", "raw/e.f.npy")
CASES = [
    (None, OLD, SessionChange(PATH, "added", 3, 0, 0, 60, (), 60, tuple(f"+{each}" for each in ALL))),
    (OLD, None, SessionChange(PATH, "removed", 0, 0, 3, -60, (), 0, tuple(f"-{each}" for each in ALL))),
    (OLD, OLD, SessionChange(PATH, bytes_after=60)),
    (
        OLD,
        session(alf={"a.b.npy": (10, 2), "c.d.npy": (25, 1)}),
        SessionChange(PATH, "changed", 0, 1, 1, -25, (), 35, ("~alf/c.d.npy", "-raw/e.f.npy")),
    ),
    (
        OLD,
        session(alf={"a.b.npy": (10, 1), "x.y.npy": (1, 1)}, raw={"e.f.npy": (30, 1)}),
        SessionChange(PATH, "changed", 1, 0, 1, -19, (), 41, ("+alf/x.y.npy", "-alf/c.d.npy")),
    ),
]


@pytest.mark.parametrize(("before", "after", "expected"), CASES)
def test_datasets_and_bytes_are_counted(before, after, expected):
    assert compare_session(PATH, before, after) == expected


@pytest.mark.parametrize("times", [(1, 2, 1, 1), (1, 1, 1, 2)], ids=["mtime", "ctime"])
def test_a_change_that_no_table_shows_is_none(times):
    """`touch` and `chmod` change times only: no reader of the tables can see that."""
    mtimes, ctimes = times[:2], times[2:]
    both = (
        Session(PATH, (folder_rows("alf", {"a.b.npy": pack_signature(10, mtime, 1, False, ctime)}),))
        for mtime, ctime in zip(mtimes, ctimes, strict=True)
    )
    assert not compare_session(PATH, *both)


def hashed(*digests):
    value = pack_signature(10, 1, 1, False)
    both = (Session(PATH, (folder_rows("alf", {"a.b.npy": value + digest}),)) for digest in digests)
    return compare_session(PATH, *both)


def test_a_digest_that_came_is_told_as_a_column():
    """Otherwise the line of a session that was hashed would say that nothing changed."""
    found = hashed(b"", b"d" * 16)
    assert found == SessionChange(PATH, columns=("hash",), bytes_after=10)
    assert found


@pytest.mark.parametrize("digest", [b"", b"e" * 16])
def test_another_digest_is_another_content(digest):
    """The size of a dataset often stays when it is computed again."""
    found = hashed(b"d" * 16, digest)
    assert (found.changed, found.names, found.columns) == (1, ("~alf/a.b.npy",), ("hash",))


def test_a_million_changes_are_summed_up():
    many = [SessionChange(str(n), added=2, removed=1, n_bytes=n) for n in range(MOST_NAMED + 2)]
    found = ChangedSessions.of(iter(many))
    assert found == ChangedSessions(tuple(many[:MOST_NAMED]), 2, 2, 2 * MOST_NAMED + 1)
