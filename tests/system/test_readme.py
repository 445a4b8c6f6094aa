"""What README tells a newcomer to paste works in a bare shell, and prints what README shows."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
LONGEST_SECONDS = 300.0
"""Generous: a busy machine imports ONE slowly."""

# What must differ from run to run, or from machine to machine.
VARIABLE = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", "TIME"),
    (r"generation \d+( of \d+)?", "generation N"),
    (r"\d+\.\d+ s\b", "SECONDS"),
    (r"(?m)^watches    (\d+) of \d+", r"watches    \1 of LIMIT"),
    (r"(?m)^(root|tables)( +)/.*/demo$", r"\1\2/.../demo"),
]


def normalise(text: str) -> list[str]:
    """Return the lines of an output without what must differ."""
    for pattern, instead in VARIABLE:
        text = re.sub(pattern, instead, text)
    return text.splitlines()


def blocks(title: str) -> list[tuple[str, str]]:
    """Return (language, text) of the blocks of code in a section of README."""
    section = README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", section)


@pytest.mark.heavy
@pytest.mark.parametrize("has_runtime_dir", [False, True])
def test_the_sixty_seconds_print_what_readme_shows(has_runtime_dir: bool) -> None:
    """Without it, the first thing that a newcomer pastes may fail."""
    (_, script), (_, shown) = blocks("Sixty seconds")
    with tempfile.TemporaryDirectory(prefix="readme") as name:  # short: a socket's path has at most 107 bytes
        folder = Path(name).resolve()
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "run").mkdir(mode=0o700)
        variables = {"HOME": str(folder / "home"), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        if has_runtime_dir:
            variables["XDG_RUNTIME_DIR"] = str(folder / "run")
        done = subprocess.run(
            ["bash", "-s"],
            input=script,
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
        log = folder / "demo.log"
        told = log.read_text() if log.exists() else "no log"
    differences = "\n".join(difflib.unified_diff(normalise(shown), normalise(done.stdout), "README", "shell", n=1))
    assert not differences, f"{differences}\n{done.stderr}\n{told}"
    assert "daemon stopped" in told


def test_the_command_of_the_first_block_is_called_by_its_path_too() -> None:
    """Without it, a newcomer who has not changed PATH has no program."""
    program = Path(sys.prefix) / "bin/alfwatchd"
    said = subprocess.run([program, "--version"], env={}, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"alfwatchd \d\S*\n", said)
    assert os.access(program, os.X_OK)


def test_the_developers_line_is_the_first_that_names_the_check() -> None:
    """Without it, `.ci/run`, which runs the first such line, would run something else."""
    line = next(line for line in README.splitlines() if "tools/check.py" in line)
    assert line.startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert "'.[test]'" in line
    assert line.endswith("&& .venv/bin/python tools/check.py")
