"""Runs flushes in their own thread, one at a time, so that a flush never holds up events."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from alfwatchd import threads
from alfwatchd.errors import TablesError
from alfwatchd.store.changed_sessions import changes_between
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.session_changes import ChangedSessions
from alfwatchd.tree.sessions import Snapshot

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Flushed:
    """The tables on disk are at this generation.

    Parameters
    ----------
    generation : int
    seconds : float
        How long the flush took.
    changed : ChangedSessions or None
        How the rows differ from those that were there; None if nothing but the sessions in memory can have changed
        since the last flush.
    """

    generation: int
    seconds: float
    changed: ChangedSessions | None = None


@dataclass(frozen=True, slots=True)
class FlushFailed:
    """The tables on disk are not at the generation that was submitted."""

    error: str


class Flusher:
    """The thread that writes the tables.

    Parameters
    ----------
    writer : TableWriter
        Used by this thread only. Another thread may call `is_untouched` between flushes.
    post : callable
        Gets one `Flushed` or `FlushFailed` per `submit`.
    """

    def __init__(self, writer: TableWriter, post: Callable[[Flushed | FlushFailed], None]) -> None:
        self.writer = writer
        self._post = post
        self._jobs: queue.SimpleQueue[tuple[Snapshot, TableRules, bool] | None] = queue.SimpleQueue()
        self._rules: TableRules | None = None
        """Those that made the tables on disk; None before the first flush."""
        self._thread = threads.start(self._run, "flusher")

    def submit(self, snapshot: Snapshot, rules: TableRules) -> None:
        """Write a snapshot; the caller waits for the answer before it submits the next."""
        self._jobs.put((snapshot, rules, self.compares(rules)))

    def compares(self, rules: TableRules) -> bool:
        """Tell whether a flush with these rules compares the tables with those on disk.

        It does after another process wrote them, and where other rules make other columns of sessions that have not
        changed. Called while no flush is under way.
        """
        return rules is not self._rules

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        self._jobs.put(None)
        self._thread.join()
        self.writer.close()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            snapshot, rules, is_compared = job
            started = time.monotonic()
            try:
                changed = self._write(snapshot, rules, is_compared=is_compared)
            except (TablesError, OSError, pa.ArrowException, MemoryError) as error:
                self._post(FlushFailed(str(error)))
                continue
            self._rules = rules
            seconds = time.monotonic() - started
            _log.info("flush done generation=%d seconds=%.3f", snapshot.generation, seconds)
            self._post(Flushed(snapshot.generation, seconds, changed))
            self.writer.keep()

    def _write(self, snapshot: Snapshot, rules: TableRules, *, is_compared: bool) -> ChangedSessions | None:
        if not is_compared:
            self.writer.write(snapshot, rules)
            return None
        with self.writer.open() as old:
            if not self.writer.write(snapshot, rules):
                return ChangedSessions()
            with self.writer.open() as new:
                return ChangedSessions.of(changes_between(old, new, snapshot))
