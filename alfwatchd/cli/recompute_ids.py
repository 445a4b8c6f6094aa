"""`alfwatchd ids --recompute`: makes all ids again, through the daemon or without one."""

from __future__ import annotations

import argparse

from alfwatchd.api import RecomputeReply
from alfwatchd.cli import addressing, output, settings_flags
from alfwatchd.cli.interrupts import put_away
from alfwatchd.service import configuration
from alfwatchd.service.configuration import Flags


def run(arguments: argparse.Namespace) -> int:
    """Make all ids again, print how many changed, and return the exit code.

    Raises
    ------
    AlfwatchdError
        As `Client.recompute_ids`, or as `once.recompute_ids` where no daemon keeps the root.
    """
    flags = settings_flags.read_flags(arguments)
    client = addressing.find_daemon_if_any(flags)
    if client is None:
        reply = _recompute_alone(flags)
    else:
        reply = addressing.with_root(client, flags, changes=True).recompute_ids()
    text = f"{reply.n_changes} ids changed; alfwatchd ids OLD finds new ones ({reply.seconds:.2f} s)"
    output.show_reply(reply, arguments, text)
    return 0


def _recompute_alone(flags: Flags) -> RecomputeReply:
    from alfwatchd.service.locks import hold_out_dir
    from alfwatchd.service.once import recompute_ids

    settings = configuration.load(flags).settings
    with put_away(), hold_out_dir(settings.out_dir, settings.root):
        return recompute_ids(settings)
