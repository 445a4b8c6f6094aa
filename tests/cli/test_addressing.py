"""Which daemon a command goes to. `tests/system/test_right_root.py` tries it with real daemons."""

from __future__ import annotations

import pytest

from alfwatchd.cli import addressing
from alfwatchd.errors import NoDaemon, UsageError, WrongRoot
from kit.control import control_box


@pytest.fixture
def box(monkeypatch, tmp_path):
    """A daemon that no setting leads to."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with control_box() as made:
        yield made


def test_the_daemon_of_the_root_answers(box):
    """The usual case: the flags of the daemon lead to it."""
    client = addressing.find_daemon({"socket": str(box.path), "root": str(box.settings.root)})
    assert client.status().state == "live"


def test_the_daemon_of_another_root_is_refused(box, tmp_path):
    """A prune of one disk must never reach the daemon of another disk."""
    flags = {"socket": str(box.path), "root": str(tmp_path)}
    with pytest.raises(WrongRoot):
        addressing.find_daemon(flags).status()
    with pytest.raises(WrongRoot):
        addressing.find_daemon_if_any(flags)


def test_without_a_daemon_a_command_may_work_alone(tmp_path, box):
    """`prune` and `ids` need no daemon."""
    assert addressing.find_daemon_if_any({"root": str(tmp_path)}) is None


def test_a_socket_that_the_user_names_must_have_a_daemon(tmp_path):
    """A user who names the socket wants the daemon to do the work."""
    with pytest.raises(NoDaemon):
        addressing.find_daemon_if_any({"root": str(tmp_path), "socket": str(tmp_path / "s")})


def test_a_change_needs_a_root_or_a_socket(box, monkeypatch):
    """sudo drops ALFWATCHD_ROOT; then the change could reach any root."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(box.path.parent))
    box.path.with_name("alfwatchd.sock").symlink_to(box.path)
    client = addressing.find_daemon({})
    assert addressing.with_root(client, {}, changes=False).root == box.settings.root
    with pytest.raises(UsageError, match=f"which root is meant.*--root {box.settings.root}"):
        addressing.with_root(client, {}, changes=True)
    named = {"socket": str(box.path)}
    assert addressing.with_root(addressing.find_daemon(named), named, changes=True).root == box.settings.root
