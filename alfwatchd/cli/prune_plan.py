"""Makes the plan of a prune and, if the user asks for it, applies it: through the daemon, or without one."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from alfwatchd.api import PruneReply
from alfwatchd.cli import output, prune_trash
from alfwatchd.cli.interrupts import put_away
from alfwatchd.errors import UsageError
from alfwatchd.prune.plan import NO_REFERENCE, OWN_TABLES
from alfwatchd.service import configuration
from alfwatchd.service.configuration import Flags
from alfwatchd.web.client import Client

_LEFT = "Files left in a folder that was changed now count as newer than the reference: add --newer to delete them too"


def make_plan(arguments: argparse.Namespace, client: Client | None, flags: Flags) -> PruneReply:
    """Return the plan, or what was done if it was applied.

    Parameters
    ----------
    arguments : Namespace
        Those of the command.
    client : Client or None
        Leads to the daemon of the root; None if no daemon keeps it.
    flags : mapping of str to object
        The settings that the command line sets.

    Raises
    ------
    UsageError
        The plan is to be applied, and there is no reference.
    AlfwatchdError
        As `Client.plan_prune` and `Client.apply_prune`, or as `prune.operations`.
    """
    if client is not None:
        return _ask_daemon(arguments, client, flags)
    return _work_alone(arguments, flags)


def _ask_daemon(arguments: argparse.Namespace, client: Client, flags: Flags) -> PruneReply:
    """Let the daemon plan, and with `--apply` carry the plan out."""
    reference, max_fraction = _read_limits(arguments, flags)
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
        with put_away():
            return client.apply_prune(plan.plan_id)
    except KeyboardInterrupt:
        output.complain(
            f"interrupted: the daemon stops at the next file; its log says what went (plan {plan.plan_id}). {_LEFT}"
        )
        raise


def _read_limits(arguments: argparse.Namespace, flags: Flags) -> tuple[str | None, float | None]:
    """Return reference and largest fraction where the command or its settings set them; None: the daemon's own hold."""
    reference, max_fraction = _reference(arguments), arguments.max_fraction
    if configuration.find_address(flags).root is not None:
        loaded = configuration.load(flags)
        if loaded.sources["prune.reference"] != "default":
            reference = reference or loaded.settings.prune.reference
        if loaded.sources["prune.max_fraction"] != "default" and max_fraction is None:
            max_fraction = loaded.settings.prune.max_fraction
    return str(reference) if reference else None, max_fraction


def _work_alone(arguments: argparse.Namespace, flags: Flags) -> PruneReply:
    """Plan without a daemon, under the lock of the tables, and with `--apply` carry the plan out."""
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
        put_away(),
        refusals_named(str(settings.root), str(source or OWN_TABLES)),
        hold_out_dir(settings.out_dir),
        closing(operations.RootCheck(settings.root)) as guard,
    ):
        view = look_once(settings)  # first: it refuses another disk, and the trash there is not ours
        if not (view.held or view.unsure):
            prune_trash.empty_due(settings)
        plan = operations.plan_prune(view, settings, options)
        if not arguments.apply:
            return operations.preview(settings, plan, guard.check)
        about = name_prune(plan)
        try:
            return operations.apply(settings, plan, guard.check, lambda line: output.note(f"{line} {about}"))
        except KeyboardInterrupt:
            output.complain(f"interrupted: what went is listed above. {_LEFT}")
            raise


def _reference(arguments: argparse.Namespace) -> Path | None:
    return Path(arguments.reference).resolve() if arguments.reference else None
