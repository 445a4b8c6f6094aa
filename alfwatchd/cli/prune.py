"""`alfwatchd prune`: its arguments; plan, apply, undo, the trash and the list of plans, by a daemon or alone."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from alfwatchd.api import PlansReply, PruneReply, TrashReply
from alfwatchd.cli import addressing, output
from alfwatchd.errors import AlfwatchdError, UsageError
from alfwatchd.prune.plan import NO_REFERENCE, OWN_TABLES
from alfwatchd.service import configuration, logs
from alfwatchd.service.configuration import Flags
from alfwatchd.settings import Settings, check_fraction
from alfwatchd.web.client import Client

_EVERY = "every plan"
"""Stands for a flag without its value: an empty one is a variable of a script that is not set, and means nothing."""
_OF_A_PLAN = ("reference", "apply", "keep_empty_sessions", "max_fraction", "newer")


def add_flags(prune: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    prune.add_argument("--reference", metavar="DIR", help="folder of the tables of what is to stay")
    prune.add_argument(
        "--apply", action="store_true", help="move to the trash what goes; without it nothing is touched"
    )
    prune.add_argument("--keep-empty-sessions", action="store_true", help="take files only, no folders")
    prune.add_argument(
        "--max-fraction",
        type=_fraction,
        metavar="F",
        help="refuse if more than this part of the datasets, or of their bytes, would go, 0 to 1",
    )
    prune.add_argument("--newer", action="store_true", help="take also what is newer than the reference")
    prune.add_argument("--undo", metavar="PLAN", help="bring back what a plan has moved into the trash")
    prune.add_argument(
        "--empty-trash",
        nargs="?",
        const=_EVERY,
        metavar="PLAN",
        help="delete now what PLAN moved to the trash; without PLAN: what every plan moved",
    )
    prune.add_argument("--list", action="store_true", help="show the latest plans and what became of them")


def _fraction(value: str) -> float:
    try:
        return check_fraction(float(value))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run(arguments: argparse.Namespace, flags: Flags) -> int:
    """Do what is asked, by the daemon of the root or alone, print the reply and return the exit code.

    Raises
    ------
    UsageError
        Things are asked for that exclude each other, or without a reference.
    AlfwatchdError
        As the requests, or as `pruning` and `trash_jobs`.
    """
    is_about_trash = _is_about_trash(arguments)
    client = addressing.find_daemon_if_any(flags)
    if client is not None:
        changes = bool(arguments.apply or arguments.undo is not None or arguments.empty_trash is not None)
        client = addressing.with_root(client, flags, changes=changes)
    if is_about_trash:
        settled = _ask(arguments, client) if client is not None else _do_alone(arguments, flags)
        lines = output.plan_lines(settled) if isinstance(settled, PlansReply) else output.trash_lines(settled)
        _print(settled, lines, arguments)
        return 0 if isinstance(settled, PlansReply) or settled.complete else 1
    reply = _prune(arguments, client, flags) if client is not None else _prune_alone(arguments, flags)
    _print(reply, output.prune_lines(reply), arguments)
    return 0 if reply.complete else 1


def _print(reply: PruneReply | TrashReply | PlansReply, lines: list[str], arguments: argparse.Namespace) -> None:
    print(json.dumps(asdict(reply), indent=2) if arguments.json else "\n".join(lines))


def _is_about_trash(arguments: argparse.Namespace) -> bool:
    """Tell whether undo, empty or the list is asked for, and not a plan."""
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
        raise UsageError(f"{' and '.join([*asked, *others])} exclude each other; run one after the other")
    return bool(asked)


# Plan and apply.


def _prune(arguments: argparse.Namespace, client: Client, flags: Flags) -> PruneReply:
    reference, max_fraction = _wishes(arguments, flags)
    plan = client.plan_prune(
        reference,
        keep_empty_sessions=arguments.keep_empty_sessions,
        max_fraction=max_fraction,
        newer=arguments.newer,
    )
    if not arguments.apply:
        return plan
    if plan.reference == OWN_TABLES:
        raise UsageError(NO_REFERENCE)
    try:
        return client.apply_prune(plan.plan_id)
    except KeyboardInterrupt:
        logs.complain(
            f"interrupted: the daemon stops at the next file; its log says what went (plan {plan.plan_id}). What is "
            "left in a folder that was changed counts as newer than the reference: take it with --newer"
        )
        raise


def _reference(arguments: argparse.Namespace) -> Path | None:
    return Path(arguments.reference).resolve() if arguments.reference else None


def _wishes(arguments: argparse.Namespace, flags: Flags) -> tuple[str | None, float | None]:
    """Return reference and limit from whichever source they are set by; None leaves them to the daemon's settings."""
    reference, max_fraction = _reference(arguments), arguments.max_fraction
    if configuration.find_address(flags).root is not None:
        loaded = configuration.load(flags)
        if loaded.sources["prune.reference"] != "default":
            reference = reference or loaded.settings.prune.reference
        if loaded.sources["prune.max_fraction"] != "default" and max_fraction is None:
            max_fraction = loaded.settings.prune.max_fraction
    return str(reference) if reference else None, max_fraction


def _prune_alone(arguments: argparse.Namespace, flags: Flags) -> PruneReply:
    from alfwatchd.prune import operations
    from alfwatchd.prune.wording import name_prune, refusals_named
    from alfwatchd.service.locks import hold_out_dir
    from alfwatchd.service.once import look_once

    settings = configuration.load(flags).settings
    options = operations.PruneOptions(
        _reference(arguments), arguments.keep_empty_sessions, arguments.max_fraction, arguments.newer
    )
    source = options.reference or settings.prune.reference
    if arguments.apply and source is None:
        raise UsageError(NO_REFERENCE)
    with (
        refusals_named(str(settings.root), str(source or OWN_TABLES)),
        hold_out_dir(settings.out_dir),
        closing(operations.RootCheck(settings.root)) as guard,
    ):
        view = look_once(settings)  # first: it refuses another disk, whose trash is not ours
        if not (view.held or view.unsure):
            empty_due(settings)
        plan = operations.plan_prune(view, settings, options)
        if not arguments.apply:
            return operations.preview(settings, plan, guard.check)
        about = name_prune(plan)
        try:
            return operations.apply(settings, plan, guard.check, lambda line: print(line, about, file=sys.stderr))
        except KeyboardInterrupt:
            logs.complain(
                "interrupted: what went is listed above. What is left in a folder that was changed counts as newer "
                "than the reference: take it with --newer"
            )
            raise


# Undo and the trash.


def _ask(arguments: argparse.Namespace, client: Client) -> TrashReply | PlansReply:
    if arguments.list:
        return client.list_plans()
    if arguments.undo is not None:
        return client.undo_prune(arguments.undo)
    return client.empty_trash(None if arguments.empty_trash == _EVERY else arguments.empty_trash)


def _do_alone(arguments: argparse.Namespace, flags: Flags) -> TrashReply | PlansReply:
    from alfwatchd.prune import trash_jobs
    from alfwatchd.service.locks import hold_out_dir

    settings = configuration.load(flags).settings
    if arguments.list:
        return trash_jobs.list_plans(settings)
    with hold_out_dir(settings.out_dir):
        if arguments.undo is not None:
            return trash_jobs.undo(settings, arguments.undo, _log)[0]
        return trash_jobs.empty(settings, None if arguments.empty_trash == _EVERY else arguments.empty_trash, _log)


def empty_due(settings: Settings) -> None:
    """Delete what is due in the trash of a root that no daemon keeps; what hinders that is told, and no more."""
    from alfwatchd.prune import trash_jobs

    try:
        reply = trash_jobs.empty_due(settings, _log)
    except AlfwatchdError as error:
        logs.complain(f"the trash is not emptied: {error}")
        return
    for item in reply.kept:
        logs.complain(f"{item.path}: stays in the trash: {item.reason}")


def _log(line: str) -> None:
    print(line, file=sys.stderr)
