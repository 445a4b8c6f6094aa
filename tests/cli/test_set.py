"""`alfwatchd set`: through the daemon of the root, or without one."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from alfwatchd.api import SetReply, SetRequest
from kit.control import control_box
from kit.program import make_small_tree

S1 = "lab/Subjects/s1/2020-01-01/001"


@pytest.fixture
def places(tmp_path):
    root = make_small_tree(tmp_path / "root")
    return [f"--root={root}", f"--state-dir={tmp_path / 'state'}"]


def session_rows(tmp_path):
    rows = pq.read_table(tmp_path / "root/sessions.pqt").to_pylist()
    return {f"{row['subject']}/{row['date']}/{row['number']:03d}": row for row in rows}


def test_the_daemon_does_it_if_there_is_one(run):
    """Two processes must never write the same tables."""
    with control_box({SetRequest: SetReply(S1, 2, 7, 0.25)}) as box:
        ended = run("set", S1, "qc=PASS", "projects=a,b", f"--socket={box.path}")
    assert (ended.code, ended.out) == (0, f"{S1}: qc, projects set of 2 datasets; generation 7 is on disk\n")


def test_without_a_daemon_it_is_set_under_the_lock_and_stays(run, tmp_path, places):
    words = ["projects=b,a", "task_protocol=choice = world", "qc=warning", "--scan-workers=1", "--json"]
    ended = run("set", S1, *words, *places)
    assert ended.code == 0
    assert json.loads(ended.out)["path"] == S1
    row = session_rows(tmp_path)["s1/2020-01-01/001"]
    assert (row["projects"], row["task_protocol"]) == ("a,b", "choice = world")
    assert run("--once", *places, "--scan-workers=1").code == 0
    assert session_rows(tmp_path)["s1/2020-01-01/001"] == row
    assert run("set", row["id"], "projects=", *places, "--scan-workers=1").code == 0
    assert session_rows(tmp_path)["s1/2020-01-01/001"] == row | {"projects": ""}
    qc = pq.read_table(tmp_path / "root/datasets.pqt", filters=[("eid", "==", row["id"])])["qc"].to_pylist()
    assert set(qc) == {"WARNING"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([S1, "colour=red"], "colour=red: is none of qc=VALUE, projects=VALUE, task_protocol=VALUE"),
        ([S1, "qc"], "qc: is none of qc=VALUE"),
        ([S1, "qc=PASS", "qc=FAIL"], "qc is given twice"),
        ([S1, "qc=GOOD"], "qc=GOOD: is none of NOT_SET"),
        (["lab/Subjects/none/2020-01-01/001", "qc=PASS"], "no session of this path is here"),
        (["00000000-0000-4000-8000-000000000000", "qc=PASS"], "no session in the tables has this eid"),
    ],
)
def test_what_cannot_be_set_is_wrong_usage(run, places, words, says):
    ended = run("set", *words, *places, "--scan-workers=1")
    assert ended.code == 2
    assert says in ended.err
