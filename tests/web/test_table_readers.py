"""Whether a user may read tables: by the files, and by all folders that lead to them.

If one of these fails, a user is told of tables that it cannot open, or is refused though it can.
"""

import os
import subprocess

import pytest

from alfwatchd import acl
from alfwatchd.acl import READ, SEARCH, Caller
from alfwatchd.web import table_readers
from alfwatchd.web.table_readers import find_obstacle
from kit.children import needs_root

ADA, LAB = 4242, 4343


@pytest.fixture
def tables(open_folder):
    """Two tables in a folder that all users may enter, as are the folders above."""
    folder = open_folder / "tables"
    folder.mkdir()
    folder.chmod(0o755)
    found = folder / "sessions.pqt", folder / "datasets.pqt"
    for table in found:
        table.touch()
        table.chmod(0o644)
    return found


def may_read(tables, uid=ADA, gids=(ADA,)):
    return find_obstacle(tables, Caller(uid, frozenset(gids))) is None


@pytest.mark.parametrize("one", [0, 1])
def test_both_tables_have_to_be_readable(tables, one):
    assert may_read(tables)
    tables[one].chmod(0o600)
    assert not may_read(tables)
    obstacle = find_obstacle(tables, Caller(ADA, frozenset()))
    assert (obstacle.path, obstacle.wanted) == (tables[one], READ)
    assert "mode 0600" in obstacle.why


@pytest.mark.parametrize(("mode", "expected"), [(0o711, True), (0o744, False), (0o700, False)])
@pytest.mark.parametrize("n_above", [1, 2])
def test_a_user_who_cannot_reach_the_tables_cannot_read_them(tables, mode, expected, n_above):
    folder = tables[0].parents[n_above - 1]
    folder.chmod(mode)
    assert may_read(tables) == expected
    if not expected:
        obstacle = find_obstacle(tables, Caller(ADA, frozenset()))
        assert (obstacle.path, obstacle.wanted) == (folder, SEARCH)
    folder.chmod(0o755)


ACLS = {
    "a user may": (0o600, f"u:{ADA}:r", True),
    "the mask counts": (0o600, f"u:{ADA}:r,m::x", False),
    "a group may": (0o600, f"g:{LAB}:r", True),
    "a user may not, others may": (0o644, f"u:{ADA}:-", False),
    "a group may not, others may": (0o644, f"g:{LAB}:-", False),
    "one of two groups may": (0o640, f"g:{LAB}:r,g:{LAB + 1}:-", True),
    "somebody else may": (0o600, f"u:{ADA + 1}:r", False),
}


def setfacl(entries, *paths):
    done = subprocess.run(["setfacl", "-m", entries, *paths], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("this file system has no ACLs")


@pytest.mark.parametrize(("mode", "entries", "expected"), ACLS.values(), ids=ACLS)
def test_the_acl_of_the_tables_decides(tables, mode, entries, expected):
    for table in tables:
        table.chmod(mode)
    setfacl(entries, *tables)
    assert may_read(tables, gids=[LAB, LAB + 1]) == expected


def test_the_acl_of_a_folder_decides_too(tables):
    setfacl(f"u:{ADA}:r", tables[0].parent)
    assert not may_read(tables)
    assert may_read(tables, uid=ADA + 1)


def test_a_file_system_without_acls(tables, monkeypatch):
    monkeypatch.setattr(acl, "XATTR", "user.not.there")
    assert may_read(tables)


@pytest.mark.parametrize("packed", [b"\2\0\0\0", b"\3\0\0\0\1\0\6\0"])
def test_an_acl_that_is_not_understood_lets_nobody_read(tables, monkeypatch, packed):
    monkeypatch.setattr(table_readers.os, "getxattr", lambda *_, **__: packed)
    assert not may_read(tables)


@pytest.mark.parametrize("one", [0, 1])
@pytest.mark.parametrize("instead", ["nothing", "link", "folder", "pipe"])
def test_what_is_no_table_lets_nobody_read(tables, one, instead):
    table = tables[one]
    table.unlink()
    if instead == "link":
        table.symlink_to(tables[1 - one])
    elif instead == "folder":
        table.mkdir()
    elif instead == "pipe":
        os.mkfifo(table, 0o666)
    obstacle = find_obstacle(tables, Caller(ADA, frozenset()))
    assert (obstacle.path, obstacle.wanted) == (table, 0)
    assert obstacle.why.startswith("it is not ")


def test_a_link_in_the_place_of_a_folder_is_not_followed(tables):
    folder = tables[0].parent
    folder.rename(folder.with_name("moved"))
    folder.symlink_to("moved")
    assert find_obstacle(tables, Caller(ADA, frozenset())).path == folder


@needs_root
def test_a_group_that_would_help_is_named(tables):
    os.chown(tables[1], -1, LAB)
    tables[1].chmod(0o640)
    assert find_obstacle(tables, Caller(ADA, frozenset())).group == str(LAB)
    tables[1].chmod(0o600)
    assert find_obstacle(tables, Caller(ADA, frozenset())).group == ""
    os.chown(tables[1], -1, 0)
    tables[1].chmod(0o640)
    assert find_obstacle(tables, Caller(ADA, frozenset())).group == ""  # nobody is put into the group of root
