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
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.session_changes import ChangedSessions, all_new
from alfwatchd.tree.sessions import Snapshot

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Flushed:
    """The tables that were submitted are on disk.

    Parameters
    ----------
    generation : int
    seconds : float
        How long the flush took.
    changed : ChangedSessions
        How the rows differ from those that were there.
    """

    generation: int
    seconds: float
    changed: ChangedSessions


@dataclass(frozen=True, slots=True)
class FlushFailed:
    """The tables that were submitted are not on disk."""

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
        self._jobs: queue.SimpleQueue[tuple[Snapshot, TableRules] | None] = queue.SimpleQueue()
        self._thread = threads.start(self._run, "flusher")

    def submit(self, snapshot: Snapshot, rules: TableRules) -> None:
        """Write a snapshot; the caller waits for the answer before it submits the next."""
        self._jobs.put((snapshot, rules))

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
            snapshot, rules = job
            started = time.monotonic()
            try:
                written = self.writer.write(snapshot, rules)
            except (TablesError, OSError, pa.ArrowException, MemoryError) as error:
                self._post(FlushFailed(str(error)))
                continue
            changes = written.changes if written.changes is not None else all_new(snapshot.sessions.values())
            seconds = time.monotonic() - started
            _log.info("flush done generation=%d seconds=%.3f", written.generation, seconds)
            self._post(Flushed(written.generation, seconds, ChangedSessions.of(changes)))
            self.writer.keep()
