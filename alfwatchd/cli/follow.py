"""`alfwatchd follow`: tells which sessions change or are complete, and runs a command for each."""

from __future__ import annotations

import argparse
import json
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alfwatchd.alf.printable import printable
from alfwatchd.cli import addressing, output, query_flags, settings_flags
from alfwatchd.cli.interrupts import INTERRUPTED
from alfwatchd.cli.output import show_bytes
from alfwatchd.cli.parser import Command, whole_number
from alfwatchd.errors import TablesError, UsageError
from alfwatchd.web.client import Client

if TYPE_CHECKING:
    from alfwatchd.follow.completeness import Criteria

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_RETRIES, _GRACE_SECONDS, _ANSWER_SECONDS = 3, 10.0, 60.0
_OF_EXEC = ("shell", "jobs", "retry", "max_runs", "grace")

_EXAMPLES = """\
examples:
  alfwatchd follow                            a line for each session that changes
  alfwatchd follow --json | my_program        a JSON object in each line
  alfwatchd follow --having spikes.times --having trials.table --quiet-for 10m
                                              sessions that are complete
  alfwatchd follow --having ephysData.raw --lacking spikes.times \\
      --quiet-for 10m --cursor ~/sort.cursor --jobs 2 --exec ./sort.sh
                                              sort spikes of each complete session

The command finds in its environment
  ALFWATCHD_PATH         the folder of the session, absolute
  ALFWATCHD_SESSION      the same, relative to the root
  ALFWATCHD_EID          the id of the session
  ALFWATCHD_GENERATION   of the tables that show it
  ALFWATCHD_ROOT         the folder that the daemon indexes
  ALFWATCHD_CHANGE       complete, or added, changed, removed, or fresh
and all that is known as JSON on its standard input. Its output goes to the
standard error.

Each session is told at least once. With --cursor, this holds over restarts of
this command and of the daemon. A complete session is told again only if its
required datasets differ: those that match --having, or all without --having.
So a command may write its results into the session, if --having names what it
needs. `fresh` says that the feed cannot tell what has changed: a command that
runs for each change must then look at all sessions.

exit codes: 0 done, after SIGTERM or --max-runs, 1 failed, or the command failed
for a session, 2 wrong usage, 3 no daemon, 75 another process uses the cursor
file, 130 stopped by Ctrl-C
"""


def parse_duration(text: str) -> float:
    """Return the seconds that a text such as ``10s``, ``10m`` or ``2h`` means.

    Raises
    ------
    ValueError
        It means none.
    """
    if (found := _DURATION.fullmatch(text.strip())) is None:
        raise ValueError(f"{text!r} is no time; write it as 30s, 10m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def _since(text: str) -> str:
    from alfwatchd.journal.entries import Cursor

    return text if text in ("now", "start") else str(Cursor.parse(text))


def _count(text: str) -> int:
    if (number := whole_number(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 0")
    return number


def _add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which sessions")
    pattern, name, duration = query_flags.dataset_pattern, query_flags.name, query_flags.checked(parse_duration)
    for flag, dest, metavar, kind, told in (
        ("--lab", "labs", "NAME", name, "of one of these labs; give it once for each name, or a glob as 'SL-*'"),
        ("--subject", "subjects", "NAME", name, "of one of these subjects, likewise"),
        ("--having", "having", "DATASET", pattern, "complete with each of these datasets: spikes.times, a file name, "
         "or a glob as 'alf/*/spikes.*'"),
        ("--lacking", "lacking", "DATASET", pattern, "complete without any of these datasets"),
    ):  # fmt: skip
        group.add_argument(flag, dest=dest, metavar=metavar, type=kind, action="append", default=[], help=told)
    group.add_argument(
        "--quiet-for",
        metavar="TIME",
        type=duration,
        help="complete if no dataset has changed for this time: 30s, 10m or 2h",
    )
    group = parser.add_argument_group("where to begin")
    group.add_argument(
        "--since",
        metavar="PLACE",
        type=query_flags.checked(_since),
        default="now",
        help="now (the default), start (all that the journal has; with --having, --lacking or --quiet-for all complete "
        "sessions), or the generation after which to begin",
    )
    group.add_argument(
        "--cursor",
        metavar="FILE",
        type=query_flags.name,
        help="file that says where to go on after a restart; if it exists, --since does not count",
    )
    group = parser.add_argument_group("a command for each")
    group.add_argument("--exec", metavar="CMD", help="program to run, with its arguments")
    group.add_argument("--shell", action="store_true", default=None, help="let a shell run CMD")
    group.add_argument("--jobs", metavar="N", type=query_flags.at_least_one, help="how many run at once (default 1)")
    group.add_argument(
        "--retry",
        metavar="N",
        type=_count,
        help=f"how often a command that fails is tried again, after 2 s, 8 s, 32 s ... (default {_RETRIES})",
    )
    group.add_argument("--max-runs", metavar="N", type=query_flags.at_least_one, help="end after N runs")
    group.add_argument(
        "--grace",
        metavar="TIME",
        type=duration,
        help="when stopped, give running commands this time to end by themselves (default 10s)",
    )
    settings_flags.add_address(parser)
    settings_flags.add_settings(parser, "log", "log_level")
    settings_flags.add_output(parser)


def _run(arguments: argparse.Namespace) -> int:
    words = _find_words(arguments)
    flags = settings_flags.read_flags(arguments)
    client = addressing.find_daemon({key: value for key, value in flags.items() if key != "log_level"})
    client = Client(client.socket_path, _ANSWER_SECONDS, client.root or client.find_root())
    assert client.root is not None
    from alfwatchd.follow.cursor_file import CursorFile
    from alfwatchd.follow.follower import Follower
    from alfwatchd.follow.loop import Loop, Options

    _note_unknown(arguments, client)
    root = str(client.root)
    file = CursorFile(Path(arguments.cursor).expanduser(), root) if arguments.cursor else None
    retries = _RETRIES if arguments.retry is None else arguments.retry
    follower = Follower(_read_criteria(arguments, client), retries)
    grace = _GRACE_SECONDS if arguments.grace is None else arguments.grace
    options = Options(arguments.jobs or 1, arguments.max_runs, grace)
    write = json.dumps if arguments.json else show_record
    try:
        loop = Loop(
            follower,
            client,
            arguments.since,
            root,
            lambda record: output.show_at_once(write(record)),
            words,
            options,
            file,
        )
        failed = loop.run()
    finally:
        if file is not None:
            file.close()
    for each in failed:
        tries = f"{each.n_failed} {'try' if each.n_failed == 1 else 'tries'}"
        output.complain(f"{each.path or '.'}: the command failed at its last attempt: {each.error}, {tries}")
    if failed:
        return 1
    return INTERRUPTED if loop.stopped_by is signal.SIGINT else 0


COMMAND = Command(
    "follow",
    summary="tell which sessions change or are complete; run a command for each",
    description="Tell which sessions change, as soon as the tables on disk show it, until stopped. With\n"
    "--having, --lacking or --quiet-for: tell which sessions are complete. With --exec: run\n"
    "a command for each.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)


def _find_words(arguments: argparse.Namespace) -> list[str] | None:
    """Return the words of the command to run; None for none."""
    if arguments.exec is None:
        given = [f"--{name.replace('_', '-')}" for name in _OF_EXEC if getattr(arguments, name) is not None]
        if given:
            raise UsageError(f"{' and '.join(given)}: only --exec uses this; add --exec CMD, or leave it out")
        return None
    from alfwatchd.follow.commands import split

    return split(arguments.exec, is_shell=bool(arguments.shell))


def _note_unknown(arguments: argparse.Namespace, client: Client) -> None:
    """Note which names of datasets fit none that is there: a misspelt name would be waited for without end."""
    if not (arguments.having or arguments.lacking):
        return
    from alfwatchd.query.tables import open_tables

    with suppress(TablesError), open_tables(Path(client.status().out_dir)) as tables:
        for line in query_flags.unknown_of_lacking(tables, (*arguments.having, *arguments.lacking)):
            output.note(f"note: {line}")


def _read_criteria(arguments: argparse.Namespace, client: Client) -> Criteria:
    from alfwatchd.follow.completeness import Criteria

    own_lab = ""
    if arguments.labs:
        from alfwatchd.store.reader import read_generation

        own_lab = str(read_generation(Path(client.status().out_dir))[1].get("lab", ""))
    return Criteria(
        labs=tuple(arguments.labs),
        subjects=tuple(arguments.subjects),
        having=tuple(arguments.having),
        lacking=tuple(arguments.lacking),
        quiet_seconds=arguments.quiet_for or 0.0,
        tells_complete=bool(arguments.having or arguments.lacking or arguments.quiet_for is not None),
        own_lab=own_lab,
    )


def show_record(record: dict[str, Any]) -> str:
    """Return a record of the follower in one line, as people read it.

    Parameters
    ----------
    record : dict
        As `follow.told.make_record` makes it.
    """
    what = f"{record['change']:<8}"
    if record["change"] == "fresh":
        return f"{what}  generation {record['generation']}: what changed before is not known; look at all sessions"
    parts = _complete_parts(record) if record["change"] == "complete" else _changed_parts(record)
    when = record["seen_at"].partition(".")[0]
    return "  ".join(filter(None, [when, what, printable(record["path"]), ", ".join(parts)]))


def _complete_parts(record: dict[str, Any]) -> list[str]:
    datasets = record["datasets"]
    return [f"{len(datasets)} {_datasets(len(datasets))}", show_bytes(sum(each["file_size"] for each in datasets))]


def _changed_parts(record: dict[str, Any]) -> list[str]:
    signs = (("n_added", "+{}"), ("n_changed", "~{}"), ("n_removed", "-{}"))
    counts = " ".join(text.format(record[key]) for key, text in signs if record[key])
    n_bytes = record["bytes_after"] - record["bytes_before"]
    return [
        *([f"{counts} {_datasets(sum(record[key] for key, _ in signs))}"] if counts else []),
        *([f"{'-' if n_bytes < 0 else '+'}{show_bytes(abs(n_bytes))}"] if n_bytes else []),
        *([f"columns {' '.join(record['columns'])}"] if record["columns"] else []),
        *([f"from {printable(record['renamed_from'])}"] if record["renamed_from"] else []),
        *([f"to {printable(record['renamed_to'])}"] if record["renamed_to"] else []),
    ]


def _datasets(number: int) -> str:
    return "dataset" if number == 1 else "datasets"
