"""A command gets what it needs, tells how it ended, and does not outlive the follower."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from queue import SimpleQueue

import psutil
import pytest

from alfwatchd.errors import UsageError
from alfwatchd.follow.commands import Runner, describe_end, split
from kit.children import is_alive
from kit.control import wait

WAIT_SECONDS = 120.0


# The words.


@pytest.mark.parametrize(
    ("text", "is_shell", "expected"),
    [
        ("echo 'a b' c", False, ["echo", "a b", "c"]),
        (f"{sys.executable} -c pass", False, [sys.executable, "-c", "pass"]),
        ("echo $HOME | cat", True, ["/bin/sh", "-c", "echo $HOME | cat"]),
        ("echo $HOME", False, ["echo", "$HOME"]),
    ],
)
def test_a_command_is_taken_apart_by_a_shell_only_if_asked(text, is_shell, expected):
    assert split(text, is_shell=is_shell) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the command is empty"),
        ("'a", "close the quote"),
        ("/nonexistent/sort.sh", "/nonexistent/sort.sh is no program that can be run; give its whole path$"),
        ("nonexistent; true", "add --shell"),
    ],
)
def test_a_command_that_cannot_run_is_an_error_at_once(text, words):
    with pytest.raises(UsageError, match=words):
        split(text, is_shell=False)


# A run.


class Runs:
    """A runner, and what it tells of the ends; a context manager."""

    def __init__(self, code: str) -> None:
        self.ended: SimpleQueue[tuple[str, int, float]] = SimpleQueue()
        self.runner = Runner([sys.executable, "-c", code], lambda *end: self.ended.put(end))

    def run(self, text: str = "", **variables: str) -> int:
        self.runner.start("a", variables, text)
        key, code, seconds = self.ended.get(timeout=WAIT_SECONDS)
        self.runner.forget(key)
        assert (key, self.runner.n_running) == ("a", 0)
        assert seconds >= 0
        return code


def test_a_command_finds_variables_and_reads_text_of_any_length(tmp_path):
    out = tmp_path / "out"
    code = """
import json, os, sys
json.dump([os.environ["A"], len(sys.stdin.read()), os.getpid() == os.getpgid(0)], open(os.environ["OUT"], "w"))
"""
    assert Runs(code).run("x" * 1_000_000, A="a b", OUT=str(out)) == 0
    assert json.loads(out.read_text()) == ["a b", 1_000_000, True]


@pytest.mark.parametrize(
    ("code", "expected", "described"),
    [("raise SystemExit(3)", 3, "exit code 3"),
     ("import os; os.kill(os.getpid(), 9)", -9, "ended by SIGKILL"),
     ("import os; os.kill(os.getpid(), 40)", -40, "ended by signal 40")],
)  # fmt: skip
def test_how_a_command_ended(code, expected, described):
    assert Runs(code).run() == expected
    assert describe_end(expected) == described


def test_what_it_prints_does_not_mix_with_lines_about_sessions(capfd):
    assert Runs("print('from the command')").run() == 0
    out, err = capfd.readouterr()
    assert (out, err) == ("", "from the command\n")


def test_what_systemd_tells_the_follower_is_not_told_to_the_command(monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    assert Runs("import os; raise SystemExit('NOTIFY_SOCKET' in os.environ)").run() == 0


def test_a_signal_reaches_what_the_command_has_started(tmp_path):
    pid_file = tmp_path / "pid"
    code = """
import os, subprocess
child = subprocess.Popen(["sleep", "600"])
open(os.environ["PIDS"], "w").write(f"{child.pid} ")
child.wait()
"""
    runs = Runs(code)
    runs.runner.start("a", {"PIDS": str(pid_file)}, "")
    wait(lambda: pid_file.exists() and pid_file.read_text().endswith(" "), "it did not start")
    runs.runner.signal(signal.SIGTERM)
    key, code_, _ = runs.ended.get(timeout=WAIT_SECONDS)
    assert code_ == -signal.SIGTERM
    runs.runner.forget(key)
    wait(lambda: not is_alive(int(pid_file.read_text())), "the child of the command is left behind")


FOLLOWER = """
    import sys, time
    from alfwatchd.follow.commands import Runner
    Runner(["/bin/sh", "-c", f"sleep 600 & sleep 600 & echo $$ $! > {sys.argv[1]}; wait"], print).start("a", {}, "")
    time.sleep(600)
"""


def test_nothing_is_left_behind_when_the_follower_is_killed(tmp_path: Path) -> None:
    """Else a restarted follower starts a second sorter for the same session."""
    pids = tmp_path / "pids"
    follower = subprocess.Popen([sys.executable, "-c", textwrap.dedent(FOLLOWER), str(pids)])
    try:
        wait(lambda: pids.exists() and pids.read_text().endswith("\n"), "the command did not start")
        children = {each.pid for each in psutil.Process(follower.pid).children(recursive=True)}
        started = {*map(int, pids.read_text().split())}
        assert started <= children
    finally:
        os.kill(follower.pid, signal.SIGKILL)
        follower.wait()
    wait(lambda: not any(map(is_alive, children)), "a process is left behind")
