"""How the words of a command line are read."""

from __future__ import annotations

import pytest

from alfwatchd.cli import daemon, main
from alfwatchd.cli.parser import Command, CommandLine
from alfwatchd.errors import UsageError


def add_flags(parser):
    parser.add_argument("--root")
    parser.add_argument("--json", action="store_true")


def add_path(parser):
    add_flags(parser)
    parser.add_argument("--all", nargs="?", const="every")
    parser.add_argument("path", nargs="?")


def make(name, add):
    return Command(name, "", "", "", add, run=lambda _: name)


LINE = CommandLine(make("", add_flags), [make("look", add_path), make("wait", add_flags)])


def parse(words):
    arguments = vars(LINE.parse(words.split()))
    name = arguments.pop("run")(None)
    return name, {key: value for key, value in arguments.items() if value}


READ = [
    ("", "", {}),
    ("--root r", "", {"root": "r"}),
    ("wait --root r", "wait", {"root": "r"}),
    ("--root r wait", "wait", {"root": "r"}),
    ("--root=r --json wait", "wait", {"root": "r", "json": True}),
    ("--root wait", "", {"root": "wait"}),  # the name of a command, as a value
    ("--root wait wait", "wait", {"root": "wait"}),
    ("--root wait look wait", "look", {"root": "wait", "path": "wait"}),
    ("look p --json", "look", {"path": "p", "json": True}),
    ("--json look p", "look", {"path": "p", "json": True}),
    ("look -- --json", "look", {"path": "--json"}),
    ("look --all", "look", {"all": "every"}),
    ("look --all p", "look", {"all": "p"}),
    ("--root a wait --root b", "wait", {"root": "b"}),
]


@pytest.mark.parametrize(("words", "name", "values"), READ)
def test_flags_stand_before_or_after_the_command(words, name, values):
    """A user who types the root first must reach the same command as one who types it last."""
    assert parse(words) == (name, values)


REFUSED = [
    ("waitt", "did you mean `alfwatchd wait`?"),
    ("wait p", "unexpected 'p'"),
    ("wait --rot r", "did you mean --root?"),
    ("--rot r wait", "did you mean --root?"),
    ("--rot=r wait", "did you mean --root?"),
    ("wait --all", "--all belongs to `alfwatchd look`"),
    ("--all", "--all belongs to `alfwatchd look`"),
    ("wait --root", "argument --root: expected one argument; `alfwatchd wait --help` explains the command"),
    ("wait --json=1", "argument --json: ignored explicit argument '1'"),
    ("wait -x", "unknown flag -x"),
    ("wait --roo r", "did you mean --root?"),  # no abbreviations: a later flag would change what they mean
]


@pytest.mark.parametrize(("words", "says"), REFUSED)
def test_what_is_not_understood_is_an_error(words, says):
    """A word that is passed over would let the command do something else than the user wrote."""
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert says in str(caught.value)


def test_an_empty_word_is_no_command():
    """A variable of a script that is not set must not start the daemon."""
    with pytest.raises(UsageError, match="unknown command ''"):
        LINE.parse([""])


def test_a_flag_takes_a_value_in_all_commands_or_in_none():
    """Otherwise the value of a flag before the command could be taken for the command."""
    values = {}
    for command in (daemon.COMMAND, *main.COMMANDS):
        parser = CommandLine(command, []).parse
        for flag in CommandLine(command, []).flags[command.name] - {
            "-h",
            "--help",
            "--version",
            "--empty-trash",
            "--watch",
        }:
            try:
                parser([flag] if not command.name else [command.name, flag])
            except UsageError as error:
                takes = f"{flag}: expected one argument" in str(error)
            else:
                takes = False
            assert values.setdefault(flag, takes) == takes, flag
    assert values["--root"]
    assert not values["--json"]


WATCH = [
    (["status", "--watch"], {"looks_on": True}),
    (["--watch", "status"], {"looks_on": True}),
    (["--json", "--watch", "status", "--root=/r"], {"looks_on": True, "root": "/r"}),
    (["--watch", "poll"], {"watch": "poll", "once": False}),
    (["--watch", "poll", "config"], {"watch": "poll"}),
    (["config", "--watch=poll"], {"watch": "poll"}),
]


@pytest.mark.parametrize(("words", "values"), WATCH)
def test_watch_is_a_switch_of_status_and_a_setting_elsewhere(words, values):
    """Both names are what users expect; neither may start a daemon where a look was meant."""
    found = vars(CommandLine(daemon.COMMAND, main.COMMANDS).parse(words))
    assert {key: found[key] for key in values} == values


@pytest.mark.parametrize("words", ["demo d --sessions=many", "--scan-workers=many", "serve --port=many"])
def test_a_text_that_is_no_number_is_named(words, run):
    """The user sees which flag is wrong, and what was read."""
    ended = run(*words.split())
    assert ended.code == 2
    assert f"{words.split()[-1].partition('=')[0]}: 'many' is not a whole number" in ended.err
