"""`alfwatchd demo`: the command. `test_demo_tree` has the tree."""

from __future__ import annotations

import json


def test_it_says_what_to_do_next(run, tmp_path):
    """The first minute of a new user: the printed command can be pasted."""
    ended = run("demo", tmp_path / "demo", "--sessions=2")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("2 sessions, ")
    assert ended.out.endswith(f"now try: alfwatchd --root {tmp_path / 'demo'} --once\n")


def test_a_program_gets_the_numbers(run, tmp_path):
    """A test of a lab's own scripts can check what they find."""
    told = json.loads(run("demo", tmp_path / "demo", "--sessions=2", "--json").out)
    assert (told["folder"], told["n_sessions"]) == (str(tmp_path / "demo"), 2)
    assert {"n_datasets", "n_bytes", "n_junk"} <= told.keys()


def test_a_folder_that_holds_something_is_left_alone(run, tmp_path):
    """A demo must never be mixed with real data."""
    (tmp_path / "thesis.tex").write_text("mine")
    ended = run("demo", tmp_path)
    assert (ended.code, ended.out) == (1, "")
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_number_out_of_range_is_a_usage_error(run, tmp_path):
    """The message names the range."""
    ended = run("demo", tmp_path / "demo", "--sessions=0")
    assert ended.code == 2
    assert "1 to 1000" in ended.err
