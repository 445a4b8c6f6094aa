"""Changes in memory that the tables on disk do not show yet, for readers that cannot wait for the next flush."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from threading import Lock

from alfwatchd.tree.session_changes import SessionChange

MOST_CHANGES = 10_000
"""If more sessions differ from the tables on disk, none is told before the next flush."""

Matches = Callable[[SessionChange], bool]


@dataclass(frozen=True, slots=True)
class PendingChange:
    """How a session in memory differs from the tables on disk.

    Parameters
    ----------
    number : int
        Higher for later ones. A session that changes again gets another number.
    seen_at : str
        UTC, ISO 8601.
    change : SessionChange
        Without an eid. If nothing is left of a change that was told, it counts no dataset.
    """

    number: int
    seen_at: str
    change: SessionChange


class Pending:
    """The changes that wait for a flush. Any thread may call these methods. It is empty while nobody asks.

    Parameters
    ----------
    wall_clock : callable
        Seconds since 1970. Numbers begin there, so that they go on over restarts.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._lock = Lock()
        self._number = int(wall_clock() * 1000)
        self._changes: dict[str, PendingChange] = {}
        self._is_too_much = False
        self._asked_until = float("-inf")
        self._listeners: list[Callable[[], None]] = []

    @property
    def number(self) -> int:
        """The latest number."""
        return self._number

    def ask(self, until: float) -> None:
        """Have changes told until some time on the clock of the engine, `time.monotonic`."""
        with self._lock:
            self._asked_until = max(self._asked_until, until)

    def is_asked(self, now: float) -> bool:
        """Tell whether somebody asks."""
        return now < self._asked_until

    def listen(self, listener: Callable[[], None]) -> None:
        """Have a function called after each change, by the thread that tells it; it must not block."""
        self._listeners.append(listener)

    def tell(self, changes: Iterable[SessionChange], seen_at: str) -> None:
        """Tell how sessions differ now from the tables on disk."""
        with self._lock:
            for change in changes:
                self._changes.pop(change.path, None)  # what changed last stands last
                self._number += 1
                self._changes[change.path] = PendingChange(self._number, seen_at, change)
            if len(self._changes) > MOST_CHANGES:
                self._changes, self._is_too_much = {}, True
            elif self._is_too_much:
                self._changes = {}
        for listener in self._listeners:
            listener()

    def forget(self, paths: Iterable[str]) -> None:
        """Note that the tables on disk show these sessions as they are."""
        with self._lock:
            for path in paths:
                self._changes.pop(path, None)
            self._is_too_much = False

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._changes, self._is_too_much = {}, False

    def newer(self, number: int, limit: int, matches: Matches = lambda _: True) -> list[PendingChange]:
        """Return the changes with higher numbers, the oldest first, and not more of them than this."""
        with self._lock:
            found = list(takewhile(lambda each: each.number > number, reversed(self._changes.values())))
        return [each for each in reversed(found) if matches(each.change)][:limit]
