"""The benchmarks that need a live daemon still run, on trees of two sessions. How fast anything is, no test asks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

_FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def measured(tmp_path):
    """Run a benchmark on a tree that it makes; return item -> line of the report."""

    def run(name, *arguments):
        file = tmp_path / "lines.json"
        command = [sys.executable, name, "--size", "112", "--work", tmp_path, "--json", file, *map(str, arguments)]
        done = subprocess.run(command, cwd=_FOLDER, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = json.loads(file.read_text())
        assert all(line["command"] == f"python benchmarks/{name} --size 112" for line in lines)
        return {line["item"].partition(" k/s")[0].rstrip("0123456789"): line for line in lines}

    return run


def test_live(measured, tmp_path):
    lines = measured("live.py", "--tries", 3, "--burst", 300, "--only", "latency", "burst", "others")
    files = [path for path in (tmp_path / "live_112").rglob("*") if "burst" in path.name or "NEW" in path.name]
    assert files == [], "what was added is taken away again"
    assert sum("file closed -> row in memory" in item for item in lines) == 2
    bursts = [line["figure"] for item, line in lines.items() if "told" in line["figure"] and "Observer" not in item]
    assert [figure.partition(",")[0] for figure in bursts] == ["300 of 300 files told"]


def test_sustained_load_and_sync(measured):
    lines = measured("live.py", "--tries", 3, "--seconds", 0.2, "--only", "sustained", "sync")
    overflows = [line["figure"] for line in lines.values() if line["target"] == "0"]
    assert overflows == ["0", "0"]
    assert sum("`sync`" in item for item in lines) == 2


def test_memory(measured):
    lines = measured("memory.py", "--seconds", 0.1, "--rounds", 1)
    first = next(iter(lines))
    assert first.startswith("memory of the live daemon: 112 datasets in 2 sessions, ")
    assert lines[first]["met"] is True, "so small a tree takes no 500 MB"


def test_restart(measured):
    lines = measured("restart.py", "--rounds", 1)
    assert list(lines) == [
        "warm restart: every file verified, tables right", "warm restart: first answer, the old tables are served",
    ]  # fmt: skip


def test_feed(measured):
    lines = measured(
        "feed.py", "--tries", 3, "--followers", 3, "--seconds", 0.5, "--burst", 300, "--rows", 5000, "--rounds", 2,
        "--changes", 1000,
    )  # fmt: skip
    assert len(lines) == 7
    bursts = [line["figure"] for item, line in lines.items() if item.startswith("burst")]
    assert all(figure.startswith("0 overflows") for figure in bursts)
