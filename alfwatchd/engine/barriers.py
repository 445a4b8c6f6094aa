"""Requests that wait: for events to arrive, for scans to end, for a flush. The engine asks after each step."""

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
"""A cookie that did not come back by then is replaced by a scan of everything."""


@dataclass(slots=True)
class Barrier:
    """A request and what it still waits for. Stages follow each other: cookie, looks, flush.

    Parameters
    ----------
    reply : Future
        Gets the answer, or the exception.
    started : float
        On the engine's clock, in seconds.
    answer : callable
        Makes the answer from this barrier and the time.
    cookie : str
        Name of the sync cookie that must come back first; empty once it has, or if none is needed.
    """

    reply: Future[Any]
    started: float
    answer: Callable[[Barrier, float], object]
    cookie: str = ""
    needs_scan: bool = False
    """Whether events were lost before the cookie came back, so that a scan of everything must begin first."""
    ticket: Ticket | None = None
    scans: list[Scan] = field(default_factory=list)
    generation: int | None = None
    """Generation that must be in the tables on disk; None until all looks are done."""
    exactness: Exactness = "exact"
    flushed: bool = True
    """Whether to wait for the flush as well."""
    may_scan: bool = True
    """Whether to wait for scans of everything, where events do not tell enough."""

    @property
    def looks_done(self) -> bool:
        """Whether all that was to be looked at has been."""
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
    """Make the answer to sync."""
    return SyncReply(barrier.generation or 0, barrier.exactness, round(now - barrier.started, 6))


def answer_flush(barrier: Barrier, now: float) -> FlushReply:
    """Make the answer to flush."""
    return FlushReply(barrier.generation or 0, round(now - barrier.started, 6))


def answer_rescan(barrier: Barrier, now: float) -> RescanReply:
    """Make the answer to rescan."""
    changes = barrier.scans[-1].changes
    seconds = round(now - barrier.started, 6)
    return RescanReply(barrier.generation or 0, changes.added, changes.changed, changes.removed, seconds)


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

    @property
    def await_flush(self) -> bool:
        """Whether somebody waits for nothing but a flush."""
        return any(barrier.generation is not None for barrier in self._waiting)

    def add(self, barrier: Barrier) -> None:
        """Let a request wait."""
        self._waiting.append(barrier)

    def begin_sync(self, reply: Future[Any], now: float, *, by_scan: bool, flushed: bool = True) -> None:
        """Let a request wait for all changes made before it.

        Parameters
        ----------
        reply : Future
        now : float
        by_scan : bool
            Whether events cannot tell all changes, so that only a scan of everything can.
        flushed : bool
            Whether to wait for the tables on disk; else those in memory will do.
        """
        barrier = Barrier(reply, now, answer_sync, "" if by_scan else self.try_cookie(), flushed=flushed)
        if not barrier.cookie:
            barrier.exactness = "scanned"
            barrier.scans.append(self._indexer.start_scan("sync", now))
        self.add(barrier)

    def try_cookie(self) -> str:
        """Drop a sync cookie; return its name, or nothing if that failed."""
        try:
            return self._indexer.watch.drop_cookie()
        except WatchError as error:
            _log.warning("no sync cookie error=%s", error)
            return ""

    def cookie_returned(self, name: str, *, events_lost: bool) -> None:
        """All events before this cookie have been taken: whoever dropped it waits for what they marked.

        Parameters
        ----------
        name : str
        events_lost : bool
            Whether a scan of everything is owed, which must begin before anybody can be sure.
        """
        for barrier in self._waiting:
            if barrier.cookie == name:
                barrier.cookie = ""
                barrier.ticket = self._indexer.queue_dirty()
                if barrier.may_scan:
                    barrier.scans += self._indexer.queue.unpaced_scans
                    barrier.needs_scan = events_lost

    def scan_started(self, started: Scan) -> None:
        """A scan of everything began after events were lost, cookies perhaps among them."""
        for barrier in self._waiting:
            if barrier.may_scan and (barrier.cookie or barrier.needs_scan):
                barrier.cookie, barrier.needs_scan = "", False
                barrier.scans.append(started)

    def advance(self, now: float) -> None:
        """Answer the requests whose time has come."""
        waiting = []
        for barrier in self._waiting:
            if barrier.reply.cancelled():  # the client has left
                continue
            if barrier.cookie and now - barrier.started > _COOKIE_SECONDS:
                barrier.cookie, barrier.exactness = "", "scanned"
                if barrier.may_scan:
                    barrier.scans.append(self._indexer.start_scan("a sync cookie did not come back", now))
                else:
                    barrier.ticket = self._indexer.queue_dirty()
            if barrier.generation is None and barrier.looks_done and self._indexer.scans_done:
                if barrier.has_looked and barrier.may_scan and self._indexer.absences.are_undecided:
                    self._wait_for_decision(barrier, now)
                    waiting.append(barrier)
                    continue
                barrier.generation = self._indexer.tables.generation
                if self._indexer.absences.loss is not None:
                    barrier.exactness = "held"
                elif self._indexer.unreadable or self._indexer.guard.missing:
                    barrier.exactness = "partial"
            wanted = barrier.generation
            if wanted is not None and (not barrier.flushed or self._flushes.has_reached(wanted)):
                barrier.finish(now)
            else:
                waiting.append(barrier)
        self._waiting = waiting

    def _wait_for_decision(self, barrier: Barrier, now: float) -> None:
        """Let a request wait until it is known whether the rows of sessions that are gone go, too."""
        if not self._indexer.absences.await_proof:
            running = self._indexer.queue.unpaced_scans[:1]
            barrier.scans += running or [self._indexer.start_scan("sessions are gone that no event told of", now)]

    def fail_flush(self, error: AlfwatchdError) -> None:
        """Answer the requests that wait for nothing but the flush that failed; the others may meet a better one."""
        for barrier in self._waiting:
            if barrier.generation is not None:
                barrier.fail(error)
        self._waiting = [barrier for barrier in self._waiting if barrier.generation is None]

    def fail_all(self, error: AlfwatchdError) -> None:
        """Answer all requests with an error."""
        for barrier in self._waiting:
            barrier.fail(error)
        self._waiting = []
