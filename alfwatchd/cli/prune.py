"""`alfwatchd prune`: its flags, and which job they select: plan, apply, undo, empty the trash, or list."""

from __future__ import annotations

import argparse

from alfwatchd.cli import addressing, output, prune_output, prune_plan, prune_trash, settings_flags
from alfwatchd.cli.parser import Command
from alfwatchd.errors import UsageError
from alfwatchd.settings import check_fraction

_OF_A_PLAN = ("reference", "apply", "keep_empty_sessions", "max_fraction", "newer")

_EXAMPLES = """\
examples:
  alfwatchd prune --reference /backup/tables            what would be deleted?
  alfwatchd prune --reference /backup/tables --apply    move it to the trash
  alfwatchd prune --list                                which plans were there?
  alfwatchd prune --undo PLAN                           bring its files back
  alfwatchd prune --empty-trash PLAN                    free the disk space now

Without --apply, no data are touched. --apply moves files to the trash in the root.
They stay there for prune.trash_seconds, 7 days by default; if that is 0, they are
deleted at once. A file that is newer than the reference tables is kept, unless
--newer is given. The output names each file that is kept, and says why.

If a daemon runs for the root, it does the work; it deletes only if its setting
prune.enabled is true. If no daemon runs for the root, the command scans the root
and does the work itself.

exit codes: 0 done, 1 refused or not everything could be deleted, 2 wrong usage,
3 no daemon at --socket or a daemon of another root, 75 another process writes the
tables, 78 bad configuration
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    plan = parser.add_argument_group("plan, and apply the plan")
    plan.add_argument("--reference", metavar="DIR", help="folder of the reference tables: datasets in them are kept")
    plan.add_argument(
        "--apply", action="store_true", help="carry out the plan: move its files to the trash, or delete them"
    )
    plan.add_argument("--newer", action="store_true", help="delete also files that are newer than the reference tables")
    plan.add_argument("--keep-empty-sessions", action="store_true", help="delete files only, no folders")
    plan.add_argument(
        "--max-fraction",
        type=_fraction,
        metavar="F",
        help="refuse to delete more than this part of the datasets, or of their bytes, 0 to 1 (default 0.1)",
    )
    trash = parser.add_argument_group("the trash, and earlier plans")
    trash.add_argument("--list", action="store_true", help="show the latest plans and what was done with them")
    trash.add_argument("--undo", metavar="PLAN", help="bring back the files that this plan has moved to the trash")
    trash.add_argument(
        "--empty-trash",
        nargs="?",
        const=prune_trash.EVERY_PLAN,
        metavar="PLAN",
        help="delete now what this plan has moved to the trash; without PLAN, what every plan has moved",
    )
    settings_flags.add_own_scan(
        parser, "which root", "settings of the scan, if no daemon runs", "lab", "exclude", "scan_workers", "log_level"
    )
    settings_flags.add_output(parser)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write a number from 0 to 1") from error
    try:
        return check_fraction(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _run(arguments: argparse.Namespace) -> int:
    is_about_trash = _is_about_trash(arguments)
    flags = settings_flags.read_flags(arguments)
    client = addressing.find_daemon_if_any(flags)
    if client is not None:
        changes = bool(arguments.apply or arguments.undo is not None or arguments.empty_trash is not None)
        client = addressing.with_root(client, flags, changes=changes)
    if is_about_trash:
        return prune_trash.run(arguments, client, flags)
    reply = prune_plan.make_plan(arguments, client, flags)
    output.show_reply(reply, arguments, "\n".join(prune_output.prune_lines(reply)))
    return 0 if reply.complete else 1


def _is_about_trash(arguments: argparse.Namespace) -> bool:
    """Return whether undo, empty or the list is asked for, instead of a plan."""
    for name in ("reference", "undo", "empty_trash"):
        if getattr(arguments, name) == "":
            raise UsageError(f"--{name.replace('_', '-')}: the value is empty; is a variable not set?")
    asked = [
        flag
        for flag, is_given in (
            ("--undo", arguments.undo is not None),
            ("--empty-trash", arguments.empty_trash is not None),
            ("--list", arguments.list),
        )
        if is_given
    ]
    others = [f"--{name.replace('_', '-')}" for name in _OF_A_PLAN if getattr(arguments, name) not in (None, False)]
    if asked and len(asked) + len(others) > 1:
        raise UsageError(f"{' and '.join([*asked, *others])} cannot be used together; run one after the other")
    return bool(asked)


COMMAND = Command(
    "prune",
    summary="list or delete datasets that the reference tables do not list",
    description="List the dataset files of the root that are not in the reference tables. With\n"
    "--apply, move them to the trash, or delete them.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)
