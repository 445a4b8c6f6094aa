"""What `ls` and `report` share: which tables are read, and which sessions are meant."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from alfwatchd.alf.patterns import DatasetPattern
from alfwatchd.cli import addressing, settings_flags
from alfwatchd.cli.parser import whole_number
from alfwatchd.errors import ConfigError, NoDaemon, UsageError
from alfwatchd.query.conditions import Conditions, Dates
from alfwatchd.service import configuration

if TYPE_CHECKING:
    from alfwatchd.query.tables import Tables

_T = TypeVar("_T")
_MOST_NUMBER = 999


def checked(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Return a function for argparse, which shows the message of only one class of errors."""

    def parse_or_tell(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse_or_tell


dataset_pattern = checked(DatasetPattern.parse)
"""Function for argparse that returns a `DatasetPattern`."""


def name(text: str) -> str:
    """Return the name that a value of a flag is."""
    if not text:
        raise argparse.ArgumentTypeError("the value is empty; is a variable not set?")
    return text


def _number(text: str) -> int:
    if not 0 <= (number := whole_number(text)) <= _MOST_NUMBER:
        raise argparse.ArgumentTypeError(f"{text!r}: the number of a session is from 0 to {_MOST_NUMBER}")
    return number


SELECTION: Mapping[str, tuple[str, str, Callable[[str], object], str]] = {
    "--lab": ("labs", "NAME", name, "of one of these labs"),
    "--subject": ("subjects", "NAME", name, "of one of these subjects"),
    "--projects": ("projects", "NAME", name, "of one of these projects"),
    "--date": (
        "dates",
        "A..B",
        checked(Dates.parse),
        "from day A to day B; also A.., ..B, one day, one month (2021-02) or one year",
    ),
    "--number": ("numbers", "N", _number, "with one of these numbers"),
    "--having": (
        "having",
        "DATASET",
        dataset_pattern,
        "with each of these datasets: spikes.times, a file name, or a glob as 'alf/*/spikes.*'",
    ),
    "--lacking": ("lacking", "DATASET", dataset_pattern, "without any of these datasets"),
}
"""Each flag that selects sessions: where argparse puts its value, and what it is to know about it."""


def add_tables(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which tables are read."""
    settings_flags.add_settings(
        parser,
        "which tables",
        *settings_flags.ADDRESS,
        about="Give the flags that the daemon was started with, or --out-dir alone for tables\n"
        "that another program wrote. Without any of them, the daemon on the usual socket\n"
        "is asked where its tables are.",
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select sessions."""
    group = parser.add_argument_group(
        "which sessions",
        "Each flag but --date may be given several times. NAME may be a glob, as 'SL-*'.",
    )
    for flag, (name, metavar, kind, told) in SELECTION.items():
        action = "store" if name == "dates" else "append"
        group.add_argument(flag, dest=name, metavar=metavar, type=kind, action=action, help=told)


def read_conditions(arguments: argparse.Namespace) -> Conditions:
    """Return what the flags of `add_selection` say."""
    return Conditions(
        labs=tuple(arguments.labs or ()),
        subjects=tuple(arguments.subjects or ()),
        projects=tuple(arguments.projects or ()),
        dates=arguments.dates or Dates(),
        numbers=tuple(arguments.numbers or ()),
        having=tuple(arguments.having or ()),
        lacking=tuple(arguments.lacking or ()),
    )


@dataclass(frozen=True, slots=True)
class Place:
    """Where the tables are.

    Parameters
    ----------
    out_dir : Path
    root : Path or None
        None if no setting and no daemon tells it: then the tables themselves may tell.
    required : tuple of str
        The setting `report.required`.
    """

    out_dir: Path
    root: Path | None
    required: tuple[str, ...] = ()


def find_place(arguments: argparse.Namespace) -> Place:
    """Return where the tables are that the command means.

    Raises
    ------
    ConfigError
        Nothing tells which ones are meant, or a setting is wrong.
    WrongRoot, NotAllowed
        A daemon was asked, and refuses.
    """
    flags = settings_flags.read_flags(arguments)
    root = configuration.find_address(flags).root
    if root is None and "out_dir" not in flags:
        return _ask_daemon(flags)
    settings = configuration.load(flags if root else {**flags, "root": flags["out_dir"]}).settings
    return Place(settings.out_dir, root and settings.root, settings.report.required)


def unknown_of_lacking(tables: Tables, patterns: tuple[DatasetPattern, ...]) -> list[str]:
    """Return a note for each pattern that no dataset matches: every session lacks it, or its name is misspelt."""
    from alfwatchd.query.sessions import unknown_dataset

    return [unknown_dataset(tables, each) for each in patterns if not tables.having(each.matches).any()]


def at_least_one(text: str) -> int:
    """Return the whole number above 0 that a value of a flag stands for."""
    if (number := whole_number(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1")
    return number


def _ask_daemon(flags: configuration.Flags) -> Place:
    try:
        status = addressing.find_daemon(flags).status()
    except NoDaemon as error:
        if "socket" in flags:
            raise
        raise ConfigError(
            "which tables? Give --root DIR, ALFWATCHD_ROOT=DIR or --config FILE, or --out-dir DIR for the folder of "
            f"the tables itself. Without them, a daemon is asked; {error}"
        ) from error
    return Place(Path(status.out_dir), Path(status.root))


def refuse_selection(arguments: argparse.Namespace, why: str) -> None:
    """Raise `UsageError` if one of the flags of `add_selection` is given."""
    if given := [flag for flag, (name, *_) in SELECTION.items() if getattr(arguments, name) is not None]:
        raise UsageError(f"{' and '.join(given)}: {why}")
