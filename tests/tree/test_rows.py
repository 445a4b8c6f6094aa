"""A session as a row of the tables: its datasets in order, its sums, and what is no part of the row."""

import pytest

from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from kit.rows import folder_rows

UUID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"


def rows(folder, *names):
    return folder_rows(folder, {name: pack_signature(10, 1, 2, False) for name in names})


def test_a_session_has_the_datasets_of_all_its_folders():
    session = Session("lab/Subjects/s/2020-01-01/1", (rows("", "a.b.c"), rows("alf/probe00", "d.e.f", "g.h.i")))
    assert [rel_path for rel_path, _ in session.datasets()] == ["a.b.c", "alf/probe00/d.e.f", "alf/probe00/g.h.i"]
    assert (session.n_datasets, session.n_bytes) == (3, 30)
    assert session.key.eid_path == "lab/s/2020-01-01/001"


def test_the_inode_is_no_part_of_the_row():
    """A copy of a disk has other inodes: no row may change for that."""
    assert Session("s/2020-01-01/001", inode=1) == Session("s/2020-01-01/001", inode=2)
    assert Session("s/2020-01-01/001", is_link=True) != Session("s/2020-01-01/001")


def test_what_is_no_session_has_no_key():
    with pytest.raises(AssertionError, match="not a session path"):
        assert Session("s/2020-02-30/001").key


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        (f"a.b.{UUID}.npy", True),
        (f"a.b.{UUID.upper()}.npy", False),
        (f"a.b.{UUID.replace('4ccc', '1ccc')}.npy", False),
        (f"{UUID}.npy", False),
        (f"a.{UUID}.b.npy", False),
        ("a.b.npy", False),
    ],
)
def test_a_uuid_before_the_extension_is_noticed(name, is_one):
    assert Session("s/2020-01-01/001", (rows("alf", name),)).named_by_uuid == ((f"alf/{name}",) if is_one else ())
