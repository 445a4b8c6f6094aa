"""`alfwatchd` without a command: runs the daemon or, with ``--once``, updates the tables once."""

from __future__ import annotations

import argparse

from alfwatchd.cli import once, output, settings_flags
from alfwatchd.cli.parser import Command
from alfwatchd.errors import UsageError
from alfwatchd.service import configuration, logs
from alfwatchd.version import find_version

_EXAMPLES = """\
examples:
  alfwatchd demo ./demo                    write a small tree to try this on
  alfwatchd --root ./demo --once           update its tables once
  alfwatchd --root ./demo                  keep its tables up to date until Ctrl-C
  alfwatchd status                         ask the daemon, in another terminal
  alfwatchd sync && python analysis.py     start when the tables hold every change

exit codes: 0 done, 1 failed, 2 usage, 3 no daemon, 75 busy or locked, 78 bad configuration
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("one update instead of a daemon")
    group.add_argument("--once", action="store_true", help="update the tables, print a summary and end")
    group.add_argument(
        "--accept-root",
        action="store_true",
        help="with --once: accept the root even if it is a different disk or folder than last time, and drop the rows "
        "of all sessions that are gone",
    )
    settings_flags.add_settings(
        parser, "places", "root", "out_dir", "state_dir", "config", about=settings_flags.PRECEDENCE
    )
    settings_flags.add_settings(parser, "what is indexed", "lab", "exclude", "hash_files")
    settings_flags.add_settings(parser, "how it runs", "scan_workers", "log_level")
    settings_flags.add_settings(parser, "daemon only (no effect with --once)", "watch", "socket")
    group = settings_flags.add_output(parser, json_help="with --once: print the summary as JSON")
    group.add_argument("--version", action=_ShowVersion, nargs=0, help="print the version and end")


class _ShowVersion(argparse.Action):
    """Print the version and end. The action of argparse exits 0 also where nothing could be printed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        output.show(f"alfwatchd {find_version()}")
        parser.exit()


def _run(arguments: argparse.Namespace) -> int:
    if arguments.accept_root and not arguments.once:
        raise UsageError("--accept-root goes with --once; for a running daemon: alfwatchd rescan --accept-root")
    if arguments.json and not arguments.once:
        raise UsageError("--json goes with --once; a daemon prints no answer: alfwatchd status --json asks it")
    flags = settings_flags.read_flags(arguments)
    loaded = configuration.load(flags).settings
    if arguments.once:
        return once.run(loaded, accept_root=arguments.accept_root, as_json=arguments.json)
    from alfwatchd.service import daemon

    logs.set_up(loaded.log_level)
    daemon.run(loaded, lambda: configuration.load(flags).settings)
    return 0


COMMAND = Command(
    "",
    summary="keep the tables equal to the disk until stopped",
    description="Keep the ONE cache tables of a folder of ALF datasets equal to what is on disk.\n"
    "Without a command: run as a daemon until stopped.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)
