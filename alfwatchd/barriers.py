"""Requests that wait: for events to arrive, for scans to end, for a flush. The engine asks after each step."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from alfwatchd.core.replies import Exactness, FlushReply, RescanReply, SyncReply
from alfwatchd.indexer import Pass, Ticket


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
    needs_pass: bool = False
    """Whether events were lost before the cookie came back, so that a scan of everything must begin first."""
    ticket: Ticket | None = None
    passes: list[Pass] = field(default_factory=list)
    generation: int | None = None
    """Generation that must be in the tables on disk; None until all looks are done."""
    exactness: Exactness = "exact"

    @property
    def looks_done(self) -> bool:
        """Whether all that was to be looked at has been."""
        waits = self.cookie or self.needs_pass or (self.ticket is not None and not self.ticket.done)
        return not waits and all(each.done for each in self.passes)

    def finish(self, now: float) -> None:
        """Answer the request; a client that went away is no error."""
        if not self.reply.cancelled():
            self.reply.set_result(self.answer(self, now))

    def fail(self, error: Exception) -> None:
        """Answer the request with an error."""
        if not self.reply.cancelled():
            self.reply.set_exception(error)


def answer_sync(barrier: Barrier, now: float) -> SyncReply:
    """Make the answer to sync."""
    return SyncReply(barrier.generation or 0, barrier.exactness, round(now - barrier.started, 6))


def answer_flush(barrier: Barrier, now: float) -> FlushReply:
    """Make the answer to flush."""
    return FlushReply(barrier.generation or 0, round(now - barrier.started, 6))


def answer_rescan(barrier: Barrier, now: float) -> RescanReply:
    """Make the answer to rescan."""
    changes = barrier.passes[-1].changes
    seconds = round(now - barrier.started, 6)
    return RescanReply(barrier.generation or 0, changes.added, changes.changed, changes.removed, seconds)
