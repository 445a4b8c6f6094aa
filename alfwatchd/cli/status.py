"""`alfwatchd status`: shows what the daemon knows."""

from __future__ import annotations

import argparse
import sys
import time
from typing import NoReturn

from alfwatchd.api import AdoptStatus, Status, TargetStatus
from alfwatchd.cli import addressing, output, settings_flags, status_check, status_watch
from alfwatchd.cli.output import show_bytes
from alfwatchd.cli.parser import Command
from alfwatchd.errors import AlfwatchdError, UsageError
from alfwatchd.service.configuration import Flags

_MOST_PROBLEMS = 20
_MOST_SCANS = 3

_EXAMPLES = """\
examples:
  alfwatchd status                      ask the daemon on the usual socket
  alfwatchd status --root /data/one     ask the daemon that keeps /data/one
  alfwatchd status --json               every value, for a program
  alfwatchd status --watch              look on, with what changed last
  alfwatchd status --check              one line and an exit code, for Nagios,
                                        Icinga, Zabbix and the like

The state is one of
  starting       the first scan runs; the tables are those of the last run
  catching up    the daemon knows of changes that are not in the tables yet
  live           the daemon sees every change at once
  polled         some folders are only scanned now and then
  held           many sessions are gone; their rows stay until you decide
  offline        the root is missing or is another disk; all rows stay

exit codes: 0 done, 1 failed, 3 no daemon
with --check: 0 live, or polled in time; 1 warning: starting, catching up, or
polled late; 2 critical: offline, held, not saved, or no daemon answers within
8 seconds; 3 unknown: the daemon cannot be asked
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is shown")
    group.add_argument(
        "--watch",
        dest="looks_on",  # `watch` is a setting
        action="store_true",
        help="show it every second until Ctrl-C, with what changed last; not on a terminal, or with --json: one line "
        "for each change",
    )
    group.add_argument("--check", action="store_true", help="print one line, and end with the code of a plug-in")
    settings_flags.add_address(parser)
    settings_flags.add_output(parser)


def _run(arguments: argparse.Namespace) -> int:
    flags = settings_flags.read_flags(arguments)
    if arguments.check and arguments.looks_on:
        raise UsageError("--check looks once, and --watch until it is interrupted; give one of them")
    if arguments.looks_on:
        _watch(flags, arguments)
    if arguments.check:
        return _check(flags, arguments)
    status = addressing.find_daemon(flags).status()
    output.show_reply(status, arguments, "\n".join(status_lines(status)))
    return 0


def _watch(flags: Flags, arguments: argparse.Namespace) -> NoReturn:
    """Show the status until Ctrl-C ends the process."""
    is_screen = sys.stdout.isatty() and not arguments.json
    show = status_watch.on_terminal(status_lines) if is_screen else status_watch.as_lines(arguments)
    status_watch.watch(lambda: addressing.find_daemon(flags, addressing.MONITOR_SECONDS).status(), show, time.sleep)


def _check(flags: Flags, arguments: argparse.Namespace) -> int:
    """Show the verdict of a check, and return its exit code."""
    try:
        status = addressing.find_daemon(flags, addressing.MONITOR_SECONDS).status()
    except AlfwatchdError as error:
        verdict = status_check.judge_error(error)
        if arguments.json:
            output.complain(error, verdict.code)
        else:
            output.show(verdict.line())
        return verdict.code
    verdict = status_check.judge(status)
    output.show_reply(status, arguments, verdict.line(status_check.figures(status)))
    return verdict.code


COMMAND = Command(
    "status",
    summary="show what the daemon knows: its state, the rows, problems",
    description="Show what the daemon knows: its state, what is in the tables, and problems.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)


def status_lines(status: Status) -> list[str]:
    """Return what the daemon knows as people read it.

    Parameters
    ----------
    status : Status

    Returns
    -------
    list of str
        One line for each subject; each begins with the name of the subject.
    """
    lines = _main_lines(status)
    if status.adopt:
        lines.append(f"adopt      {_adopt_line(status.adopt)}")
    lines += [f"target     {_target_line(each)}" for each in status.targets]
    if status.trash_bytes:
        lines.append(f"trash      {show_bytes(status.trash_bytes)}; alfwatchd prune --list shows of which plans")
    if status.hashes_pending:
        lines.append(f"hashes     {status.hashes_pending} files to go")
    if status.hashes_unconfirmed:
        what = "files may have changed since they were hashed, and are slowly read again"
        lines.append(f"hashes     {status.hashes_unconfirmed} {what}")
    lines += [
        f"scan       {scan.started} {scan.reason}: {_show_seconds(scan.seconds)}"
        for scan in status.rescans[-_MOST_SCANS:]
    ]
    lines += [f"problem    {problem.path or '.'}: {problem.message}" for problem in status.problems[:_MOST_PROBLEMS]]
    if status.n_problems > _MOST_PROBLEMS:
        lines.append(f"           and {status.n_problems - _MOST_PROBLEMS} more: alfwatchd status --json")
    return lines


def _main_lines(status: Status) -> list[str]:
    """Return the lines that are always there."""
    unflushed = status.oldest_unflushed_seconds
    saved = "saved" if status.saved else f"NOT SAVED: {status.last_flush_error}"
    return [
        f"state      {status.state} since {status.since}: {status.detail}",
        f"root       {status.root}",
        f"tables     {status.out_dir}",
        f"rows       {status.n_sessions} sessions, {status.n_datasets} datasets, {show_bytes(status.n_bytes)}; "
        f"{status.n_ignored} other entries",
        f"flush      {saved}; generation {status.generation}, "
        f"last {status.last_flush or 'never'}"
        + (f", oldest change {unflushed:.1f} s ago" if unflushed is not None else ""),
        f"watches    {status.watches}" + (f" of {status.watches_limit}" if status.watches_limit else "")
        + (f", {status.unwatched} folders not watched" if status.unwatched else ""),
        f"events     lost {status.events_lost} times",
    ]  # fmt: skip


def _adopt_line(adopt: AdoptStatus) -> str:
    if adopt.last_error:
        return f"NOT READ: {adopt.last_error}"
    if adopt.n_sessions is None:
        return f"{adopt.source} is being read"
    when = f"read {adopt.read_at}" if adopt.read_at else "not read since the start"
    known = f"{adopt.source}: {adopt.n_sessions} sessions, {adopt.n_datasets} datasets, {when}"
    if adopt.n_matched_datasets is None:
        return known
    return f"{known}; {adopt.n_matched_sessions} and {adopt.n_matched_datasets} of them are here"


def _target_line(target: TargetStatus) -> str:
    name = f"{target.target}, tag {target.tag}" if target.tag else target.target
    holds = (
        f"generation {target.generation}, up to date at {target.published_at}"
        if target.generation
        else "not yet published"
    )
    lag = f", oldest change {target.lag_seconds:.0f} s ago" if target.lag_seconds is not None else ""
    attempt = f", next attempt {target.next_attempt}" if target.next_attempt else ""
    failed = f"FAILED: {target.last_error}; " if target.last_error else ""
    return f"{name}: {failed}{holds}{lag}{attempt}"


def _show_seconds(seconds: float | None) -> str:
    return "running" if seconds is None else f"{seconds:.2f} s"
