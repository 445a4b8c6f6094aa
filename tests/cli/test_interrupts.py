"""Ctrl-C: a user who stops a command gets the prompt back, not twenty lines that look like a fault."""

import os
import signal
import subprocess
import sys

import pytest

from kit.program import PROGRAM, WAIT_SECONDS, listed, make_small_tree, program, walk

STOP_AT = """
    import signal, sys
    class _Stop:
        def find_spec(self, name, path=None, target=None):
            if name == {name!r}:
                sys.meta_path.remove(self)
                os.kill(os.getpid(), signal.SIGINT)
    sys.meta_path.insert(0, _Stop())
"""
IMPORTED = ["pyarrow", *(pytest.param(each, marks=pytest.mark.heavy) for each in ("alfwatchd.cli.main", "pydantic"))]


def start(made, *words, ignores=False):
    """Start the program as a terminal does, where Ctrl-C is heard, or as a shell does in the background."""

    def prepare():
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignores else signal.SIG_DFL)

    return subprocess.Popen(
        [PROGRAM, *words], env=made.environment(), stderr=subprocess.PIPE, text=True, preexec_fn=prepare
    )


@pytest.fixture
def idle(tmp_path):
    with program(make_small_tree(tmp_path)) as made:
        yield made


@pytest.mark.parametrize("name", IMPORTED)
def test_ctrl_c_while_modules_are_imported_says_nothing(idle, name):
    """The first half second is when a user notices a wrong word in the command. 35 lines of a traceback hide it."""
    idle.break_it(STOP_AT.format(name=name))
    ended = start(idle, "--once", *idle.places)
    assert ended.communicate(timeout=WAIT_SECONDS)[1] == ""
    assert ended.returncode == -signal.SIGINT  # which a shell shows as 130


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", -signal.SIGTERM)])
def test_a_signal_in_a_run_puts_away_what_was_begun(idle, name, code):
    """The next run must not find a lock file of ONE, for which it would wait five seconds.

    `timeout`, systemd and job schedulers send SIGTERM.
    """
    idle.break_it(f"""
    import signal
    import alfwatchd.store.parquet_file as parquet_file
    write = parquet_file.GroupedFile.write
    def interrupted(self, *arguments):
        write(self, *arguments)
        os.kill(os.getpid(), signal.{name})
    parquet_file.GroupedFile.write = interrupted
    """)
    ended = start(idle, "--once", *idle.places)
    assert "Traceback" not in ended.communicate(timeout=WAIT_SECONDS)[1]
    assert ended.returncode == code
    assert sorted(os.listdir(idle.root)) == [".alfwatchd.lock", "lab"]


def test_ctrl_c_that_the_shell_ignores_for_a_job_in_the_background_stays_ignored(idle):
    """A user starts the run with `&`, and stops another program in the same terminal."""
    idle.break_it(STOP_AT.format(name="pyarrow"))
    ended = start(idle, "--once", *idle.places, ignores=True)
    assert ended.communicate(timeout=WAIT_SECONDS)[1] == ""
    assert ended.returncode == 0
    assert listed(idle.root, idle.root) == walk(idle.root)


def test_ctrl_c_where_python_can_raise_nothing_ends_the_process(idle):
    """In a destructor, Python would print a traceback and go on: a user would have to press it again."""
    code = """
import os, signal
from alfwatchd.cli.interrupts import put_away
class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass
signal.signal(signal.SIGINT, signal.SIG_DFL)
with put_away():
    Late()
    print("went on")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
