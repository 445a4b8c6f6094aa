"""`alfwatchd set`: sets qc, projects or task_protocol of a session that no database knows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from alfwatchd.api import SetReply
from alfwatchd.cli import addressing, output, settings_flags
from alfwatchd.cli.parser import Command
from alfwatchd.errors import UsageError
from alfwatchd.service import configuration
from alfwatchd.service.configuration import Flags

_NAMES = ("qc", "projects", "task_protocol")
_OF_SCAN = ("lab", "exclude", "hash_files", "scan_workers", "log_level")

_EXAMPLES = """\
examples:
  alfwatchd set lab/Subjects/SL-017/2021-02-01/001 projects=brainwide,pilot
  alfwatchd set 1581141a-afb7-37de-9c3e-f910179da085 task_protocol=ephysChoiceWorld
  alfwatchd set lab/Subjects/SL-017/2021-02-01/001 qc=PASS           all its datasets
  alfwatchd set lab/Subjects/SL-017/2021-02-01/001/alf/probe00 qc=FAIL   some of them

qc is one of NOT_SET, PASS, WARNING, FAIL, CRITICAL, and belongs to the datasets
that are there now. What you set stays over restarts; qc=NOT_SET, projects= and
task_protocol= remove it. If a database is adopted and knows the session, set the
values there.

If no daemon keeps the root, the command scans the root as `alfwatchd --once`.

exit codes: 0 done, 1 failed, 2 wrong usage or no such session,
75 another process writes the tables
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("set")
    group.add_argument("session", metavar="SESSION", help="path of a session relative to the root, or its eid")
    group.add_argument("values", metavar="NAME=VALUE", nargs="+", help=f"one of {', '.join(_NAMES)}, and its new value")
    settings_flags.add_own_scan(parser, "which tables", "settings of the scan, if no daemon runs", *_OF_SCAN)
    settings_flags.add_output(parser)


def _run(arguments: argparse.Namespace) -> int:
    values = _read_values(arguments.values)
    flags = settings_flags.read_flags(arguments)
    client = addressing.find_daemon_if_any(flags)
    if client is None:
        reply = _set_alone(flags, arguments.session, values)
    else:
        reply = addressing.with_root(client, flags, changes=True).set_columns(arguments.session, **values)
    of_datasets = f" of {reply.n_datasets} datasets" if "qc" in values else ""
    text = f"{reply.path}: {', '.join(values)} set{of_datasets}; generation {reply.generation} is on disk"
    output.show_reply(reply, arguments, text)
    return 0


def _read_values(words: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in _NAMES:
            raise UsageError(f"{word}: is none of {', '.join(f'{each}=VALUE' for each in _NAMES)}")
        if name in values:
            raise UsageError(f"{name} is given twice")
        values[name] = value
    return values


def _set_alone(flags: Flags, session: str, values: dict[str, str]) -> SetReply:
    from alfwatchd.service.locks import hold_out_dir
    from alfwatchd.service.once import set_columns
    from alfwatchd.tables.set_columns import NewColumns

    settings = configuration.load(flags).settings
    new = NewColumns.of(values.get("qc"), values.get("projects"), values.get("task_protocol"))
    with hold_out_dir(settings.out_dir, settings.root):
        return set_columns(settings, session, new)


COMMAND = Command(
    "set",
    operands="SESSION NAME=VALUE...",
    summary="set qc, projects or task_protocol of a session",
    description="Set qc, projects or task_protocol of a session that no database knows.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)
