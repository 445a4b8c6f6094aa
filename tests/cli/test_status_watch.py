"""`alfwatchd status --watch`: what a person sees while data arrive, and what a program gets instead."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest

from alfwatchd.api import StatusRequest
from alfwatchd.cli import status_watch
from alfwatchd.cli.status_watch import Moment, frame, watch, what_changed
from alfwatchd.errors import NoDaemon, NotAllowed
from kit.control import STATUS, WAIT_SECONDS, control_box
from kit.program import PROGRAM

GOOD = replace(STATUS, saved=True, last_flush_error=None, oldest_unflushed_seconds=None)
NOW = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)

CHANGES = [
    ({}, ""),
    (
        {"n_sessions": 2, "n_datasets": 4, "n_bytes": 2030, "generation": 9},
        "+1 session, +2 datasets, +2.0 kB; generation 9 is on disk",
    ),
    ({"n_datasets": 1, "n_bytes": 10}, "-1 dataset, -20 B"),
    ({"generation": 9}, "generation 9 is on disk"),
    ({"state": "offline", "detail": "no disk"}, "live -> offline: no disk"),
    ({"saved": False, "last_flush_error": "disk full"}, "NOT SAVED: disk full"),
    ({"events_lost": 2}, "events were lost"),
    ({"n_problems": 3}, "3 problems instead of 1"),
    ({"pid": 8}, "another process keeps the tables"),
    ({"watches": 99, "oldest_unflushed_seconds": 3.0}, ""),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_change_is_told_in_words(change, words):
    """Only what a person would want to know: figures that change all the time are no news."""
    assert what_changed(GOOD, replace(GOOD, **change)) == words


def test_saving_again_is_told():
    assert what_changed(replace(GOOD, saved=False), GOOD) == "saved again"


def look_on(*answers):
    """Let a daemon give these answers, one each second; return what was shown."""
    moments, left = [], list(answers)

    def ask():
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(seconds):
        assert seconds == 1.0
        if not left:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(ask, moments.append, sleep, lambda: NOW)
    return moments


def test_the_last_changes_are_kept():
    more = [replace(GOOD, n_sessions=1 + number) for number in range(15)]
    moments = look_on(GOOD, *more)
    assert (moments[0].changes, moments[0].has_changed) == ((), False)
    assert not moments[1].has_changed
    assert [moment.has_changed for moment in moments[2:]] == [True] * 14
    assert moments[-1].changes == ("2024-01-02T03:04:05+00:00 +1 session",) * status_watch.MOST_CHANGES


def test_a_daemon_that_restarts_is_waited_for():
    """A person who looks on during an update need not begin again."""
    away = NoDaemon("/s: no daemon answers")
    moments = look_on(GOOD, away, away, replace(GOOD, pid=8))
    assert [moment.trouble for moment in moments] == [None, away, away, None]
    assert [moment.status for moment in moments[:3]] == [GOOD] * 3
    assert [moment.has_changed for moment in moments] == [False, True, False, True]
    assert [change[26:] for change in moments[-1].changes] == [
        "/s: no daemon answers",
        "the daemon answers again; another process keeps the tables",
    ]


def test_without_a_daemon_at_the_start_it_fails():
    """A wrong socket must not look like a daemon that is quiet."""
    for error in (NoDaemon("none"), NotAllowed("no")):
        with pytest.raises(type(error)):
            watch(lambda error=error: (_ for _ in ()).throw(error), print, print)


@pytest.mark.parametrize("height", [5, 12, 40])
@pytest.mark.parametrize("trouble", [None, NoDaemon("none\x1b[2J")], ids=["answers", "is away"])
def test_a_frame_fits_on_the_terminal(height, trouble):
    """A line too many, and the screen scrolls every second; an escape in a text would do as it likes."""
    moment = Moment(GOOD, trouble, ("a" * 300, "b"), has_changed=True)
    lines = frame(moment, [f"line {number} {'x' * 200}" for number in range(30)], 80, height)
    assert len(lines) < height
    assert max(map(len, lines)) < 80
    assert all(line.isprintable() for line in lines)
    if height == 12:
        assert lines[-2:] == ["a" * 79, "b"]
        assert any(re.fullmatch(r"and \d+ more lines: alfwatchd status", line) for line in lines)
    if height == 40:
        assert sum(line.startswith("line ") for line in lines) == 30


def test_a_program_gets_a_line_for_each_change(run, monkeypatch):
    """The output of a pipe: the present state first, and then only news."""
    answers = [GOOD, GOOD, replace(GOOD, n_sessions=3, n_datasets=9), replace(GOOD, n_sessions=3, n_datasets=9)]

    def again():
        left = list(answers)

        def sleep(_):
            if not left:
                raise KeyboardInterrupt

        monkeypatch.setattr(time, "sleep", sleep)
        return control_box({StatusRequest: lambda _: left.pop(0)})

    with again() as box:
        ended = run("status", "--watch", f"--socket={box.path}", f"--root={box.settings.root}")
    assert ended.code == 130
    first, second = ended.out.splitlines()
    assert first == f"{GOOD.since} live: every change is seen at once (1 sessions, 2 datasets)"
    assert second[26:] == "+2 sessions, +7 datasets (3 sessions, 9 datasets)"
    with again() as box:
        ended = run("status", "--watch", "--json", f"--socket={box.path}", f"--root={box.settings.root}")
    assert [json.loads(line) for line in ended.out.splitlines()] == [asdict(answers[0]), asdict(answers[2])]


def test_check_and_watch_do_not_go_together(run):
    assert run("status", "--watch", "--check").code == 2


def test_a_terminal_is_painted_again_and_ctrl_c_ends(tmp_path):
    """With the real program on a real terminal: the second frame is in the place of the first."""
    answers = iter([GOOD, replace(GOOD, state="held", detail="too much is gone")])
    last = [GOOD]

    def answer(_):
        last.append(next(answers, last[-1]))
        return last[-1]

    with control_box({StatusRequest: answer}) as box:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [PROGRAM, "status", "--watch", f"--socket={box.path}"],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "COLUMNS": "100", "LINES": "30"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background has it ignored
        )  # fmt: skip
        os.close(theirs)
        try:
            seen, deadline = b"", time.monotonic() + WAIT_SECONDS
            while b"live -> held" not in seen:
                assert time.monotonic() < deadline, seen
                if select.select([ours], [], [], 1.0)[0]:
                    seen += os.read(ours, 1 << 16)
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT_SECONDS) == -signal.SIGINT
        finally:
            process.kill()
            process.wait()
            os.close(ours)
    text = seen.decode(errors="replace")
    assert text.count(status_watch.CLEAR) == 1
    frames = text.split(status_watch.HOME)
    assert "nothing so far" in frames[1]
    assert "state      held" in frames[-1]
    assert "\x1b" not in re.sub(r"\x1b\[(2?J|H|K)", "", text)
