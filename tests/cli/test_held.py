"""Commands tell in one way that the daemon holds rows of sessions that are gone."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from alfwatchd import api
from alfwatchd.api import StatusRequest, SyncRequest
from alfwatchd.cli.held import tell_if_held
from kit.control import STATUS, control_box

WHY = "16 of 22 sessions are gone; run alfwatchd rescan --accept-root"
HELD = replace(STATUS, state="held", detail=WHY, problems=[*STATUS.problems, api.ProblemReply("held", "", WHY)])
OFFLINE = replace(HELD, state="offline", detail="the root is another disk")


@pytest.mark.parametrize("status", [HELD, OFFLINE], ids=lambda each: each.state)
def test_the_reason_is_told_in_every_state(status, capsys):
    """The user must learn why rows are held also while something else is wrong, too."""
    with control_box({StatusRequest: status}) as box:
        assert tell_if_held(box.client)
    assert capsys.readouterr() == ("", f"alfwatchd: {WHY}\n")


def test_nothing_is_told_where_nothing_is_held(capsys):
    """Other problems are no reason to fail."""
    with control_box() as box:
        assert not tell_if_held(box.client)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("command", ["sync", "rescan"])
def test_sync_and_rescan_tell_the_same_and_fail(command, run):
    """A script that goes on after `sync` would analyse sessions that are gone."""
    answers = {StatusRequest: HELD, SyncRequest: api.SyncReply(3, "held", 0.25)}
    with control_box(answers) as box:
        ended = run(command, f"--socket={box.path}", "--json")
    assert ended.code == 1
    assert json.loads(ended.err) == {"error": "AlfwatchdError", "message": WHY, "exit_code": 1}
    assert ended.out.startswith("{")


def test_a_sync_that_was_held_fails_also_if_the_rows_are_released_meanwhile(run):
    """The reply is about the moment of the reply, whatever the status says a moment later."""
    with control_box({SyncRequest: api.SyncReply(3, "held", 0.25)}) as box:
        ended = run("sync", f"--socket={box.path}")
    assert (ended.code, ended.out) == (1, "held: generation 3 is on disk (0.250 s)\n")
