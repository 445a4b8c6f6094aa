"""Brings files back from the trash, empties it, and lists plans: through the daemon, or without one."""

from __future__ import annotations

import argparse

from alfwatchd.api import PlansReply, TrashReply
from alfwatchd.cli import output, prune_output
from alfwatchd.cli.interrupts import put_away
from alfwatchd.errors import AlfwatchdError
from alfwatchd.service import configuration
from alfwatchd.service.configuration import Flags
from alfwatchd.settings import Settings
from alfwatchd.web.client import Client

EVERY_PLAN = "every plan"
"""Value of ``--empty-trash`` without a value. An empty value is an error: a script has a variable that is not set."""


def run(arguments: argparse.Namespace, client: Client | None, flags: Flags) -> int:
    """Do what ``--undo``, ``--empty-trash`` or ``--list`` asks for, print the answer, and return the exit code.

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
    AlfwatchdError
        As the requests of `Client`, or as `prune.trash_jobs`.
    """
    reply = _ask_daemon(arguments, client) if client is not None else _work_alone(arguments, flags)
    if isinstance(reply, PlansReply):
        output.show_reply(reply, arguments, "\n".join(prune_output.plan_lines(reply)))
        return 0
    output.show_reply(reply, arguments, "\n".join(prune_output.trash_lines(reply)))
    return 0 if reply.complete else 1


def _ask_daemon(arguments: argparse.Namespace, client: Client) -> TrashReply | PlansReply:
    if arguments.list:
        return client.list_plans()
    if arguments.undo is not None:
        return client.undo_prune(arguments.undo)
    return client.empty_trash(_plan_to_empty(arguments))


def _work_alone(arguments: argparse.Namespace, flags: Flags) -> TrashReply | PlansReply:
    from alfwatchd.prune import trash_jobs
    from alfwatchd.service.locks import hold_out_dir

    settings = configuration.load(flags).settings
    if arguments.list:
        return trash_jobs.list_plans(settings)
    with put_away(), hold_out_dir(settings.out_dir):
        if arguments.undo is not None:
            return trash_jobs.undo(settings, arguments.undo, output.note)[0]
        return trash_jobs.empty(settings, _plan_to_empty(arguments), output.note)


def _plan_to_empty(arguments: argparse.Namespace) -> str | None:
    """Return the id of the plan, or None for every plan."""
    return None if arguments.empty_trash == EVERY_PLAN else arguments.empty_trash


def empty_due(settings: Settings) -> None:
    """Delete what has been in the trash for long enough, in a root that no daemon keeps.

    A failure is told on the standard error and is no error of the command: the next run tries again.
    """
    from alfwatchd.prune import trash_jobs

    try:
        reply = trash_jobs.empty_due(settings, output.note)
    except AlfwatchdError as error:
        output.complain(f"the trash is not emptied: {error}")
        return
    for item in reply.kept:
        output.complain(f"{item.path}: stays in the trash: {item.reason}")
