"""What commands print, and what happens where it cannot be printed."""

from __future__ import annotations

import io
import json
from argparse import Namespace
from pathlib import Path

import pytest

from alfwatchd.api import FlushReply
from alfwatchd.cli import output
from alfwatchd.errors import AlfwatchdError

SIZES = [
    (0, "0 B"),
    (999, "999 B"),
    (1000, "1.0 kB"),
    (1_234_567, "1.2 MB"),
    (5e9, "5.0 GB"),
    (7.25e12, "7.2 TB"),
    (2e15, "2000.0 TB"),
]


@pytest.mark.parametrize(("number", "text"), SIZES)
def test_bytes_have_a_unit(number, text):
    """A person cannot compare numbers of thirteen digits at a glance."""
    assert output.show_bytes(number) == text


def test_a_reply_is_text_for_people_and_json_for_programs(capsys):
    """Scripts parse what --json prints: all of the reply, and nothing else."""
    output.show_reply(FlushReply(3, 0.5), Namespace(json=False), "generation 3")
    assert capsys.readouterr() == ("generation 3\n", "")
    output.show_reply(FlushReply(3, 0.5), Namespace(json=True), "generation 3")
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == ({"generation": 3, "seconds": 0.5}, "")


def test_paths_are_shown_as_text_in_json(capsys):
    """`alfwatchd config --json` has paths among its values."""
    output.show_json({"root": Path("/data")})
    assert json.loads(capsys.readouterr().out) == {"root": "/data"}


def test_notes_do_not_mix_with_the_answer(capsys):
    """A script that reads the answer must not find log lines in it."""
    output.note("a file went")
    assert capsys.readouterr() == ("", "a file went\n")


class Full(io.StringIO):
    """A stream on a disk that is full, or whose reader has gone."""

    def __init__(self, error):
        super().__init__()
        self._error = error

    def write(self, _):
        raise self._error

    def flush(self):
        raise self._error


def test_text_that_cannot_be_printed_is_an_error(monkeypatch):
    """Otherwise the user would see a traceback, or half an answer and the exit code 0."""
    monkeypatch.setattr("sys.stdout", Full(OSError(28, "No space left on device")))
    with pytest.raises(AlfwatchdError, match="cannot write to the standard output: No space left on device"):
        output.show("text")


FLUSHES = [
    (OSError(28, "No space left on device"), 0, 1, "alfwatchd: cannot write to the standard output: No space left"),
    (OSError(28, "No space left on device"), 3, 3, ""),  # another message says already why the command failed
    (BrokenPipeError(32, "Broken pipe"), 0, 0, ""),
    (ValueError("I/O operation on closed file"), 0, 1, "alfwatchd: cannot write to the standard output: I/O operation"),
]


@pytest.mark.parametrize(("error", "before", "after", "says"), FLUSHES)
def test_an_answer_that_is_lost_at_the_end_is_a_failure(error, before, after, says, monkeypatch, capsys):
    """What is buffered may fail to be written when the command itself is over."""
    monkeypatch.setattr("sys.stdout", Full(error))
    assert output.flush(before) == after
    monkeypatch.undo()
    assert capsys.readouterr().err.startswith(says)
