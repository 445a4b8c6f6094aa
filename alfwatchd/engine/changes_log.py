"""Logs which sessions changed, and how: one line for each, and at most so many a minute."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from alfwatchd.alf.printable import printable
from alfwatchd.tree.session_changes import MOST_NAMED, ChangedSessions, SessionChange

_log = logging.getLogger(__name__)

WINDOW_SECONDS = 60.0


class ChangesLog:
    """Tells after each flush what changed since the one before. One thread only; times are on the engine's clock."""

    def __init__(self) -> None:
        self._n_lines = 0
        self._n_more = self._n_datasets = self._n_bytes = 0
        """Sums over the sessions that were not named."""
        self._ends = 0.0
        """When as many lines may follow again."""

    def tell(self, changed: ChangedSessions, now: float) -> None:
        """Log the sessions whose rows on disk changed."""
        self._tell(changed.named, now)
        self._n_more += changed.n_more
        self._n_datasets += changed.n_datasets
        self._n_bytes += changed.n_bytes

    def tell_rest(self, now: float, *, is_end: bool = False) -> None:
        """Log how many sessions were left out, once the minute, or the work, is over."""
        if now < self._ends and not is_end:
            return
        if self._n_more:
            _log.info(
                "and more sessions changed n=%d datasets=%+d bytes=%s most_lines_a_minute=%d",
                self._n_more, self._n_datasets, show_change(self._n_bytes), MOST_NAMED,
            )  # fmt: skip
        self._n_lines = self._n_more = self._n_datasets = self._n_bytes = 0

    def _tell(self, changes: Iterable[SessionChange], now: float) -> None:
        self.tell_rest(now)
        for change in changes:
            if not self._n_lines:
                self._ends = now + WINDOW_SECONDS
            if self._n_lines < MOST_NAMED:
                self._n_lines += 1
                _tell_session(change)
            else:
                self._n_more += 1
                self._n_datasets += change.added - change.removed
                self._n_bytes += change.n_bytes


def log_at_once(changed: ChangedSessions) -> None:
    """Log the sessions that one run of the program changed."""
    log = ChangesLog()
    log.tell(changed, 0.0)
    log.tell_rest(0.0, is_end=True)


def _tell_session(change: SessionChange) -> None:
    columns = f" columns={','.join(change.columns)}" if change.columns else ""
    _log.info(
        "session changed path=%s added=%d changed=%d removed=%d bytes=%s kind=%s%s",
        printable(change.path), change.added, change.changed, change.removed, show_change(change.n_bytes),
        change.kind, columns,
    )  # fmt: skip


def show_change(n_bytes: int) -> str:
    """Return a number of bytes with its sign and a unit, in one word, for example ``+1.2GB``."""
    size, unit = float(abs(n_bytes)), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{'-' if n_bytes < 0 else '+'}{size:.{0 if unit == 'B' else 1}f}{unit}"
