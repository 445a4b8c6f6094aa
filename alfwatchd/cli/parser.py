"""Reads a command line: finds the command among the words, and parses the others with the flags of that command."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from alfwatchd.cli import output, suggestions
from alfwatchd.errors import UsageError

_HELP_COLUMN = 26
_NAME_WIDTH = 10


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the program: its help, its flags, and the function that runs it.

    Parameters
    ----------
    name : str
        Word that selects the command; empty for what the program does without a command.
    operands : str
        Words that follow the name, as the usage line shows them, for example ``[PATH]``.
    summary : str
        One line for the list of commands.
    description : str
        What the command does, in a few sentences.
    examples : str
        Text below the flags: examples, and exit codes where they matter.
    add_flags : callable
        Adds the flags of the command to its parser.
    run : callable
        Runs the command and returns the exit code.
    """

    name: str
    summary: str
    description: str
    examples: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    operands: str = ""


class CommandLine:
    """The command lines that the program understands.

    Parameters
    ----------
    without_name : Command
        What runs if no command is named.
    commands : sequence of Command
    """

    def __init__(self, without_name: Command, commands: Sequence[Command]) -> None:
        self._commands = {command.name: command for command in (without_name, *commands)}
        self._parsers = {command.name: _CommandParser(command) for command in self._commands.values()}
        listing = "\n".join(f"  {command.name:<{_NAME_WIDTH}}{command.summary}" for command in commands)
        self._parsers[without_name.name].description = (
            f"{without_name.description}\n\ncommands:\n{listing}\n\n"
            "`alfwatchd COMMAND --help` explains a command and shows its flags."
        )
        self.flags = {name: frozenset(parser.takes_value) for name, parser in self._parsers.items()}
        """Name of a command -> all flags that it has."""

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the arguments, with the function of the command as `run`.

        A flag may stand before or after the command.

        Parameters
        ----------
        words : sequence of str
            The command line without the name of the program.

        Raises
        ------
        UsageError
            A command, a flag or a value is wrong; the message suggests what may be meant.
        SystemExit
            Help or the version was asked for, and printed.
        """
        name, rest = self._split(words)
        parser = self._parsers[name]
        for _, word in _unbound(rest, parser.takes_value):
            if _is_flag(word) and (flag := _name_of(word)) not in parser.takes_value:
                raise UsageError(suggestions.wrong_flag(flag, name, self.flags))
        arguments, extra = parser.parse_known_args(rest)
        if extra:
            parser.error(f"unexpected {' '.join(extra)!r}")
        return arguments

    def format_help(self, name: str) -> str:
        """Return the help text of a command."""
        return self._parsers[name].format_help()

    def _split(self, words: Sequence[str]) -> tuple[str, list[str]]:
        """Return the name of the command, and all other words in their order."""
        all_flags = [pair for parser in self._parsers.values() for pair in parser.takes_value.items()]
        takes_value = {flag: any(takes for name, takes in all_flags if name == flag) for flag, _ in all_flags}
        for place, word in _unbound(words, takes_value):
            if not _is_flag(word):
                if word not in self._commands or not word:
                    raise UsageError(suggestions.wrong_command(word, self.flags))
                return word, [*words[:place], *words[place + 1 :]]
            if _name_of(word) not in takes_value:
                raise UsageError(suggestions.wrong_flag(_name_of(word), "", self.flags))
        for place, (flag, word) in enumerate(pairwise(words), start=1):
            # `--watch status`: what is a switch of this command takes a value without a command.
            if word in self._commands and word and self._parsers[word].takes_value.get(flag) is False:
                return word, [*words[:place], *words[place + 1 :]]
        return "", list(words)


class _CommandParser(argparse.ArgumentParser):
    """Parses the words of one command. Raises `UsageError` where argparse would end the process."""

    def __init__(self, command: Command) -> None:
        words = [suggestions.call(command.name), command.operands, "[FLAGS]"]
        super().__init__(
            words[0],
            usage=" ".join(filter(None, words)) + ("" if command.name else "\n       alfwatchd COMMAND [FLAGS]"),
            description=command.description,
            epilog=command.examples,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=_HELP_COLUMN),
            allow_abbrev=False,
            add_help=False,
        )
        command.add_flags(self)
        self.set_defaults(run=command.run)
        self.takes_value: Mapping[str, bool] = {
            flag: action.nargs is None for action in self._actions for flag in action.option_strings
        }
        """Each flag -> whether the word behind it is always its value."""

    def print_help(self, _: object = None) -> None:
        output.show(self.format_help().rstrip("\n"))  # argparse says nothing of a disk that is full

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` explains the command")


def whole_number(text: str) -> int:
    """Return the number that a value of a flag stands for; argparse turns the error into a `UsageError`."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error


def _unbound(words: Sequence[str], takes_value: Mapping[str, bool]) -> Iterator[tuple[int, str]]:
    """Yield the place and text of each word before ``--`` that is not the value of the flag before it."""
    is_value = False
    for place, word in enumerate(words):
        if is_value:
            is_value = False
        elif word == "--":
            return
        else:
            yield place, word
            is_value = takes_value.get(word, False)


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word != "-"


def _name_of(word: str) -> str:
    return word.partition("=")[0]
