"""`alfwatchd report`: what each lab and subject has, and what is missing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from alfwatchd.alf.patterns import DatasetPattern
from alfwatchd.cli import output, query_flags, settings_flags
from alfwatchd.cli.output import show_bytes
from alfwatchd.cli.parser import Command

if TYPE_CHECKING:
    from alfwatchd.query.report import Report, ReportRow

_MOST_SUBJECTS = 100

_EXAMPLES = """\
examples:
  alfwatchd report                                     all labs and subjects
  alfwatchd report --lab mainlab --date 2021           a lab in a year
  alfwatchd report --require spikes.times --require trials.table
  alfwatchd report --csv > lab.csv                     for a spreadsheet

What each session should have is the setting report.required (a list), or what
--require names instead. `missing` counts the sessions that lack it; to list them:
  alfwatchd ls --lacking spikes.times

The tables on disk are read; no daemon is needed. Datasets that are not here (exists
is false) do not count.

exit codes: 0 done, also if datasets are missing; 1 failed, or a lab, subject or
project has a name that is in no table; 2 wrong usage; 78 which tables?
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report")
    group.add_argument(
        "--require",
        metavar="DATASET",
        type=query_flags.dataset_pattern,
        action="append",
        help="what each session should have, instead of report.required; give the flag once for each dataset",
    )
    group.add_argument(
        "--limit",
        metavar="N",
        type=query_flags.at_least_one,
        help=f"show only the first N subjects (default: {_MOST_SUBJECTS} in the table, all with --json and --csv)",
    )
    kinds = group.add_mutually_exclusive_group()
    kinds.add_argument("--json", action="store_true", help="print the whole answer as JSON")
    kinds.add_argument("--csv", action="store_true", help="comma-separated values, one line for each subject")
    query_flags.add_selection(parser)
    query_flags.add_tables(parser)
    settings_flags.add_help(parser.add_argument_group("help"))


def _run(arguments: argparse.Namespace) -> int:
    conditions = query_flags.read_conditions(arguments)
    place = query_flags.find_place(arguments)
    required = arguments.require or [DatasetPattern.parse(text) for text in place.required]
    required = list(dict.fromkeys(required))
    from alfwatchd.query.report import make_report
    from alfwatchd.query.tables import open_tables

    with open_tables(place.out_dir) as tables:
        report = make_report(tables, conditions, required)
        notes = query_flags.unknown_of_lacking(tables, (*conditions.lacking, *required))
    if arguments.json:
        subjects = report.subjects[: arguments.limit]
        output.show_json({**asdict(report), "subjects": list(map(asdict, subjects))})
    elif arguments.csv:
        _show_csv(report, report.subjects[: arguments.limit])
    elif report.total.n_sessions:
        _show_tables(report, arguments.limit or _MOST_SUBJECTS)
    for line in [*notes, *([] if report.total.n_sessions else ["no session fits"])]:
        output.note(f"alfwatchd: {line}")
    return 0


def _show_csv(report: Report, subjects: Sequence[ReportRow]) -> None:
    lacks = {text: f"lacking {text}" for text in report.required}
    names = ["lab", "subject", "n_sessions", "n_datasets", "n_bytes", "first", "last", "n_incomplete", *lacks.values()]
    rows = [asdict(row) | {lacks[text]: count for text, count in row.missing.items()} for row in subjects]
    output.show_csv(names, [{name: row[name] for name in names} for row in rows])


def _show_tables(report: Report, most: int) -> None:
    head = ["lab", "subject", "sessions", "datasets", "size", "first", "last"]
    if report.required:
        head += ["incomplete", "missing"]
    rows = [_cells(row, row.lab or "-", row.subject or "-", report) for row in report.subjects[:most]]
    if (n_more := len(report.subjects) - most) > 0:
        rows.append(["...", f"{n_more} more: --limit {len(report.subjects)}"])
    if len(report.labs) > 1:
        for row in report.labs:
            n_subjects = sum(each.lab == row.lab for each in report.subjects)
            rows.append(_cells(row, row.lab or "-", f"all {n_subjects}", report))
    rows.append(_cells(report.total, "total", str(len(report.subjects)), report))
    output.show_table(head, rows, numbers=(2, 3, 4, 7))


def _cells(row: ReportRow, lab: str, subject: str, report: Report) -> list[str]:
    cells = [
        lab, subject, str(row.n_sessions), str(row.n_datasets), show_bytes(row.n_bytes), str(row.first), str(row.last),
    ]  # fmt: skip
    if report.required:
        missing = ", ".join(f"{text} {count}" for text, count in row.missing.items() if count)
        cells += [str(row.n_incomplete), missing or "nothing"]
    return cells


COMMAND = Command(
    "report",
    summary="count what each lab and subject has, and what is missing",
    description="Count the sessions, datasets and bytes of each lab and subject, and what is missing.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)
