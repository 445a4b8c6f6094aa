"""`alfwatchd sync`: what it prints for each exactness. `test_held` has what it does while rows are held."""

from __future__ import annotations

import json

import pytest

from alfwatchd import api
from alfwatchd.api import StatusRequest, SyncRequest
from kit.control import control_box


@pytest.mark.parametrize("exactness", ["exact", "scanned", "partial"])
def test_it_waits_and_says_how_exact_the_tables_are(exactness, run):
    """`alfwatchd sync && analysis` goes on only if the tables are right."""
    with control_box({SyncRequest: api.SyncReply(3, exactness, 0.25)}) as box:
        ended = run("sync", f"--socket={box.path}")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out == f"{exactness}: generation 3 is on disk (0.250 s)\n"
        assert json.loads(run("sync", f"--socket={box.path}", "--json").out)["exactness"] == exactness
        # One request each: a status would wait for the daemon once more.
        assert not any(isinstance(each, StatusRequest) for each in box.engine.taken)
