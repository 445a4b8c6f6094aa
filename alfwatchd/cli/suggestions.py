"""What to tell a person about a command or flag that does not exist, or that belongs to another command. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from alfwatchd.nearest import nearest

Flags = Mapping[str, Collection[str]]
"""Name of a command, empty for the program without a command -> the flags that it has."""

_MOST_NAMES = 4


def wrong_flag(flag: str, command: str, flags: Flags) -> str:
    """Return the message for a flag that a command does not have.

    Parameters
    ----------
    flag : str
        As it was written, without its value.
    command : str
        Name of the command, empty for none.
    flags : mapping of str to collection of str
    """
    owners = [name for name, owned in flags.items() if flag in owned]
    if owners:
        return f"{flag} belongs to {_list(owners)}, not to {_name(command)}; {_see_help(command)}"
    near = _nearest_flag(flag, flags[command]) or _nearest_flag(flag, set().union(*flags.values()))
    if near is None:
        return f"unknown flag {flag}; {_see_help(command)}"
    if near in flags[command]:
        return f"unknown flag {flag}; did you mean {near}?"
    owners = [name for name, owned in flags.items() if near in owned]
    return f"unknown flag {flag}; did you mean {near}? It belongs to {_list(owners)}, not to {_name(command)}"


def wrong_command(word: str, flags: Flags) -> str:
    """Return the message for a word that is in the place of a command and is none.

    Parameters
    ----------
    word : str
    flags : mapping of str to collection of str
    """
    if "/" in word:
        return f"unknown command {word!r}; to name the root, write --root {word}"
    # Somebody who writes `alfwatchd once` means `alfwatchd --once`.
    calls = {flag.lstrip("-"): f"alfwatchd {flag}" for flag in flags[""]}
    calls |= {name: f"alfwatchd {name}" for name in flags if name}
    near = nearest(word, calls)
    if near is not None:
        return f"unknown command {word!r}; did you mean `{calls[near]}`?"
    return f"unknown command {word!r}; the commands are {', '.join(name for name in flags if name)}"


def _nearest_flag(flag: str, flags: Iterable[str]) -> str | None:
    # Without the hyphens, which all flags have in common.
    words = {each.lstrip("-"): each for each in flags}
    near = nearest(flag.lstrip("-"), words)
    return words[near] if near is not None else None


def call(command: str) -> str:
    """Return the words that call a command."""
    return f"alfwatchd {command}".rstrip()


def _see_help(command: str) -> str:
    return f"`{call(command)} --help` shows the flags"


def _list(commands: Iterable[str]) -> str:
    names = list(map(_name, commands))
    if len(names) > _MOST_NAMES:
        names[2:] = [f"{len(names) - 2} other commands"]
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _name(command: str) -> str:
    return f"`{call(command)}`" if command else "`alfwatchd` without a command"
