"""What docs/guide/react.md tells a lab to paste works in a bare shell, and prints what the page shows."""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from alfwatchd.follow.follower import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from alfwatchd.service.configuration import ENV_PREFIX, OF_COMMANDS

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/guide/react.md").read_text()
LONGEST_SECONDS = 300.0

VARIABLE = [(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "TIME"), (r"\+\d+ datasets, \+[\d.]+ kB", "MANY")]
"""What must differ from run to run: a copy can be told in two parts."""


def normalise(text: str) -> list[str]:
    """Return the lines of an output without what must differ."""
    for pattern, instead in VARIABLE:
        text = re.sub(pattern, instead, text)
    return text.splitlines()


@pytest.mark.heavy
def test_the_tutorial_prints_what_the_page_shows() -> None:
    section = PAGE.partition("\n## Try it\n")[2].partition("\n## ")[0]
    found = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", section)
    scripts = "".join(text for language, text in found if language == "sh")
    shown = "".join(text for language, text in found if not language)
    with tempfile.TemporaryDirectory(prefix="react") as name:  # short: a socket's path has at most 107 bytes
        folder = Path(name).resolve()
        (folder / ".venv").symlink_to(sys.prefix)
        done = subprocess.run(
            ["bash", "-s"],
            input=scripts,
            cwd=folder,
            env={"HOME": str(folder / "home"), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
        log = (folder / "react.log").read_text()
    differences = "\n".join(difflib.unified_diff(normalise(shown), normalise(done.stdout), "page", "shell", n=1))
    assert not differences, f"{differences}\n{log}"
    assert "daemon stopped" in log


def test_the_page_names_what_the_program_has() -> None:
    text = " ".join(PAGE.split())
    assert all(f"`{ENV_PREFIX}{name}`" in text for name in (*OF_COMMANDS, "ROOT"))
    assert f"after {FIRST_PAUSE_SECONDS:.0f}, 8, 32, ... seconds, at most an hour" in text
    assert LONGEST_PAUSE_SECONDS == 3600
