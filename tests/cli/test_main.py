"""Which flags each command has, what its help shows, and how errors become exit codes."""

from __future__ import annotations

import json
import re
from argparse import Namespace

import pytest

from alfwatchd import errors
from alfwatchd.cli import daemon, main
from alfwatchd.cli.parser import CommandLine

LINE = CommandLine(daemon.COMMAND, main.COMMANDS)
NAMES = ["", *(command.name for command in main.COMMANDS)]

ADDRESS = {"--root", "--config", "--socket", "--out-dir", "--state-dir"}
SCAN = {"--lab", "--exclude", "--scan-workers", "--log-level"}
OUTPUT = {"--json", "-h", "--help"}
QUERY = {"--lab", "--subject", "--projects", "--date", "--number", "--having", "--lacking", "--limit", "--csv"}
FLAGS = {
    "": {*ADDRESS, *SCAN, "--hash-files", "--watch", "--once", "--accept-root", *OUTPUT, "--version"},
    "status": {*ADDRESS, *OUTPUT, "--check", "--watch"},
    "sync": {*ADDRESS, *OUTPUT},
    "flush": {*ADDRESS, *OUTPUT},
    "rescan": {*ADDRESS, *OUTPUT, "--accept-root"},
    "ls": {*ADDRESS, *OUTPUT, *QUERY, "--sort", "--reverse", "--paths", "--eids"},
    "report": {*ADDRESS, *OUTPUT, *QUERY, "--require"},
    "metrics": {*ADDRESS, *OUTPUT, "--textfile", "--label"},
    "follow": {
        *ADDRESS, *OUTPUT, "--lab", "--subject", "--having", "--lacking", "--quiet-for", "--since", "--cursor",
        "--exec", "--shell", "--jobs", "--retry", "--max-runs", "--grace", "--log-level",
    },
    "ids": {*ADDRESS, *OUTPUT, *SCAN, "--hash-files", "--recompute"},
    "set": {*ADDRESS, *OUTPUT, *SCAN, "--hash-files"},
    "prune": {
        *ADDRESS, *OUTPUT, *SCAN, "--reference", "--apply", "--newer", "--keep-empty-sessions", "--max-fraction",
        "--list", "--undo", "--empty-trash",
    },
    "serve": {*ADDRESS, "--log-level", "--host", "--port", *OUTPUT},
    "config": {*ADDRESS, *OUTPUT, *SCAN, "--hash-files", "--watch"},
    "demo": {"--sessions", *OUTPUT},
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_command_has_the_flags_that_it_uses_and_no_others(name):
    """A flag without effect makes a user believe that something was done otherwise than it was."""
    assert LINE.flags[name] == FLAGS[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_flag_of_another_command_is_refused_with_its_owner(name, run):
    """A user who confuses two commands learns which one the flag belongs to, and nothing is done."""
    foreign = set().union(*FLAGS.values()) - FLAGS[name]
    assert foreign
    for flag in foreign:
        ended = run(*filter(None, [name]), flag)
        assert ended.code == 2
        assert f"{flag} belongs to `alfwatchd" in ended.err
        assert ended.out == ""


@pytest.mark.parametrize("name", NAMES)
def test_help_teaches_in_groups(name, run):
    """Without titles and examples, a user has to read the source to know what to type."""
    ended = run(*filter(None, [name]), "--help")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"usage: {f'alfwatchd {name}'.rstrip()}")
    titles = re.findall(r"^([a-z].*):$", ended.out, re.MULTILINE)
    assert "options" not in titles
    assert "positional arguments" not in titles
    assert {"example", "examples"} & set(titles)
    assert re.search(r"^exit codes: 0 done, ", ended.out, re.MULTILINE)
    for flag in FLAGS[name]:
        assert re.search(rf"^  (-h, )?{flag}\b.*", ended.out, re.MULTILINE) or flag == "-h", flag
    assert max(map(len, ended.out.splitlines())) <= 92


TITLES = {
    "status": ["how it is shown", "which daemon", "output and help", "examples"],
    "rescan": ["what to scan", "which daemon", "output and help", "examples"],
    "demo": ["the tree", "output and help", "example"],
    "": [
        "commands", "one update instead of a daemon", "places", "what is indexed", "how it runs",
        "daemon only (no effect with --once)", "output and help", "examples",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", TITLES)
def test_groups_come_in_the_order_in_which_a_user_needs_them(name):
    """What the command is about comes first, help and output last."""
    assert re.findall(r"^([a-z].*):$", LINE.format_help(name), re.MULTILINE) == TITLES[name]


def test_version(run):
    """A bug report without the version cannot be followed up."""
    assert re.fullmatch(r"alfwatchd \d\S*\n", run("--version").out)


CODES = {
    errors.AlfwatchdError: 1,
    errors.PruneRefused: 1,
    errors.UsageError: 2,
    errors.NoDaemon: 3,
    errors.WrongRoot: 3,
    errors.Locked: 75,
    errors.Busy: 75,
    errors.ConfigError: 78,
}


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
def test_an_error_becomes_a_message_and_its_exit_code(kind, run, monkeypatch):
    """Scripts decide by the exit code whether to try again."""

    def fail(_):
        raise kind("the disk is on fire; call somebody")

    monkeypatch.setattr(main, "parse", lambda _: Namespace(run=fail))
    ended = run()
    assert (ended.code, ended.out) == (CODES[kind], "")
    assert ended.err == "alfwatchd: the disk is on fire; call somebody\n"


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
def test_a_script_that_asks_for_json_gets_errors_as_json(kind, run, monkeypatch):
    """It must not parse sentences, and what it reads from the standard output is an answer or nothing."""

    def fail(_):
        raise kind("https://me:secret@host/ is on fire")

    monkeypatch.setattr(main, "parse", lambda _: Namespace(run=fail))
    ended = run("--json")
    assert (ended.code, ended.out) == (CODES[kind], "")
    told = json.loads(ended.err)
    assert (told["error"], told["exit_code"]) == (kind.__name__, CODES[kind])
    assert "is on fire" in told["message"]
    assert "secret" not in told["message"]
    assert ended.err.count("\n") == 1


def test_an_error_of_the_command_line_is_json_too(run):
    """A script with a typing error gets the same form as for any other error; behind `--`, the word is no flag."""
    told = json.loads(run("status", "--json", "--sokcet=/s").err)
    assert (told["error"], told["exit_code"]) == ("UsageError", 2)
    assert "--socket" in told["message"]
    assert run("status", "--", "--json").err.startswith("alfwatchd: ")


def test_a_kind_of_error_that_the_page_does_not_name_gets_the_name_of_its_base(run, monkeypatch):
    """Programs know the names on the page of the control API only."""

    class Special(errors.Busy):
        pass

    def fail(_):
        raise Special("wait")

    monkeypatch.setattr(main, "parse", lambda _: Namespace(run=fail))
    assert json.loads(run("--json").err)["error"] == "Busy"


def test_an_interrupt_ends_with_130_and_without_a_traceback(run, monkeypatch):
    """Ctrl-C is no bug, and the shell must know that the command did not end by itself."""

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "parse", lambda _: Namespace(run=interrupt))
    assert (run().code, run().err) == (130, "")
