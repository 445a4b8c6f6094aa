"""A refused user reads what is missing, and what an administrator does: the commands have to be right."""

import os
import socket
import subprocess

import pytest

from alfwatchd.acl import SEARCH
from alfwatchd.web import refusals
from alfwatchd.web.peer import Peer
from alfwatchd.web.table_readers import find_obstacle
from kit.children import as_nobody, in_child, needs_root

ADA, LAB = 4242, 4343
PEER = Peer(1, ADA, ADA, frozenset())


@pytest.fixture
def tables(open_folder):
    folder = open_folder / "our tables"
    folder.mkdir()
    found = folder / "sessions.pqt", folder / "datasets.pqt"
    for table in found:
        table.touch()
    return found


def commands(text):
    """Return the commands that a message says an administrator can run."""
    return [each.partition(", after")[0] for each in text.partition("can run: ")[2].split(", or ")]


def can_read(tables):
    def read():
        os.setgroups([])
        os.setresgid(ADA, ADA, ADA)
        os.setresuid(ADA, ADA, ADA)
        return [table.read_bytes() for table in tables]

    try:
        return in_child(read) == [b"", b""]
    except AssertionError:
        return False


@needs_root
@pytest.mark.parametrize(("folder_mode", "mode"), [(0o755, 0o600), (0o700, 0o644), (0o700, 0o600), (0o750, 0o640)])
def test_the_commands_that_it_names_give_the_right(tables, folder_mode, mode):
    """One obstacle after the other: it names nothing below a folder that the user cannot enter."""
    tables[0].parent.chmod(folder_mode)
    for table in tables:
        table.chmod(mode)
    assert not can_read(tables)
    for _ in range(2):
        obstacle = find_obstacle(tables, PEER.caller())
        if obstacle is None:
            break
        text = refusals.only_readers(obstacle, tables, PEER)
        assert ("sessions.pqt" in text) == (obstacle.wanted != SEARCH)
        (command,) = commands(text)
        done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)
        if "not supported" in done.stderr:
            pytest.skip("this file system has no ACLs")
        assert (done.returncode, done.stderr) == (0, "")
    assert find_obstacle(tables, PEER.caller()) is None
    assert can_read(tables)


@needs_root
def test_a_group_is_the_first_that_it_names(tables):
    for table in tables:
        os.chown(table, -1, LAB)
        table.chmod(0o640)
    said = commands(refusals.only_readers(find_obstacle(tables, PEER.caller()), tables, PEER))
    assert said[0] == f"usermod -aG {LAB} {ADA}"
    assert said[1].startswith(f"setfacl -m u:{ADA}:r ")


def test_where_no_permission_would_help_it_names_no_command(tables):
    tables[0].parent.chmod(0o755)
    tables[1].unlink()
    text = refusals.only_readers(find_obstacle(tables, PEER.caller()), tables, PEER)
    assert f"{tables[1]}: it is not there" in text
    assert commands(text) == [""]
    tables[0].chmod(0o600)
    nobody = Peer(1, 65534, 65534, frozenset())
    text = refusals.only_readers(find_obstacle(tables, nobody.caller()), tables, nobody)
    assert "run the client as another user" in text


def test_control_rights():
    assert "no group is set" in refusals.only_control("", PEER)
    text = refusals.only_control("lab", PEER)
    assert "members of the group lab (control.group)" in text
    assert f"usermod -aG lab {ADA}, after which you log in again" in text


@needs_root
@pytest.mark.parametrize(
    ("mode", "folder_mode", "expected"),
    [
        (0o600, 0o755, "no group is set (control.group): an administrator can write"),
        (0o660, 0o755, "can run: usermod -aG 4343 nobody, after which you log in again"),
        (0o666, 0o700, "this user may not enter "),
    ],
)
def test_a_socket_that_this_user_may_not_use(tables, mode, folder_mode, expected):
    folder = tables[0].parent
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
    os.chown(path, -1, LAB)
    path.chmod(mode)
    folder.chmod(folder_mode)
    text = as_nobody(lambda: refusals.not_connected(path))
    assert expected in text
    if folder_mode == 0o755:
        assert text.startswith("only the root user ")
    else:
        assert f"may not enter {folder};" in text
