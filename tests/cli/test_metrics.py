"""`alfwatchd metrics`: what node_exporter finds, also while no daemon runs."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from alfwatchd.figures import Figures, FiguresRequest
from kit.control import HOLD, STATUS, control_box

FIGURES = Figures(STATUS)


@pytest.fixture
def box():
    with control_box({FiguresRequest: FIGURES}) as box:
        yield box


def test_it_prints_what_the_daemon_answers(box, run):
    """Text for people and node_exporter, a list for a program."""
    ended = run("metrics", f"--socket={box.path}")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == box.client.metrics().decode()
    samples = json.loads(run("metrics", f"--socket={box.path}", "--json").out)
    assert {"name": "alfwatchd_state", "labels": {"state": "live"}, "value": 1.0} in samples


def test_the_file_is_replaced_as_a_whole_and_others_may_read_it(box, run, tmp_path):
    """node_exporter is another user, and reads at any moment; it must find no temporary file that it would read."""
    path = tmp_path / "alfwatchd.prom"
    path.write_text("old")
    with path.open() as opened:
        mask = os.umask(0o077)
        try:
            ended = run("metrics", f"--socket={box.path}", f"--textfile={path}")
        finally:
            os.umask(mask)
        assert (ended.code, ended.out, ended.err) == (0, "", "")
        assert opened.read() == "old"
    assert path.read_bytes() == box.client.metrics()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.glob("**/*.prom*")) == [path]


def test_a_link_in_the_place_of_the_file_leads_nowhere(box, run, tmp_path):
    """Root runs this in a folder that the user of node_exporter may write to."""
    victim, path = tmp_path / "victim", tmp_path / "alfwatchd.prom"
    victim.write_text("keep")
    for place in (path, tmp_path / ".alfwatchd.prom.tmp"):
        place.symlink_to(victim)
    assert run("metrics", f"--socket={box.path}", f"--textfile={path}").code == 0
    assert (victim.read_text(), path.is_symlink()) == ("keep", False)


def test_without_a_daemon_the_file_says_so_and_the_command_fails(run, tmp_path, monkeypatch):
    """Values of yesterday would look like those of a daemon that runs."""
    path = tmp_path / "alfwatchd.prom"
    path.write_text("alfwatchd_up 1\nalfwatchd_sessions 5\n")
    ended = run("metrics", f"--socket={tmp_path / 's'}", f"--textfile={path}")
    assert (ended.code, ended.out) == (3, "")
    assert "no daemon answers" in ended.err
    assert path.read_text().splitlines()[-1] == "alfwatchd_up 0.0"
    assert "sessions" not in path.read_text()
    assert run("metrics", f"--socket={tmp_path / 's'}").code == 3
    monkeypatch.setattr("alfwatchd.cli.addressing.MONITOR_SECONDS", 0.2)
    with control_box({FiguresRequest: HOLD}) as box:
        path.write_text("alfwatchd_up 1\n")
        ended = run("metrics", f"--socket={box.path}", f"--textfile={path}", "--json")
        assert (ended.code, json.loads(ended.err)["error"]) == (1, "RequestFailed")
        assert path.read_text().splitlines()[-1] == "alfwatchd_up 0.0"


def labelled(text):
    return {(each.name, frozenset(each.labels.items())) for one in parse(text) for each in one.samples}


def test_labels_tell_the_daemons_of_one_machine_apart(box, run, tmp_path):
    """node_exporter refuses all files where two of them have the same metric with the same labels."""
    added = ["--label", "daemon=north", "--label", 'where=rack "7"\\']
    ended = run("metrics", f"--socket={box.path}", *added)
    more = {("daemon", "north"), ("where", 'rack "7"\\')}
    plain = box.client.metrics().decode()
    assert labelled(ended.out) == {(name, labels | more) for name, labels in labelled(plain)}
    assert [line for line in ended.out.splitlines() if line.startswith("#")] == [
        line for line in plain.splitlines() if line.startswith("#")
    ]
    path = tmp_path / "north.prom"
    assert run("metrics", f"--socket={tmp_path / 's'}", f"--textfile={path}", *added).code == 3
    assert labelled(path.read_text()) == {("alfwatchd_up", frozenset(more))}


@pytest.mark.parametrize(
    "label", ["north", "=x", "1a=x", "__name__=x", "state=x", "a-b=x", "a\n=x", "a=x\n", "a=\udcff"]
)
def test_a_label_that_prometheus_would_refuse_is_an_error(label, run):
    ended = run("metrics", "--label", label)
    assert (ended.code, ended.out) == (2, "")
    assert "should be NAME=VALUE" in ended.err


def test_no_label_of_the_metrics_can_be_given_twice(run):
    """Prometheus would refuse the whole file."""
    page = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text()
    own = {label for cell in re.findall(r"(?m)^\| `alfwatchd_\w+` \| \w+ \| ([^|]*)\|", page)
           for label in re.findall(r"\w+", cell)}  # fmt: skip
    assert len(own) == 7
    assert run("metrics", "--label=a=x", "--label=a=y").code == 2
    for label in (*own, "le"):
        assert run("metrics", "--label", f"{label}=x").code == 2


MISTAKES = [
    ("alfwatchd.txt", 2, "must end in .prom"),
    ("none/alfwatchd.prom", 1, "No such file or directory; name a file in a folder"),
    ("folder.prom", 1, "folder.prom: the metrics cannot be written"),
]


@pytest.mark.parametrize(("name", "code", "why"), MISTAKES)
def test_a_file_that_nobody_would_read_is_an_error(name, code, why, box, run, tmp_path):
    """Else an administrator waits for metrics that never come."""
    (tmp_path / "folder.prom").mkdir()
    (tmp_path / "folder.prom/x").touch()
    ended = run("metrics", f"--socket={box.path}", f"--textfile={tmp_path / name}")
    assert (ended.code, ended.out) == (code, "")
    assert why in ended.err
    assert not list(tmp_path.glob("*.tmp"))


def test_prometheus_client_is_loaded_only_where_it_is_needed(box):
    """A timer starts this command every minute; the daemon has made the text already."""
    code = (
        "import sys; from alfwatchd.cli.main import main; "
        f"main(['metrics', '--socket={box.path}']); "
        "print(sorted({'prometheus_client', 'fastapi', 'numpy'} & sys.modules.keys()), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr == "[]\n"
