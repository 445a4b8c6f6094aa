"""`alfwatchd status --watch`: the status again and again, with what changed last."""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import NoReturn

from alfwatchd.alf.printable import printable
from alfwatchd.api import Status
from alfwatchd.cli import output
from alfwatchd.cli.output import show_bytes
from alfwatchd.errors import AlfwatchdError

INTERVAL_SECONDS = 1.0
MOST_CHANGES = 10
"""The most changes that a terminal shows."""

CLEAR, HOME, _END_OF_LINE, _BELOW = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known at one moment.

    Parameters
    ----------
    status : Status
        The last one that the daemon told.
    trouble : AlfwatchdError or None
        Why there is no newer one; None if this is the present one.
    changes : sequence of str
        Time and words of the last changes, the latest last.
    has_changed : bool
        Whether the last of them is new.
    """

    status: Status
    trouble: AlfwatchdError | None
    changes: Sequence[str]
    has_changed: bool


def watch(
    ask: Callable[[], Status],
    show: Callable[[Moment], None],
    sleep: Callable[[float], object],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> NoReturn:
    """Ask and show every second, until this is interrupted. A daemon that ends later is waited for.

    Parameters
    ----------
    ask : callable
        Returns the present status, and raises `AlfwatchdError` if there is none.
    show : callable
        Shows a moment.
    sleep : callable
        Waits for so many seconds.
    clock : callable
        Returns the time for people, in UTC.

    Raises
    ------
    AlfwatchdError
        From the first question.
    """
    changes: deque[str] = deque(maxlen=MOST_CHANGES)
    status, trouble, news = ask(), None, ""
    while True:
        if news:
            changes.append(f"{clock().isoformat(timespec='seconds')} {news}")
        show(Moment(status, trouble, tuple(changes), bool(news)))
        sleep(INTERVAL_SECONDS)
        before, was_away = status, trouble is not None
        try:
            status, trouble = ask(), None
            news = "; ".join(
                filter(None, ["the daemon answers again" if was_away else "", what_changed(before, status)])
            )
        except AlfwatchdError as error:
            news, trouble = ("" if was_away else str(error)), error


def what_changed(before: Status, now: Status) -> str:
    """Return what differs between two moments, for people; empty if nothing that they would want to know does."""
    parts = []
    if before.pid != now.pid:
        parts.append("another process keeps the tables")
    if before.state != now.state:
        parts.append(f"{before.state} -> {now.state}: {now.detail}")
    if before.saved != now.saved:
        parts.append("saved again" if now.saved else f"NOT SAVED: {now.last_flush_error}")
    rows = [
        _more(now.n_sessions - before.n_sessions, "session"),
        _more(now.n_datasets - before.n_datasets, "dataset"),
        _more_bytes(now.n_bytes - before.n_bytes),
    ]
    if any(rows):
        parts.append(", ".join(filter(None, rows)))
    if before.generation != now.generation:
        parts.append(f"generation {now.generation} is on disk")
    if before.events_lost != now.events_lost:
        parts.append("events were lost")
    if before.n_problems != now.n_problems:
        parts.append(f"{now.n_problems} problem{'s' * (now.n_problems != 1)} instead of {before.n_problems}")
    return "; ".join(parts)


def _more(number: int, word: str) -> str:
    return f"{number:+d} {word}{'s' * (abs(number) != 1)}" if number else ""


def _more_bytes(number: int) -> str:
    return f"{'-' if number < 0 else '+'}{show_bytes(abs(number))}" if number else ""


def on_terminal(lines_of: Callable[[Status], list[str]]) -> Callable[[Moment], None]:
    """Return a function that shows each moment in the place of the last one.

    Parameters
    ----------
    lines_of : callable
        Returns the status as people read it.
    """
    first = [CLEAR]

    def show(moment: Moment) -> None:
        size = shutil.get_terminal_size()
        lines = frame(moment, lines_of(moment.status), size.columns, size.lines)
        output.show("".join(first) + HOME + "".join(f"{line}{_END_OF_LINE}\n" for line in lines) + _BELOW)
        first.clear()
        sys.stdout.flush()

    return show


def frame(moment: Moment, status: Sequence[str], width: int, height: int) -> list[str]:
    """Return what fits on a terminal: the changes whole, and of the status as many lines as there is room for.

    Parameters
    ----------
    moment : Moment
    status : sequence of str
        Lines of the status; the most important ones first.
    width, height : int
        Size of the terminal, in characters.
    """
    head = [f"NO ANSWER  {moment.trouble}; last known:"] if moment.trouble is not None else []
    changes = ["", "what changed last (Ctrl-C ends this):", *(moment.changes or ["nothing so far"])]
    room = max(1, height - 2 - len(head) - len(changes))  # the cursor stands on a line of its own
    if len(status) > room:
        status = [*status[: room - 1], f"and {len(status) - room + 1} more lines: alfwatchd status"]
    return [printable(line)[: max(1, width - 1)] for line in [*head, *status, *changes]][: max(1, height - 2)]


def as_lines(arguments: Namespace) -> Callable[[Moment], None]:
    """Return a function that prints a line for the first moment and for each change: words, or with ``--json`` JSON."""
    shown = 0

    def show(moment: Moment) -> None:
        nonlocal shown
        if shown and not moment.has_changed:
            return
        shown += 1
        status = moment.status
        rows = f" ({status.n_sessions} sessions, {status.n_datasets} datasets)" if moment.trouble is None else ""
        if not arguments.json:
            last = moment.changes[-1] if moment.changes else f"{status.since} {status.state}: {status.detail}"
            output.show(last + rows)
        elif moment.trouble is not None:
            output.complain(moment.trouble, moment.trouble.exit_code)
        else:
            output.show_json_line(asdict(status))
        sys.stdout.flush()

    return show
