"""`alfwatchd rescan`: which folder it asks for. `test_held` has what it does while rows are held."""

from __future__ import annotations

import pytest

from alfwatchd.api import RescanRequest
from kit.control import control_box


def asked(box):
    return [(each.path, each.accept_root) for each in box.engine.taken if isinstance(each, RescanRequest)]


def test_it_prints_what_changed(run):
    """The user sees whether the scan found what was expected."""
    with control_box() as box:
        ended = run("rescan", f"--socket={box.path}")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out == "1 added, 2 changed, 3 removed; generation 4 is on disk (0.75 s)\n"
        assert asked(box) == [("", False)]


@pytest.mark.parametrize(("given", "path"), [("lab/Subjects", "lab/Subjects"), ("{root}/lab", "lab"), ("{root}", "")])
def test_a_folder_is_named_as_people_name_it(given, path, run):
    """Shells complete absolute paths; the daemon knows paths in its root."""
    with control_box() as box:
        # The status says /data; the header of an answer says which root the daemon keeps.
        assert run("rescan", f"--socket={box.path}", given.format(root=box.client.find_root())).code == 0
        assert asked(box) == [(path, False)]


def test_a_folder_elsewhere_is_refused_before_the_daemon_is_asked(run):
    """A scan of the whole root instead would take an hour."""
    with control_box() as box:
        ended = run("rescan", f"--socket={box.path}", "/etc")
        assert ended.code == 2
        assert f"/etc is not in the root {box.client.find_root()} of the daemon" in ended.err
        assert asked(box) == []


def test_the_root_is_accepted_only_on_demand(run):
    """To accept another disk drops all rows of the disk before."""
    with control_box() as box:
        assert run("rescan", "--accept-root", f"--socket={box.path}").code == 0
        assert asked(box) == [("", True)]
