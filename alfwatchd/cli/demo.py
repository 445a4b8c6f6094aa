"""`alfwatchd demo`: writes a small example tree."""

from __future__ import annotations

import argparse
from pathlib import Path

from alfwatchd.cli import output, settings_flags
from alfwatchd.cli.parser import Command, whole_number

_EXAMPLES = """\
example:
  alfwatchd demo ./demo               write the tree
  alfwatchd --root ./demo --once      write its tables

exit codes: 0 done, 1 the folder is not empty or cannot be written
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the tree")
    group.add_argument("folder", metavar="DIR", help="folder to write to: a new one, or an empty one")
    group.add_argument(
        "--sessions", type=whole_number, default=6, metavar="N", help="number of sessions, 1 to 1000 (default 6)"
    )
    settings_flags.add_output(parser)


def _run(arguments: argparse.Namespace) -> int:
    from alfwatchd.cli.demo_tree import write_demo

    summary = write_demo(Path(arguments.folder), arguments.sessions)
    output.show_reply(
        summary,
        arguments,
        f"{summary.n_sessions} sessions, {summary.n_datasets} datasets, {output.show_bytes(summary.n_bytes)} and "
        f"{summary.n_junk} files of junk in {summary.folder}\nnow try: alfwatchd --root {summary.folder} --once",
    )
    return 0


COMMAND = Command(
    "demo",
    operands="DIR",
    summary="write a small example tree to try alfwatchd on",
    description="Write a small example tree: two labs, loadable datasets, revisions, and some\n"
    "files that are not datasets. Existing files are never overwritten.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)
