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
CASES = [
    (None, OLD, SessionChange(PATH, "added", 3, 0, 0, 60)),
    (OLD, None, SessionChange(PATH, "removed", 0, 0, 3, -60)),
    (OLD, OLD, SessionChange(PATH)),
    (OLD, session(alf={"a.b.npy": (10, 2), "c.d.npy": (25, 1)}), SessionChange(PATH, "changed", 0, 2, 1, -25)),
    (
        OLD,
        session(alf={"a.b.npy": (10, 1), "x.y.npy": (1, 1)}, raw={"e.f.npy": (30, 1)}),
        SessionChange(PATH, "changed", 1, 0, 1, -19),
    ),
]


@pytest.mark.parametrize(("before", "after", "expected"), CASES)
def test_datasets_and_bytes_are_counted(before, after, expected):
    assert compare_session(PATH, before, after) == expected


def test_a_change_that_no_table_shows_does_not_count():
    """`chmod` changes the change time only."""
    both = (Session(PATH, (folder_rows("alf", {"a.b.npy": pack_signature(10, 1, ctime, False)}),)) for ctime in (1, 2))
    assert compare_session(PATH, *both) == SessionChange(PATH)


def test_a_digest_that_came_is_told_as_a_column():
    """Otherwise the line of a session that was hashed would say that nothing changed."""
    value = pack_signature(10, 1, 1, False)
    both = (Session(PATH, (folder_rows("alf", {"a.b.npy": value + digest}),)) for digest in (b"", b"d" * 16))
    assert compare_session(PATH, *both) == SessionChange(PATH, columns=("hash",))


def test_a_million_changes_are_summed_up():
    many = [SessionChange(str(n), added=2, removed=1, n_bytes=n) for n in range(MOST_NAMED + 2)]
    found = ChangedSessions.of(iter(many))
    assert found == ChangedSessions(tuple(many[:MOST_NAMED]), 2, 2, 2 * MOST_NAMED + 1)
