"""Logs which sessions changed, and how: one line for each, and at most so many a minute."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from alfwatchd.alf.printable import printable
from alfwatchd.tree.rows import Session
from alfwatchd.tree.session_changes import compare_session
from alfwatchd.tree.sessions import Tables

_log = logging.getLogger(__name__)

MOST_LINES = 60
WINDOW_SECONDS = 60.0


@dataclass(slots=True)
class _LeftOut:
    """Sums over the sessions that were not named."""

    n_sessions: int = 0
    n_datasets: int = 0
    n_bytes: int = 0


class ChangesLog:
    """Tells after each flush what changed since the one before. Engine's thread only; times are on its clock.

    Parameters
    ----------
    tables : Tables
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._n_lines = 0
        self._left_out = _LeftOut()
        self._ends = 0.0
        """When as many lines may follow again."""

    def tell(self, now: float) -> None:
        """Log the sessions that changed since the last call. The first call follows the first scan, and logs none.

        The line of that scan says how many rows there are; they are all new to a process that has just started.
        """
        changed = self._tables.take_changed()
        self.tell_rest(now)
        if changed and not self._n_lines:
            self._ends = now + WINDOW_SECONDS
        for path, (before, after) in changed.items():
            if self._n_lines < MOST_LINES:
                self._n_lines += 1
                _tell_session(path, before, after)
            else:
                self._leave_out(before, after)

    def tell_rest(self, now: float, *, is_end: bool = False) -> None:
        """Log how many sessions were left out, once the minute, or the work, is over."""
        if now < self._ends and not is_end:
            return
        left, self._left_out, self._n_lines = self._left_out, _LeftOut(), 0
        if left.n_sessions:
            _log.info(
                "and more sessions changed n=%d datasets=%+d bytes=%s most_lines_a_minute=%d",
                left.n_sessions, left.n_datasets, show_change(left.n_bytes), MOST_LINES,
            )  # fmt: skip

    def _leave_out(self, before: Session | None, after: Session | None) -> None:
        old, new = ((each.n_datasets, each.n_bytes) if each is not None else (0, 0) for each in (before, after))
        self._left_out.n_sessions += 1
        self._left_out.n_datasets += new[0] - old[0]
        self._left_out.n_bytes += new[1] - old[1]


def _tell_session(path: str, before: Session | None, after: Session | None) -> None:
    change = compare_session(before, after)
    _log.info(
        "session changed path=%s added=%d changed=%d removed=%d bytes=%s session=%s",
        printable(path), change.added, change.changed, change.removed, show_change(change.n_bytes),
        "new" if before is None else "gone" if after is None else "kept",
    )  # fmt: skip


def show_change(n_bytes: int) -> str:
    """Return a number of bytes with its sign and a unit, in one word, for example ``+1.2GB``."""
    size, unit = float(abs(n_bytes)), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{'-' if n_bytes < 0 else '+'}{size:.{0 if unit == 'B' else 1}f}{unit}"
