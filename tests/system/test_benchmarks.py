"""The benchmarks still run, on trees of a few sessions, and say what they saw. How fast anything is, no test asks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

_FOLDER = Path(__file__).parents[2] / "benchmarks"
_JUDGE = """
import json, sys
from dataclasses import asdict
import index
from measure import Run

def results(find, ours, theirs):
    walls = {index.FIND: find, index.ONE_PROCESS: ours * 1.2, index.OURS: ours, index.UPSTREAM: theirs}
    return {name: Run(wall, wall, 100.0 * ours) for name, wall in walls.items()}

warm = {10_000: results(0.04, 0.1, 3), 100_000: results(0.4, 1, 24), 1_000_000: results(4, 6.4, 400)}
print(json.dumps([asdict(line) for line in index.make_lines(warm, {10_000: results(1, 2, 3)})]))
"""


def _run(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=_FOLDER, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_full_index(tmp_path):
    costs = tmp_path / "costs.json"
    printed = _run(
        "index.py", "--sizes", 100, "--rounds", 1, "--upstream-up-to", 0, "--work", tmp_path,
        "--json", tmp_path / "lines.json", "--costs", costs,
    )  # fmt: skip
    assert "### 100 datasets, 2 sessions" in printed
    assert "| phase | start | prepare | scan |" in printed
    runs = json.loads(costs.read_text())["100"]
    assert set(runs) == {"find", "Python walk", "alfwatchd, one process", "alfwatchd"}
    assert all(run["wall"] > 0 and run["memory"] > 1 for run in runs.values())
    assert json.loads((tmp_path / "lines.json").read_text()) == []  # nothing was promised for such a tree
    assert not list(tmp_path.glob("*.out")), "tables are left behind"


def test_phases_are_the_whole_life_of_a_process(tmp_path):
    root = tmp_path / "root"
    _run("trees.py", root, 100)
    (tmp_path / "out").mkdir()
    phases = json.loads(
        _run("phases.py", "--once", "--root", root, "--out-dir", tmp_path / "out", "--state-dir", tmp_path / "state")
    )
    never_entered = [name for name, phase in phases.items() if phase["seconds"] <= 0]
    assert not never_entered, "functions that phases.py puts its clocks around are called no more"


def test_verdicts_of_a_full_index():
    lines = {line["item"]: line for line in json.loads(_run("-c", _JUDGE))}
    verdicts = {item: (line["met"], line["ratio"]) for item, line in lines.items()}
    assert verdicts == {
        "Full index, 1 M: alfwatchd": (True, "1.60 x find"),
        "Full index, 1 M: alfwatchd, one process": (True, "1.92 x find"),
        "Full index, 1 M: peak memory": (False, "1.0 x less than ONE"),
        "Full index, 100 k: against ONE": (False, "24 x faster"),
        "Full index, 1 M: against ONE": (True, "62 x faster"),
        "Cost linear, each further dataset: alfwatchd": (True, "0.60 x"),
        "Cost linear, each further dataset: alfwatchd, one process": (True, "0.60 x"),
        "Cost linear, each further dataset: find": (None, "1.00 x"),
        "Cold cache, 10 k": (None, "2.00 x find"),
    }


def test_queries_give_one_answer(tmp_path):
    printed = _run("query.py", "--size", 3000, "--rounds", 1, "--json", tmp_path / "lines.json")
    (n_found,) = re.findall(r"3,000 datasets; (\d+) sessions are the answer", printed)
    assert 0 < int(n_found) < 54  # all have one of the datasets, and some have the other one
    assert [line["met"] for line in json.loads((tmp_path / "lines.json").read_text())] == [None, None]


def test_adopting(tmp_path):
    printed = _run("adopt.py", "--size", 100, "--rounds", 1, "--work", tmp_path, "--json", tmp_path / "lines.json")
    assert "### 100 datasets" in printed
    assert [line["target"] for line in json.loads((tmp_path / "lines.json").read_text())] == ["< 1/3 of it", ""]


def test_publishing(tmp_path):
    """It fails by itself if what should be published was not, or a client got nothing."""
    printed = _run("publish.py", "--size", 100, "--rounds", 1, "--work", tmp_path, "--json", tmp_path / "lines.json")
    assert "| publish, nothing changed |" in printed
    items = [line["item"] for line in json.loads((tmp_path / "lines.json").read_text())]
    assert items[0] == "a publication of 100 datasets, beyond imports"
    assert len(items) == 2


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the slow disk is made by gcc")
def test_slow_disk(tmp_path):
    """It fails by itself if the disk was not slow."""
    lines = tmp_path / "lines.json"
    _run("slow_disk.py", "--size", 56, "--rounds", 1, "--delay-us", 20_000, "--workers", 2,
         "--work", tmp_path, "--json", lines)  # fmt: skip
    (line,) = json.loads(lines.read_text())
    assert line["item"] == "Slow disk, 20 ms per lstat, 56"


def test_report_keeps_what_people_wrote(tmp_path):
    pytest.importorskip("matplotlib", reason="the plot needs the extra `bench`")
    kept = tmp_path / "results"
    kept.mkdir()
    line = {"item": "An item", "target": "1 s", "figure": "2 s", "met": False, "command": "flush.py --x"}
    (kept / "flush.json").write_text(json.dumps([line]))
    (kept / "flush.md").write_text(f"### Phases of {tmp_path}\n\n| what | target |\n| not twice |\n")
    costs = {size: {"find": {"wall": size / 1e5}, "alfwatchd": {"wall": size / 1e5}} for size in (10_000, 1_000_000)}
    (kept / "index.costs.json").write_text(json.dumps(costs))
    document = tmp_path / "report.md"
    document.write_text(
        "before\n<!-- results: written by benchmarks/report.py -->\nold\n<!-- end of results -->\nbehind\n"
    )

    for _ in range(2):  # writing it again changes nothing
        _run("report.py", "--only", "--work", tmp_path, "--out", document)
        text = document.read_text()
        assert text.startswith("before\n<!-- results")
        assert text.endswith("<!-- end of results -->\nbehind\n")
        assert "| An item | 1 s | 2 s |  | **no** | `flush.py --x` |" in text
        assert "#### Phases of WORK\n" in text
        assert "not twice" not in text
        assert "\nold\n" not in text
    assert "alfwatchd" in (tmp_path / "report.svg").read_text()
