"""The flags that set a setting. Each is defined here once; a command takes those that it uses."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alfwatchd.cli.parser import whole_number

if TYPE_CHECKING:
    from argparse import _ArgumentGroup as ArgumentGroup

PRECEDENCE = "A flag wins over the environment (ALFWATCHD_ROOT, ...), and the environment\nwins over the --config file."
"""Sentence for the help of a command that reads settings."""

ADDRESS = ("root", "config", "socket", "out_dir", "state_dir")
"""The settings by which a command finds its daemon; `configuration.find_address` reads them."""

_FLAGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "root": ("--root", {"metavar": "DIR", "help": "folder that is indexed"}),
    "out_dir": ("--out-dir", {"metavar": "DIR", "help": "folder of the two tables (default: the root)"}),
    "state_dir": (
        "--state-dir",
        {
            "metavar": "DIR",
            "help": "folder where alfwatchd keeps its state between two runs: the disk, hashes, changed ids "
            "(default: a folder in ~/.local/state/alfwatchd)",
        },
    ),
    "socket": ("--socket", {"metavar": "PATH", "help": "Unix socket on which the daemon takes commands"}),
    "config": ("--config", {"metavar": "FILE", "help": "settings file (TOML); config.example.toml has every setting"}),
    "lab": ("--lab", {"metavar": "NAME", "help": "lab of all sessions, for a tree without lab folders"}),
    "exclude": (
        "--exclude",
        {
            "metavar": "PATTERN",
            "action": "append",
            "help": "leave out paths that match this .gitignore pattern; give the flag once for each pattern",
        },
    ),
    "hash_files": (
        "--hash-files",
        {"action": "store_true", "help": "compute the md5 of each dataset"},
    ),
    "scan_workers": (
        "--scan-workers",
        {
            "metavar": "N",
            "type": whole_number,
            "help": "processes that read the disk in a full scan (default: one per core, at most 4)",
        },
    ),
    "watch": (
        "--watch",
        {
            "metavar": "HOW",
            "choices": ["auto", "inotify", "poll"],
            "help": "how the daemon learns of changes: inotify, poll (scan now and then), or auto (inotify where it "
            "works; the default)",
        },
    ),
    "log_level": (
        "--log-level",
        {
            "metavar": "LEVEL",
            "choices": ["debug", "info", "warning", "error"],
            "help": "log messages of this level and above: debug, info, warning or error",
        },
    ),
    "serve.host": (
        "--host",
        {"metavar": "ADDRESS", "help": "address to listen at (default 127.0.0.1; 0.0.0.0 for all networks)"},
    ),
    "serve.port": (
        "--port",
        {"metavar": "PORT", "type": whole_number, "help": "TCP port (default 8310; 0 for any free port)"},
    ),
}
"""Key of the setting -> its flag, and what argparse is to know about it."""


def add_settings(parser: argparse.ArgumentParser, title: str, *keys: str, about: str | None = None) -> None:
    """Add a group of flags to a command.

    Parameters
    ----------
    parser : ArgumentParser
    title : str
        Heading of the group in the help.
    keys : str
        Keys of the settings.
    about : str or None
        Sentence below the heading; None for no sentence.
    """
    group = parser.add_argument_group(title, about)
    for key in keys:
        flag, options = _FLAGS[key]
        group.add_argument(flag, dest=key, default=None, **options)


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add the flags that lead a command to its daemon."""
    add_settings(
        parser,
        "which daemon",
        *ADDRESS,
        about="Give the flags that the daemon was started with. Without any of them, the\n"
        "command asks the daemon that listens on the usual socket.",
    )


def add_own_scan(parser: argparse.ArgumentParser, root_title: str, title: str, *keys: str) -> None:
    """Add the flags of a command that asks the daemon of a root, and scans the root itself if there is none.

    Parameters
    ----------
    parser : ArgumentParser
    root_title, title : str
        Headings of the two groups: of what leads to the root, and of the settings of the scan.
    keys : str
        Keys of these settings.
    """
    about = "Give the flags that the daemon or `alfwatchd --once` was started with."
    add_settings(parser, root_title, *ADDRESS, about=about)
    add_settings(parser, title, *keys, about="If a daemon runs for the root, its own settings are used instead.")


def add_output(parser: argparse.ArgumentParser, *, json_help: str = "print the whole answer as JSON") -> ArgumentGroup:
    """Add the group of ``--json`` and ``--help``, and return it."""
    group = parser.add_argument_group("output and help")
    group.add_argument("--json", action="store_true", help=f"{json_help}; errors, too")
    add_help(group)
    return group


def add_help(parser: argparse.ArgumentParser | ArgumentGroup) -> None:
    """Add ``--help``."""
    parser.add_argument("-h", "--help", action="help", help="print this help and end")


def read_flags(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the settings that the command line sets, by their keys, as `configuration.load` takes them."""
    values = vars(arguments)
    return {key: values[key] for key in _FLAGS if values.get(key) is not None}


def name_given(arguments: argparse.Namespace, *keys: str) -> list[str]:
    """Return the flags of those settings that the command line sets, for a message."""
    return [_FLAGS[key][0] for key in keys if key in read_flags(arguments)]
