"""`alfwatchd status --check`: what monitoring gets told, and the exit code by which it decides whom to wake."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import pytest

from alfwatchd import errors
from alfwatchd.api import StatusRequest
from alfwatchd.cli import addressing, status_check
from kit.control import HOLD, STATUS, control_box

GOOD = replace(STATUS, saved=True, last_flush_error=None, oldest_unflushed_seconds=None, watches_limit=100)

VERDICTS = [
    ({}, 0, "OK - live: every change is seen at once"),
    ({"state": "polled", "detail": "scanned every 300 s"}, 0, "OK - polled: scanned every 300 s"),
    ({"state": "polled", "polled_late": True, "detail": "polled late: x"}, 1, "WARNING - polled: polled late: x"),
    ({"state": "starting"}, 1, "WARNING - starting: "),
    ({"state": "catching up"}, 1, "WARNING - catching up: "),
    ({"state": "of a newer daemon"}, 1, "WARNING - of a newer daemon: "),
    ({"state": "offline", "detail": "no such folder"}, 2, "CRITICAL - offline: no such folder"),
    ({"state": "held"}, 2, "CRITICAL - held: "),
    ({"saved": False, "last_flush_error": "disk | full\n"}, 2, "CRITICAL - the tables are not saved: disk / full |"),
]


@pytest.mark.parametrize(("change", "code", "begin"), VERDICTS)
def test_the_state_becomes_a_word_and_a_code(change, code, begin, run):
    """One line; the only vertical bar divides the words from the performance data."""
    with control_box({StatusRequest: replace(GOOD, **change)}) as box:
        ended = run("status", "--check", f"--socket={box.path}")
    assert (ended.code, ended.err) == (code, "")
    assert ended.out.startswith(f"ALFWATCHD {begin}")
    assert (ended.out.count("\n"), ended.out.count("|")) == (1, 1)


def test_performance_data_have_the_form_that_plug_ins_give(run):
    """Else Icinga draws nothing."""
    with control_box({StatusRequest: replace(GOOD, oldest_unflushed_seconds=1.5)}) as box:
        figures = run("status", "--check", f"--socket={box.path}").out.partition(" | ")[2].split()
    form = r"(\w+)=(-?\d+(?:\.\d+)?)(s|B|c|%)?(;[\d.]*){0,4}"
    found = {made[1]: made[2] for made in (re.fullmatch(form, each) for each in figures) if made}
    assert len(found) == len(figures)
    assert found["behind"] == "1.500"
    assert found["sessions"] == str(GOOD.n_sessions)
    assert "watches=5;;;0;100" in figures
    assert "watches=5;;;0" in status_check.figures(replace(GOOD, watches_limit=None)).split()


def test_json_has_the_whole_status_and_the_same_code(run):
    """A program that wants both need not ask twice."""
    with control_box({StatusRequest: replace(GOOD, state="held")}) as box:
        ended = run("status", "--check", "--json", f"--socket={box.path}")
    assert (ended.code, json.loads(ended.out)) == (2, asdict(replace(GOOD, state="held")))


def test_a_daemon_that_does_not_answer_is_critical(run, tmp_path, monkeypatch):
    """A daemon that is down or hangs must wake the same person as one that is offline."""
    ended = run("status", "--check", f"--socket={tmp_path / 's'}")
    assert (ended.code, ended.err) == (2, "")
    assert ended.out.startswith(f"ALFWATCHD CRITICAL - {tmp_path / 's'}: no daemon answers")
    ended = run("status", "--check", "--json", f"--socket={tmp_path / 's'}")
    assert (ended.code, ended.out, json.loads(ended.err)["error"]) == (2, "", "NoDaemon")
    assert json.loads(ended.err)["exit_code"] == 2
    monkeypatch.setattr(addressing, "MONITOR_SECONDS", 0.2)
    with control_box({StatusRequest: HOLD}) as box:
        ended = run("status", "--check", f"--socket={box.path}")
        assert (ended.code, ended.out.partition(": ")[2][:16]) == (2, "no answer within")


UNKNOWN = [errors.NotAllowed, errors.ConfigError, errors.Busy]


@pytest.mark.parametrize("kind", UNKNOWN, ids=lambda kind: kind.__name__)
def test_what_says_nothing_of_the_daemon_is_unknown(kind):
    """A wrong user or setting of the check is no reason to wake anybody for the daemon."""
    verdict = status_check.judge_error(kind("why"))
    assert (verdict.word, verdict.code, verdict.line()) == ("UNKNOWN", 3, "ALFWATCHD UNKNOWN - why")


def test_a_mistake_in_the_settings_is_unknown(run, tmp_path):
    """Its own exit code, 78, has no meaning for monitoring."""
    ended = run("status", "--check", f"--config={tmp_path / 'none.toml'}")
    assert (ended.code, ended.out[:20]) == (3, "ALFWATCHD UNKNOWN - ")
