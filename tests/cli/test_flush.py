"""`alfwatchd flush`."""

from __future__ import annotations

import json

from alfwatchd.api import FlushRequest
from alfwatchd.errors import TablesError
from kit.control import control_box


def test_it_says_which_generation_is_on_disk(run):
    """A user who copies the tables must know that they are new."""
    with control_box() as box:
        assert run("flush", f"--socket={box.path}").out == "generation 3 is on disk (0.500 s)\n"
        assert json.loads(run("flush", f"--socket={box.path}", "--json").out) == {"generation": 3, "seconds": 0.5}


def test_a_flush_that_fails_is_told(run):
    """The tables on disk are old then, and a script must not use them."""
    with control_box({FlushRequest: TablesError("/out: the disk is full")}) as box:
        ended = run("flush", f"--socket={box.path}")
    assert (ended.code, ended.out, ended.err) == (1, "", "alfwatchd: /out: the disk is full\n")
