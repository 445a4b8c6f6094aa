"""Reads the change feed in a thread of its own, and posts what it tells."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple

from alfwatchd.changes import Change, Fresh
from alfwatchd.errors import AlfwatchdError
from alfwatchd.web.follow import Changes

_MOST_AHEAD = 1000
_MOVED_SECONDS = 0.25
"""How late it may be noticed that the feed went on without a change, or that the thread is to end."""


class Heard(NamedTuple):
    """What the feed has told: an item, or only that it went on.

    Parameters
    ----------
    item : Change, Fresh or None
    cursor : str
        Place in the feed behind it.
    not_before : float
        At this moment it was not in the feed yet.
    """

    item: Change | Fresh | None
    cursor: str
    not_before: float = 0.0


class Ended(NamedTuple):
    """The command for a path has ended, with this exit code, after these seconds."""

    path: str
    code: int
    seconds: float


Message = Heard | Ended | signal.Signals | AlfwatchdError
Inbox = SimpleQueue[Message]
"""What the main thread waits for. A signal handler may put into it: `SimpleQueue` takes no lock in Python."""


class FeedReader:
    """Posts what the feed tells, and at last the error that ends it.

    Parameters
    ----------
    changes : Changes
    inbox : Inbox
    clock : callable
        Seconds since 1970.
    is_known : bool
        Whether the place where it begins is one that the daemon has told. A place that a person has given counts only
        when the daemon has answered.
    """

    def __init__(self, changes: Changes, inbox: Inbox, clock: Callable[[], float], *, is_known: bool) -> None:
        self._changes, self._inbox, self._clock = changes, inbox, clock
        self._told = "" if is_known else changes.cursor
        self._gate = threading.BoundedSemaphore(_MOST_AHEAD)
        self._is_over = threading.Event()

    def allow_one_more(self) -> None:
        """Note that an item was taken in: the thread is at most a thousand ahead. Any thread."""
        self._gate.release()

    def stop(self) -> None:
        """Let the thread end soon. Any thread."""
        self._is_over.set()

    def run(self) -> None:
        """Read until the daemon refuses, or `stop` is called."""
        not_before = 0.0
        try:
            while not self._is_over.is_set():
                item = self._changes.take(0.0)
                if item is None:
                    if (cursor := self._changes.cursor) != self._told:
                        self._told = cursor
                        self._inbox.put(Heard(None, cursor))
                    not_before = self._clock()
                    item = self._changes.take(_MOVED_SECONDS)
                if item is not None:
                    while not self._gate.acquire(timeout=_MOVED_SECONDS) and not self._is_over.is_set():
                        pass
                    self._inbox.put(Heard(item, self._changes.cursor, not_before))
        except AlfwatchdError as error:
            self._inbox.put(error)
        finally:
            self._changes.close()
