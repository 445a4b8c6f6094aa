"""`alfwatchd prune`: which flags go together. `tests/system/test_prune_command.py` lets it delete."""

from __future__ import annotations

import pytest

from alfwatchd.cli import main

TOGETHER = [
    (["--undo=p", "--apply"], "--undo and --apply cannot be used together; run one after the other"),
    (["--list", "--empty-trash"], "--empty-trash and --list cannot be used together"),
    (["--undo=p", "--reference=/x"], "--undo and --reference cannot be used together"),
    (["--list", "--max-fraction=0.1"], "--list and --max-fraction cannot be used together"),
    (["--list", "--newer", "--keep-empty-sessions"], "--list and --keep-empty-sessions and --newer cannot"),
]


@pytest.mark.parametrize(("words", "says"), TOGETHER)
def test_one_thing_at_a_time(words, says, run, tmp_path):
    """Of two requests in one line one would be forgotten, and the user would not know which."""
    ended = run("prune", f"--root={tmp_path}", *words)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


@pytest.mark.parametrize("flag", ["--undo", "--empty-trash", "--reference"])
def test_an_empty_value_is_a_mistake(flag, run, tmp_path):
    """`--empty-trash "$PLAN"` without PLAN must not delete what every plan has moved."""
    ended = run("prune", f"--root={tmp_path}", flag, "")
    assert ended.code == 2
    assert f"{flag}: the value is empty; is a variable not set?" in ended.err


FRACTIONS = [
    ("many", "'many' is no number; write a number from 0 to 1"),
    ("10", "10 is no fraction: for 10 % write 0.1"),
    ("-1", "-1 is no fraction: write a number from 0 to 1"),
    ("nan", "nan is no number: write a number from 0 to 1"),
]


@pytest.mark.parametrize(("value", "says"), FRACTIONS)
def test_a_text_that_is_no_fraction_gets_an_error_that_says_what_is_meant(value, says, run):
    """10 for 10 % would allow to delete everything."""
    ended = run("prune", f"--max-fraction={value}")
    assert ended.code == 2
    assert says in ended.err


def test_nothing_is_applied_by_default():
    """Only a user who writes --apply wants to delete."""
    arguments = main.parse(["prune", "--reference=/x"])
    assert (arguments.apply, arguments.newer, arguments.undo, arguments.empty_trash) == (False, False, None, None)
