"""What is suggested for a wrong word."""

from __future__ import annotations

import pytest

from alfwatchd.cli import daemon, main, suggestions
from alfwatchd.cli.parser import CommandLine

FLAGS = CommandLine(daemon.COMMAND, main.COMMANDS).flags

WRONG_FLAGS = [
    ("--max-fraction", "status", "--max-fraction belongs to `alfwatchd prune`, not to `alfwatchd status`; "
     "`alfwatchd status --help` shows the flags"),
    ("--undo", "", "--undo belongs to `alfwatchd prune`, not to `alfwatchd` without a command; "
     "`alfwatchd --help` shows the flags"),
    ("--accept-root", "sync", "--accept-root belongs to `alfwatchd` without a command and `alfwatchd rescan`, "
     "not to `alfwatchd sync`; `alfwatchd sync --help` shows the flags"),
    ("--root", "demo", "--root belongs to `alfwatchd` without a command, `alfwatchd status` and 12 other commands, "
     "not to `alfwatchd demo`; `alfwatchd demo --help` shows the flags"),
    ("--jsn", "status", "unknown flag --jsn; did you mean --json?"),
    ("--refrence", "prune", "unknown flag --refrence; did you mean --reference?"),
    ("--out_dir", "serve", "unknown flag --out_dir; did you mean --out-dir?"),
    ("--refrence", "status", "unknown flag --refrence; did you mean --reference? It belongs to `alfwatchd prune`, "
     "not to `alfwatchd status`"),
    ("--frobnicate", "status", "unknown flag --frobnicate; `alfwatchd status --help` shows the flags"),
    ("--frobnicate", "", "unknown flag --frobnicate; `alfwatchd --help` shows the flags"),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "command", "message"), WRONG_FLAGS)
def test_a_wrong_flag_leads_to_the_right_one(flag, command, message):
    """Without this, a user with a typing error, or at the wrong command, has to read every help text."""
    assert suggestions.wrong_flag(flag, command, FLAGS) == message


WRONG_COMMANDS = [
    ("statsu", "unknown command 'statsu'; did you mean `alfwatchd status`?"),
    ("Sync", "unknown command 'Sync'; did you mean `alfwatchd sync`?"),
    ("once", "unknown command 'once'; did you mean `alfwatchd --once`?"),
    ("help", "unknown command 'help'; did you mean `alfwatchd --help`?"),
    ("/data/one", "unknown command '/data/one'; to name the root, write --root /data/one"),
    ("frobnicate", "unknown command 'frobnicate'; the commands are status, sync, flush, rescan, ls, report, metrics, "
     "follow, ids, set, prune, serve, config, demo"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "message"), WRONG_COMMANDS)
def test_a_wrong_command_leads_to_the_right_one(word, message):
    """A new user tries words; each wrong one must lead on."""
    assert suggestions.wrong_command(word, FLAGS) == message
