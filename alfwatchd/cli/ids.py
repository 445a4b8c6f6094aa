"""`alfwatchd ids`: finds the id that replaced an old one, or makes all ids again."""

from __future__ import annotations

import argparse

from alfwatchd.cli import addressing, output, recompute_ids, settings_flags
from alfwatchd.cli.parser import Command
from alfwatchd.errors import UsageError
from alfwatchd.service import configuration

_OF_RECOMPUTE = ("lab", "exclude", "hash_files", "scan_workers", "log_level")

_EXAMPLES = """\
examples:
  alfwatchd ids 1581141a-afb7-37de-9c3e-f910179da085     which id is it now?
  alfwatchd ids --recompute --root /data/one             make all ids again

`alfwatchd ids OLD` prints each change of the id, and then the id to use now.
It needs no daemon. Neither does --recompute.

exit codes: 0 done, 1 failed or no change of OLD is known, 2 wrong usage,
75 another process writes the tables
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("ids")
    group.add_argument("old", metavar="OLD", nargs="?", help="id of a session or dataset in earlier tables")
    group.add_argument(
        "--recompute",
        action="store_true",
        help="make all ids again, from the paths or from the database that adopt.source names; ids that earlier "
        "tables held are not kept",
    )
    settings_flags.add_own_scan(
        parser, "which tables", "settings of the scan, for --recompute if no daemon runs", *_OF_RECOMPUTE
    )
    settings_flags.add_output(parser)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.recompute == (arguments.old is not None):
        raise UsageError(
            "give either an id, as in `alfwatchd ids OLD`, or --recompute, which makes all ids again; "
            "`alfwatchd ids --help` shows examples"
        )
    if arguments.recompute:
        return recompute_ids.run(arguments)
    if useless := settings_flags.name_given(arguments, *_OF_RECOMPUTE):
        raise UsageError(f"{' and '.join(useless)}: only --recompute uses this; leave it out to look for an id")
    return _find(arguments)


def _find(arguments: argparse.Namespace) -> int:
    flags = settings_flags.read_flags(arguments)
    client = addressing.find_daemon_if_any(flags)
    if client is not None:
        reply = client.ids(arguments.old)
    else:
        from alfwatchd.store.id_history import find_id

        settings = configuration.load(flags).settings
        reply = find_id(settings.state_dir, settings.out_dir, arguments.old)
    lines = [f"{step.when}  {step.old} -> {step.new}  {step.path}  {step.reason}" for step in reply.steps]
    text = "\n".join([*lines, reply.new]) if lines else f"{reply.old}: no change of this id is known"
    output.show_reply(reply, arguments, text)
    return 0 if reply.steps else 1


COMMAND = Command(
    "ids",
    operands="[OLD]",
    summary="show which id replaced an old one, or make all ids again",
    description="Show which id replaced an old one. With --recompute: make all ids again.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)
