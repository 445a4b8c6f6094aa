"""`alfwatchd sync`: waits until every change made so far is in the tables on disk."""

from __future__ import annotations

import argparse

from alfwatchd.cli import addressing, held, output, settings_flags
from alfwatchd.cli.parser import Command

_EXAMPLES = """\
example:
  alfwatchd sync && python analysis.py    start when the tables hold every change

The first word of the output says what the tables hold now:
  exact      every change that was made before the command
  scanned    all that a scan found; the scan began after the command
  partial    as exact or scanned, but some folders could not be read: their
             rows are old (`alfwatchd status` names the folders)
  held       many sessions are gone, and the daemon keeps their rows until
             you accept this with `alfwatchd rescan --accept-root`

If this user has no control rights (see control.group), it may sync once in
10 seconds; the command then waits until it may.

exit codes: 0 done, 1 failed or rows are held, 3 no daemon
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    settings_flags.add_address(parser)
    settings_flags.add_output(parser)


def _run(arguments: argparse.Namespace) -> int:
    client = addressing.find_daemon(settings_flags.read_flags(arguments))
    reply = client.sync(on_wait=lambda error: output.note(f"waiting: {error}"))
    output.show_reply(
        reply, arguments, f"{reply.exactness}: generation {reply.generation} is on disk ({reply.seconds:.3f} s)"
    )
    if reply.exactness != "held":
        return 0
    held.tell_if_held(client)
    return 1


COMMAND = Command(
    "sync",
    summary="wait until every change made so far is in the tables on disk",
    description="Wait until every change made before this command is in the tables on disk.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)
