"""`alfwatchd ids`: an old id leads to the new one."""

from __future__ import annotations

import pytest

from alfwatchd.cli.ids import COMMAND
from kit.control import control_box

OLD = "1581141a-afb7-37de-9c3e-f910179da085"


def test_an_id_without_changes_ends_with_1(run):
    """A script must not take an unknown id for a valid one."""
    with control_box() as box:
        ended = run("ids", OLD, f"--socket={box.path}")
    assert (ended.code, ended.out) == (1, f"{OLD}: no change of this id is known\n")


def test_it_works_without_a_daemon(run, tmp_path):
    """Notebooks with old ids are also opened on machines where no daemon runs."""
    ended = run("ids", OLD, f"--root={tmp_path}", f"--state-dir={tmp_path / 'state'}")
    assert (ended.code, ended.out) == (1, f"{OLD}: no change of this id is known\n")


WRONG = [
    ([], "give either an id"),
    ([OLD, "--recompute"], "give either an id"),
    ([OLD, "--lab=x", "--hash-files"], "--lab and --hash-files: only --recompute uses this"),
    ([OLD, OLD], f"unexpected '{OLD}'"),
]


@pytest.mark.parametrize(("words", "says"), WRONG)
def test_what_makes_no_sense_together_is_refused(words, says, run):
    """A lookup changes nothing; --recompute changes every id. One must not be taken for the other."""
    ended = run(COMMAND.name, *words)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
