"""The trash and the list of plans without a daemon. `tests/system` has those of daemons."""

from __future__ import annotations

import json

import pytest

from alfwatchd.api import PruneItem, TrashReply
from alfwatchd.cli import prune_trash
from alfwatchd.errors import AlfwatchdError
from alfwatchd.prune import trash_jobs
from alfwatchd.service.configuration import load


@pytest.fixture
def places(tmp_path):
    (tmp_path / "root").mkdir()
    return [f"--root={tmp_path / 'root'}", f"--state-dir={tmp_path / 'state'}"]


def test_a_root_without_plans_says_so(places, run):
    """No output at all would look like a command that failed."""
    assert run("prune", "--list", *places).out == "no plans are known here\n"
    assert json.loads(run("prune", "--list", "--json", *places).out) == {"plans": []}


def test_an_empty_trash_is_emptied_without_an_error(places, run):
    """A script that frees space may run twice."""
    ended = run("prune", "--empty-trash", *places)
    assert (ended.code, ended.out) == (0, "0 files, 0 B, deleted from the trash\n")


@pytest.mark.parametrize("flag", ["--undo", "--empty-trash"])
def test_an_id_that_is_no_plan_is_refused(flag, places, run):
    """A path in the place of a plan must lead nowhere."""
    assert run("prune", f"{flag}=../x", *places).code == 2


def test_a_file_that_stays_in_the_trash_is_a_failure(places, run, monkeypatch):
    """The user must know that the space is not free."""
    kept = TrashReply("emptied", [], 1, 0, 5, [PruneItem("a.b.npy", 3, "was written to")], complete=False)
    monkeypatch.setattr(trash_jobs, "empty", lambda *_: kept)
    ended = run("prune", "--empty-trash", *places)
    assert ended.code == 1
    assert ended.out.startswith("kept: a.b.npy: was written to\n")


def test_a_trash_that_cannot_be_emptied_when_due_is_told_and_no_error(tmp_path, monkeypatch, capsys):
    """The tables are right all the same, so `--once` must not fail because of the trash."""

    def fail(*_):
        raise AlfwatchdError("read-only file system")

    monkeypatch.setattr(trash_jobs, "empty_due", fail)
    prune_trash.empty_due(load({"root": str(tmp_path)}, {}).settings)
    assert capsys.readouterr().err == "alfwatchd: the trash is not emptied: read-only file system\n"
