"""What the tests of commands share: a way to run one in this process."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from alfwatchd.cli import output
from alfwatchd.cli.main import main


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Ended]]:
    """A function that runs one command line, in an environment that sets nothing, and tells how it ended."""
    for name in os.environ:
        if name.startswith(("ALFWATCHD_", "XDG_", "STATE_DIRECTORY", "RUNTIME_DIRECTORY")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # a short path: that of a socket has at most 107 bytes
    monkeypatch.setenv("COLUMNS", "80")
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level

    def run_one(*words: object) -> Ended:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ended(code, *capsys.readouterr())

    yield run_one
    output.show_errors_as_json(wanted=False)
    logger.handlers[:] = handlers  # a command sends the log to the standard error that it found
    logger.setLevel(level)
