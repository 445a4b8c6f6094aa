"""`alfwatchd flush`: writes the tables to disk without waiting for the next interval."""

from __future__ import annotations

import argparse

from alfwatchd.cli import addressing, output, settings_flags
from alfwatchd.cli.parser import Command

_EXAMPLES = """\
examples:
  alfwatchd flush                      ask the daemon on the usual socket
  alfwatchd flush --root /data/one     ask the daemon that keeps /data/one

Changes that the daemon does not know yet are not written. To wait for every
change made so far, use `alfwatchd sync`.

exit codes: 0 done, 1 failed, 3 no daemon
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    settings_flags.add_address(parser)
    settings_flags.add_output(parser)


def _run(arguments: argparse.Namespace) -> int:
    reply = addressing.find_daemon(settings_flags.read_flags(arguments)).flush()
    output.show_reply(reply, arguments, f"generation {reply.generation} is on disk ({reply.seconds:.3f} s)")
    return 0


COMMAND = Command(
    "flush",
    summary="write the tables to disk now",
    description="Write all changes that the daemon knows to the tables on disk now, and wait until\n"
    "they are written. By itself, the daemon writes them every flush_interval_seconds.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)
