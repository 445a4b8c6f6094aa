"""`alfwatchd ids --recompute`: through the daemon of the root, or without one."""

from __future__ import annotations

import json

import pyarrow.parquet as pq

from alfwatchd.api import RecomputeReply, RecomputeRequest
from kit.control import control_box
from kit.program import make_small_tree


def test_the_daemon_does_it_if_there_is_one(run):
    """Two processes must never write the same tables."""
    with control_box({RecomputeRequest: RecomputeReply(5, 7, 0.25)}) as box:
        ended = run("ids", "--recompute", f"--socket={box.path}")
    assert (ended.code, ended.out) == (0, "7 ids changed; alfwatchd ids OLD finds new ones (0.25 s)\n")


def test_without_a_daemon_the_settings_of_the_command_line_hold(run, tmp_path):
    """With another lab, or without hashes, the tables would lose columns that they had."""
    root = make_small_tree(tmp_path / "root") / "lab/Subjects"
    places = [f"--root={root}", f"--state-dir={tmp_path / 'state'}"]
    ended = run("ids", "--recompute", *places, "--lab=mylab", "--scan-workers=1", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["n_changes"] == 0  # there were no ids before
    assert (root / "sessions.pqt").exists()
    shown = json.loads(run("config", *places, "--json").out)
    assert shown["lab"]["value"] == ""  # the flag was for that run only
    assert set(pq.read_table(root / "sessions.pqt")["lab"].to_pylist()) == {"mylab"}
