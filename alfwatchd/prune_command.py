"""The arguments of `alfwatchd prune`; undo, the trash and the list of plans on the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict

from alfwatchd import configuration, logs, text
from alfwatchd.client import Client
from alfwatchd.core.replies import PlansReply, TrashReply
from alfwatchd.errors import AlfwatchdError, UsageError
from alfwatchd.settings import Settings

_OF_A_PLAN = ("reference", "apply", "keep_empty_sessions", "max_fraction")


def add_flags(prune: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    prune.add_argument("--reference", metavar="DIR", help="folder of the tables of what is to stay")
    prune.add_argument("--apply", action="store_true", help="delete; without it nothing is deleted")
    prune.add_argument("--keep-empty-sessions", action="store_true", help="delete files only, no folders")
    prune.add_argument(
        "--max-fraction", type=float, metavar="F", help="refuse if more than this part of the datasets would go, 0 to 1"
    )
    prune.add_argument("--undo", metavar="PLAN", help="bring back what a plan has moved into the trash")
    prune.add_argument(
        "--empty-trash", nargs="?", const="", metavar="PLAN", help="delete what a plan, or each, has moved there"
    )
    prune.add_argument("--list", action="store_true", help="show the latest plans and what became of them")


def is_asked(arguments: argparse.Namespace) -> bool:
    """Tell whether undo, empty or the list is asked for, and not a plan.

    Raises
    ------
    UsageError
        Things are asked for that exclude each other.
    """
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
        raise UsageError(f"{' and '.join([*asked, *others])} exclude each other; run one after the other")
    return bool(asked)


def changes(arguments: argparse.Namespace) -> bool:
    """Tell whether what is asked for moves or deletes any file."""
    return bool(arguments.apply) or arguments.undo is not None or arguments.empty_trash is not None


def run(arguments: argparse.Namespace, client: Client | None, flags: Mapping[str, object]) -> int:
    """Do what is asked, by the daemon or alone, and return the exit code."""
    reply = _do_alone(arguments, configuration.load(flags).settings) if client is None else _ask(arguments, client)
    if arguments.json:
        print(json.dumps(asdict(reply), indent=2))
    elif isinstance(reply, PlansReply):
        print("\n".join(text.plan_lines(reply)))
    else:
        print("\n".join(text.trash_lines(reply)))
    return 0 if isinstance(reply, PlansReply) or reply.complete else 1


def _ask(arguments: argparse.Namespace, client: Client) -> TrashReply | PlansReply:
    if arguments.list:
        return client.list_plans()
    if arguments.undo is not None:
        return client.undo_prune(arguments.undo)
    return client.empty_trash(arguments.empty_trash or None)


def _do_alone(arguments: argparse.Namespace, settings: Settings) -> TrashReply | PlansReply:
    from alfwatchd import trash_jobs
    from alfwatchd.lock import hold_out_dir

    if arguments.list:
        return trash_jobs.list_plans(settings)
    with hold_out_dir(settings.out_dir):
        if arguments.undo is not None:
            return trash_jobs.undo(settings, arguments.undo, _log)[0]
        return trash_jobs.empty(settings, arguments.empty_trash or None, _log)


def empty_due(settings: Settings) -> None:
    """Delete what is due in the trash of a root that no daemon keeps; what hinders that is told, and no more."""
    from alfwatchd import trash_jobs

    try:
        reply = trash_jobs.empty_due(settings, _log)
    except AlfwatchdError as error:
        logs.complain(f"the trash is not emptied: {error}")
        return
    for item in reply.kept:
        logs.complain(f"{item.path}: stays in the trash: {item.reason}")


def _log(line: str) -> None:
    print(line, file=sys.stderr)
