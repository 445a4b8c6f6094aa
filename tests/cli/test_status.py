"""`alfwatchd status`: what it shows."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from alfwatchd import api
from alfwatchd.api import StatusRequest
from alfwatchd.cli.status import status_lines
from kit.control import STATUS, control_box

GOOD = replace(STATUS, saved=True, last_flush="2024-01-01T00:00:01+00:00", last_flush_error=None)


def test_it_prints_what_the_daemon_answers(run):
    """Text for a person, every value for a program."""
    with control_box({StatusRequest: GOOD}) as box:
        assert run("status", f"--socket={box.path}").out == "\n".join(status_lines(GOOD)) + "\n"
        assert json.loads(run("status", f"--socket={box.path}", "--json").out) == asdict(GOOD)


def test_without_a_daemon_it_ends_with_3(run, tmp_path):
    """A script must be able to tell a daemon that does not run from one that fails."""
    ended = run("status", f"--socket={tmp_path / 's'}")
    assert (ended.code, ended.out) == (3, "")
    assert str(tmp_path / "s") in ended.err


ADOPT = api.AdoptStatus("/alyx", "2024-01-01", None, 5, 6, 3, 4)
TARGET = api.TargetStatus("/pub", "mine", "3-abc", "2024-01-02", 7.4, None, "2024-01-03")
LINES = [
    ({}, "state      live since 2024-01-01T00:00:00+00:00: every change is seen at once"),
    ({}, "rows       1 sessions, 2 datasets, 30 B; 4 other entries"),
    ({}, "flush      saved; generation 3, last 2024-01-01T00:00:01+00:00, oldest change 1.5 s ago"),
    ({"saved": False, "last_flush_error": "disk full"}, "flush      NOT SAVED: disk full; generation 3, "),
    ({"last_flush": None, "oldest_unflushed_seconds": None}, "flush      saved; generation 3, last never"),
    ({}, "watches    5, 6 folders not watched"),
    ({"watches_limit": 9, "unwatched": 0}, "watches    5 of 9"),
    ({}, "events     lost 1 times"),
    ({}, "hashes     7 files to go"),
    ({"trash_bytes": 2000}, "trash      2.0 kB; alfwatchd prune --list shows of which plans"),
    ({}, "scan       2024-01-01T00:00:00+00:00 start: running"),
    ({}, "problem    s/2020-01-01/1: merge it"),
    ({"problems": [api.ProblemReply("held", "", "decide")]}, "problem    .: decide"),
    ({"n_problems": 29}, "           and 9 more: alfwatchd status --json"),
    ({"adopt": ADOPT}, "adopt      /alyx: 5 sessions, 6 datasets, read 2024-01-01; 3 and 4 of them are here"),
    ({"adopt": replace(ADOPT, n_sessions=None)}, "adopt      /alyx is being read"),
    ({"adopt": replace(ADOPT, last_error="no file")}, "adopt      NOT READ: no file"),
    (
        {"adopt": replace(ADOPT, read_at=None, n_matched_datasets=None)},
        "adopt      /alyx: 5 sessions, 6 datasets, not read since the start",
    ),
    (
        {"targets": [TARGET]},
        "target     /pub, tag mine: generation 3-abc, up to date at 2024-01-02, oldest change 7 s ago, "
        "next attempt 2024-01-03",
    ),
    (
        {"targets": [api.TargetStatus("/pub", "", None, None, None, "no bucket", None)]},
        "target     /pub: FAILED: no bucket; not yet published",
    ),
]


@pytest.mark.parametrize(("change", "line"), LINES)
def test_each_line_says_what_is_the_case(change, line):
    """A person decides by these lines whether the tables can be used, and what to mend."""
    assert any(each.startswith(line) for each in status_lines(replace(GOOD, **change)))


def test_only_the_first_problems_and_the_last_scans_are_shown():
    """A thousand problems would hide the state."""
    problems = [api.ProblemReply("twin", f"s{number}", "merge it") for number in range(1000)]
    scans = [api.RescanNote(f"why{number}", "2024-01-01", 1.0) for number in range(10)]
    lines = status_lines(replace(GOOD, problems=problems, n_problems=5000, rescans=scans))
    assert sum(line.startswith("problem ") for line in lines) == 20
    assert lines[-1] == "           and 4980 more: alfwatchd status --json"
    assert [line.split()[2] for line in lines if line.startswith("scan ")] == ["why7:", "why8:", "why9:"]
