"""`alfwatchd rescan`: lets the daemon read the root, or one folder in it, again."""

from __future__ import annotations

import argparse
from pathlib import Path

from alfwatchd.cli import addressing, held, output, settings_flags
from alfwatchd.cli.parser import Command
from alfwatchd.errors import UsageError
from alfwatchd.web.client import Client

_EXAMPLES = """\
examples:
  alfwatchd rescan                          read everything again
  alfwatchd rescan mylab/Subjects/KS005     read one subject again
  alfwatchd rescan --accept-root            go on with another disk, or without
                                            the sessions that are gone

exit codes: 0 done, 1 failed or rows are held, 2 no such folder, 3 no daemon
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to scan")
    group.add_argument(
        "path", nargs="?", default="", metavar="PATH", help="folder, relative to the root or absolute (default: all)"
    )
    group.add_argument(
        "--accept-root",
        action="store_true",
        help="accept the root and the disks mounted in it as they are now, and drop the rows of all sessions that are "
        "gone",
    )
    settings_flags.add_address(parser)
    settings_flags.add_output(parser)


def _run(arguments: argparse.Namespace) -> int:
    flags = settings_flags.read_flags(arguments)
    client = addressing.find_daemon(flags)
    if arguments.accept_root:
        client = addressing.with_root(client, flags, changes=True)
    path = arguments.path
    if Path(path).is_absolute():
        path = _relative_to_root(client, path)
    reply = client.rescan(path, accept_root=arguments.accept_root)
    text = (
        f"{reply.added} added, {reply.changed} changed, {reply.removed} removed; "
        f"generation {reply.generation} is on disk ({reply.seconds:.2f} s)"
    )
    output.show_reply(reply, arguments, text)
    return int(held.tell_if_held(client))


def _relative_to_root(client: Client, path: str) -> str:
    root, resolved = client.find_root(), Path(path).resolve()
    if not resolved.is_relative_to(root):
        raise UsageError(f"{path} is not in the root {root} of the daemon; give a folder in the root")
    relative = resolved.relative_to(root).as_posix()
    return "" if relative == "." else relative


COMMAND = Command(
    "rescan",
    operands="[PATH]",
    summary="read the root, or one folder in it, again",
    description="Let the daemon read the root, or one folder and all below it, again. The command\n"
    "ends when the result is in the tables on disk. It prints how many datasets were\n"
    "added, changed and removed meanwhile.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)
