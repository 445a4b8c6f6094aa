"""What docs/guide/query.md shows works: each recipe tells the sessions that `alfwatchd ls` tells."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from alfwatchd.alf.patterns import DatasetPattern
from kit.lab import write_lab

PAGE = (Path(__file__).parents[2] / "docs/guide/query.md").read_text()
QUESTION = "alfwatchd ls --date 2021 --lacking spikes.times --eids"
LAB = {
    "b/Subjects/s/2021-01-05/001": {"alf/probe00/_ks_spikes.times.npy": 1},
    "b/Subjects/s/2021-01-05/002": {"spikes.times_ephysClock.npy": 1},
    "b/Subjects/s/2021-12-31/001": {"spikes.timestamps.npy": 1, "alf/myspikes.times.npy": 1},
    "b/Subjects/r/2021-01-01/001": {},
    "a/Subjects/z/2021-06-01/010": {"alf/trials.table.pqt": 1},
    "a/Subjects/z/2021-06-01/009": {"alf/trials.table.pqt": 1},
    "a/Subjects/z/2020-12-31/001": {},
    "a/Subjects/z/2022-01-01/001": {},
}
LACKING = [5, 4, 3, 2]
"""Places of the sessions that are meant, in the order of the answer."""


def recipe(title):
    (code,) = re.findall(r"```\w+\n(.*?)```", PAGE.partition(f"\n### {title}\n")[2].partition("\n### ")[0], re.DOTALL)
    return code


@pytest.fixture
def folder(tmp_path):
    return write_lab(tmp_path / "tables", LAB)


def answer(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def expected(folder):
    words = shlex.split(QUESTION)[1:]
    eids = answer(sys.executable, "-m", "alfwatchd", *words, "--out-dir", folder)
    sessions = json.loads("".join(answer(sys.executable, "-m", "alfwatchd", "ls", "--json", "--out-dir", folder)))
    path_of = {session["eid"]: session["path"] for session in sessions["sessions"]}
    assert [path_of[eid] for eid in eids] == [list(LAB)[place] for place in LACKING]
    return eids


def test_the_question_is_that_of_the_page():
    assert QUESTION in " ".join(PAGE.split())


PYTHON = [
    pytest.param("pyarrow", "pyarrow"),
    pytest.param("pandas", "pandas"),
    pytest.param("DuckDB", "duckdb", marks=pytest.mark.heavy),
    pytest.param("Polars", "polars", marks=pytest.mark.heavy),
]


@pytest.mark.parametrize(("title", "package"), PYTHON)
def test_python_recipes(title, package, folder, expected):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install '.[recipes]'")
    assert answer(sys.executable, "-c", recipe(title).replace("/data/one", str(folder))) == expected


@pytest.mark.heavy
def test_the_recipe_for_r(folder, expected):
    if not (program := shutil.which("Rscript")):
        pytest.skip("R is not installed")
    asked = subprocess.run([program, "-e", "library(arrow)"], capture_output=True, check=False)
    if asked.returncode:
        pytest.skip("R has no package arrow; Debian does not have it")
    assert answer(program, "-e", recipe("R").replace("/data/one", str(folder))) == expected


@pytest.mark.heavy
def test_the_recipe_for_matlab(folder, expected):
    if not (program := shutil.which("matlab")):
        pytest.skip("MATLAB is not installed")
    assert answer(program, "-batch", recipe("MATLAB").replace("/data/one", str(folder)))[-len(expected) :] == expected


def test_names_of_datasets_match_what_the_page_says():
    rows = re.findall(
        r"(?m)^\| (`[^|]*`) \| (.*) \|$", PAGE.partition("\n## How to name datasets\n")[2].partition("\n## ")[0]
    )
    assert len(rows) == 4
    (first, meaning) = rows[0]
    pattern = DatasetPattern.parse(first.strip("`"))
    examples = re.findall(r"`([^`]+)`", meaning)
    assert len(examples) == 3
    assert all(map(pattern.matches, examples))
    for text in re.findall(r"`'?([^`']+)'?`", "".join(written for written, _ in rows)):
        DatasetPattern.parse(text)


def test_the_loop_of_the_page_goes_into_each_session(tmp_path):
    root = tmp_path / "a root"
    write_lab(root, {"s/2020-01-01/001": {"spikes.times.npy": 1}, "s/2020-01-01/2": {"spikes.times.npy": 1}})
    for session in ("001", "2"):
        (root / "s/2020-01-01" / session).mkdir(parents=True)
    (loop,) = (code for code in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "while read" in code)
    loop = loop.replace("alfwatchd ls", f"{sys.executable} -m alfwatchd ls --root {shlex.quote(str(root))}", 1)
    loop = loop.replace("clusters.metrics", "x.y")
    assert answer("sh", "-c", loop) == [f"sort me: {root}/s/2020-01-01/{session}" for session in ("001", "2")]
