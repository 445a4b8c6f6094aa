"""Finds out what is in memory and not on disk yet, while somebody asks.

Engine's thread only; times are on its clock.
"""

from __future__ import annotations

from collections.abc import Callable

from alfwatchd.journal.pending import Pending
from alfwatchd.tree.rows import Session
from alfwatchd.tree.session_changes import SessionChange, compare_session
from alfwatchd.tree.sessions import Tables

SHORTEST_SECONDS = 0.1
"""Least seconds between two comparisons."""
_REST = 20.0
"""So many times as long as a comparison took, none follows: in a burst of files, the engine must read events."""


class PendingChanges:
    """Compares the sessions that change with those on disk. It costs nothing while nobody asks.

    What changed before somebody asked is not told; the next flush tells it.

    Parameters
    ----------
    pending : Pending
        Where to tell it.
    stopwatch : callable
        Seconds, to measure how long a comparison takes.
    """

    def __init__(self, pending: Pending, stopwatch: Callable[[], float] = lambda: 0.0) -> None:
        self._pending = pending
        self._stopwatch = stopwatch
        self._n_seen: int | None = None
        """`Tables.n_changes` at the last look; None while nobody asks."""
        self._shown: dict[str, Session | None] = {}
        """Path of each session that may differ from the tables on disk -> the row that they show."""
        self._flushing: dict[str, Session | None] = {}
        """Path -> the row that the tables will show if the flush succeeds that is under way."""
        self._unequal: set[str] = set()
        """Paths that must be compared."""
        self._told: set[str] = set()
        self._not_before = 0.0

    def due(self, tables: Tables, now: float) -> float | None:
        """Return when to step; None if there is nothing to do."""
        if not self._pending.is_asked(now):
            return now if self._n_seen is not None else None
        is_new = self._n_seen != tables.n_changes or self._unequal
        return max(now, self._not_before) if is_new else None

    def step(self, tables: Tables, now: float, seen_at: Callable[[], str]) -> None:
        """Tell what has changed, if somebody asks, and if the last time was long enough ago."""
        if not self._pending.is_asked(now):
            self._end(tables)
            return
        if now < self._not_before or (self._n_seen == tables.n_changes and not self._unequal):
            return
        began = self._stopwatch()
        self._take(tables)
        found = [self._compare(path, tables.get(path)) for path in sorted(self._unequal)]
        self._unequal = set()
        if changes := [each for each in found if each is not None]:
            self._pending.tell(changes, seen_at())
        self._not_before = now + max(SHORTEST_SECONDS, _REST * (self._stopwatch() - began))

    def begin_flush(self, tables: Tables) -> None:
        """Note what the tables on disk will show."""
        if self._n_seen is not None:
            self._take(tables)
            self._flushing = {path: tables.get(path) for path in self._shown}

    def succeed(self, tables: Tables) -> None:
        """Note that the tables on disk show what they should."""
        if self._n_seen is not None:
            self._take(tables)
        equal = [path for path, row in self._flushing.items() if tables.get(path) == row]
        self._shown.update(self._flushing)
        self._unequal |= self._flushing.keys() - {*equal}
        for path in equal:
            self._shown.pop(path, None)
            self._unequal.discard(path)
        self._told -= {*equal}
        self._flushing = {}
        self._pending.forget(equal)

    def fail(self) -> None:
        """Note that the tables on disk stay as they are."""
        self._flushing = {}

    def _take(self, tables: Tables) -> None:
        """Note which sessions have changed since the last time, and what they were."""
        changed = tables.take_changed()
        for path, (before, _) in changed.items():
            self._shown.setdefault(path, before)
        self._unequal |= changed.keys()
        self._n_seen = tables.n_changes

    def _compare(self, path: str, row: Session | None) -> SessionChange | None:
        """Return how a session differs from the tables on disk; None if it does not, and was not told to."""
        shown = self._shown.get(path)
        change = compare_session(path, shown, row) if shown is not row else SessionChange(path)
        if shown is None and row is None:  # it came and went
            change = SessionChange(path, "removed")
        if path not in self._told and (not change or (shown is None and row is None)):
            return None
        self._told.add(path)
        return change

    def _end(self, tables: Tables) -> None:
        if self._n_seen is not None:
            tables.stop_noting()
            self._pending.clear()
            self._n_seen = None
            self._shown, self._flushing, self._unequal, self._told = {}, {}, set(), set()
