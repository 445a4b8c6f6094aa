"""Requests that wait: for events to arrive, for scans to end, for a flush. The engine advances them in each step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from alfwatchd.api import Exactness, FlushReply, RescanReply, SyncReply, answer, refuse
from alfwatchd.engine.schedule import FlushSchedule
from alfwatchd.errors import AlfwatchdError, WatchError
from alfwatchd.index.indexer import Indexer
from alfwatchd.index.look_queue import Scan, Ticket

_log = logging.getLogger(__name__)

_COOKIE_SECONDS = 2.0
"""After this time, a cookie that did not come back is replaced by a scan of everything."""


@dataclass(slots=True)
class Barrier:
    """A request and what it still waits for, in this order: cookie, looks, flush.

    Parameters
    ----------
    reply : Future
        Receives the answer, or the exception.
    started : float
        On the engine's clock, in seconds.
    answer : callable
        Makes the answer from this barrier and the time.
    cookie : str
        Name of the sync cookie that must come back first; empty if it is back, or not needed.
    needs_scan : bool
        Whether events were lost before the cookie came back, so that a scan of everything must begin first.
    ticket : Ticket or None
        Place in the queue of looks behind all that was dirty; None if no look is waited for.
    scans : list of Scan
        Scans that must end first.
    n_changes : int or None
        How many changes of rows the tables on disk must hold; None until all looks are done.
    generation : int
        Of the tables on disk when the request is answered.
    exactness : Exactness
    flushed : bool
        Whether to wait for the flush as well.
    may_scan : bool
        Whether to wait for scans of everything where events do not tell enough.
    """

    reply: Future[Any]
    started: float
    answer: Callable[[Barrier, float], object]
    cookie: str = ""
    needs_scan: bool = False
    ticket: Ticket | None = None
    scans: list[Scan] = field(default_factory=list)
    n_changes: int | None = None
    generation: int = 0
    exactness: Exactness = "exact"
    flushed: bool = True
    may_scan: bool = True

    @property
    def looks_done(self) -> bool:
        """Whether all folders that the request waits for have been looked at."""
        waits = self.cookie or self.needs_scan or (self.ticket is not None and not self.ticket.done)
        return not waits and all(each.done for each in self.scans)

    @property
    def has_looked(self) -> bool:
        """Whether the request is about what is on disk."""
        return self.ticket is not None or bool(self.scans)

    def finish(self, now: float) -> None:
        """Answer the request."""
        answer(self.reply, self.answer(self, now))

    def fail(self, error: Exception) -> None:
        """Answer the request with an error."""
        refuse(self.reply, error)


def answer_sync(barrier: Barrier, now: float) -> SyncReply:
    """Return the answer to sync."""
    return SyncReply(barrier.generation, barrier.exactness, round(now - barrier.started, 6))


def answer_flush(barrier: Barrier, now: float) -> FlushReply:
    """Return the answer to flush."""
    return FlushReply(barrier.generation, round(now - barrier.started, 6))


def answer_rescan(barrier: Barrier, now: float) -> RescanReply:
    """Return the answer to rescan."""
    changes = barrier.scans[-1].changes
    seconds = round(now - barrier.started, 6)
    return RescanReply(barrier.generation, changes.added, changes.changed, changes.removed, seconds)


class Barriers:
    """All requests that wait.

    Parameters
    ----------
    indexer : Indexer
    flushes : FlushSchedule
    """

    def __init__(self, indexer: Indexer, flushes: FlushSchedule) -> None:
        self._indexer = indexer
        self._flushes = flushes
        self._waiting: list[Barrier] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def await_flush(self) -> bool:
        """Whether a request waits for the flush only."""
        return any(barrier.n_changes is not None for barrier in self._waiting)

    def add(self, barrier: Barrier) -> None:
        """Answer a request when all that it waits for is done."""
        self._waiting.append(barrier)

    def begin_sync(self, reply: Future[Any], now: float, *, by_scan: bool, flushed: bool = True) -> None:
        """Answer a request when all changes made before it are in the tables.

        Parameters
        ----------
        reply : Future
        now : float
        by_scan : bool
            Whether events cannot tell all changes, so that only a scan of everything can.
        flushed : bool
            Whether to wait for the tables on disk, not only for those in memory.
        """
        barrier = Barrier(reply, now, answer_sync, "" if by_scan else self._try_cookie(), flushed=flushed)
        if not barrier.cookie:
            barrier.exactness = "scanned"
            barrier.scans.append(self._indexer.start_scan("sync", now))
        self.add(barrier)

    def begin_last_flush(self, barrier: Barrier, *, by_events: bool) -> None:
        """Add the barrier of the flush before the end.

        Parameters
        ----------
        barrier : Barrier
        by_events : bool
            Whether to wait for the events of all changes made so far.
        """
        if by_events:
            barrier.cookie = self._try_cookie()
        self.add(barrier)

    def _try_cookie(self) -> str:
        """Drop a sync cookie; return its name, or an empty string if that failed."""
        try:
            return self._indexer.watch.drop_cookie()
        except WatchError as error:
            _log.warning("no sync cookie error=%s", error)
            return ""

    def cookie_returned(self, name: str, *, events_lost: bool) -> None:
        """Note that all events before this cookie were taken; its requests now wait for the folders that they marked.

        Parameters
        ----------
        name : str
        events_lost : bool
            Whether events were lost, so that the requests wait for a scan of everything, too.
        """
        for barrier in self._waiting:
            if barrier.cookie == name:
                barrier.cookie = ""
                barrier.ticket = self._indexer.queue_dirty()
                if barrier.may_scan:
                    barrier.scans += self._indexer.queue.unpaced_scans
                    barrier.needs_scan = events_lost

    def scan_started(self, started: Scan) -> None:
        """Note that a scan of everything began after events were lost; it also replaces cookies that may be lost."""
        for barrier in self._waiting:
            if barrier.may_scan and (barrier.cookie or barrier.needs_scan):
                barrier.cookie, barrier.needs_scan = "", False
                barrier.scans.append(started)

    def advance(self, now: float) -> None:
        """Answer the requests that wait for nothing more, and drop those whose client has disconnected."""
        waiting = [each for each in self._waiting if not each.reply.cancelled()]
        self._waiting = [each for each in waiting if not self._is_answered(each, now)]

    def _is_answered(self, barrier: Barrier, now: float) -> bool:
        """Take a request as far as it goes now; return whether it was answered."""
        if barrier.cookie and now - barrier.started > _COOKIE_SECONDS:
            self._do_without_cookie(barrier, now)
        if barrier.n_changes is None and barrier.looks_done and self._indexer.scans_done:
            if barrier.has_looked and barrier.may_scan and self._indexer.absences.are_undecided:
                self._wait_for_decision(barrier, now)
                return False
            self._end_looks(barrier)
        wanted = barrier.n_changes
        if wanted is None or (barrier.flushed and not self._flushes.has_reached(wanted)):
            return False
        barrier.generation = self._flushes.generation
        barrier.finish(now)
        return True

    def _do_without_cookie(self, barrier: Barrier, now: float) -> None:
        """Replace a cookie that did not come back: by a scan, or by a look at what is dirty already."""
        barrier.cookie, barrier.exactness = "", "scanned"
        if barrier.may_scan:
            barrier.scans.append(self._indexer.start_scan("a sync cookie did not come back", now))
        else:
            barrier.ticket = self._indexer.queue_dirty()

    def _end_looks(self, barrier: Barrier) -> None:
        """Note which changes must be on disk, and what is known about them."""
        barrier.n_changes = self._indexer.tables.n_changes
        if self._indexer.absences.loss is not None:
            barrier.exactness = "held"
        elif self._indexer.unreadable or self._indexer.guard.missing:
            barrier.exactness = "partial"

    def _wait_for_decision(self, barrier: Barrier, now: float) -> None:
        """Let a request wait until it is decided whether rows of missing sessions are dropped."""
        if not self._indexer.absences.await_proof:
            running = self._indexer.queue.unpaced_scans[:1]
            barrier.scans += running or [self._indexer.start_scan("sessions are gone that no event told of", now)]

    def fail_flush(self, error: AlfwatchdError) -> None:
        """Refuse the requests that wait only for the flush that failed; the others wait for a later one."""
        for barrier in self._waiting:
            if barrier.n_changes is not None:
                barrier.fail(error)
        self._waiting = [barrier for barrier in self._waiting if barrier.n_changes is None]

    def fail_all(self, error: AlfwatchdError) -> None:
        """Refuse all requests."""
        for barrier in self._waiting:
            barrier.fail(error)
        self._waiting = []
