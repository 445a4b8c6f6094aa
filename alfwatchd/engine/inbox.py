"""Messages to the engine, from any thread and from signal handlers."""

from __future__ import annotations

import queue
from collections.abc import Iterable
from contextlib import suppress
from itertools import groupby

from alfwatchd.api import Request, refuse
from alfwatchd.engine.messages import Message
from alfwatchd.errors import AlfwatchdError
from alfwatchd.watch.events import EventsLost, EventsRead

MAX_WAITING_BYTES = 1 << 25
"""The most bytes of events that wait in an inbox: some 700,000 events."""


class Inbox:
    """A queue whose memory is limited: where too many events wait, further ones are dropped and `EventsLost` is posted.

    Posting never blocks.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Message | EventsRead] = queue.SimpleQueue()  # put() is reentrant: signals post
        self._waiting: list[Message | EventsRead] = []
        # Bytes of events. The first is changed by the thread that posts events, the second by the engine's.
        self._n_posted = self._n_drained = 0
        self._lost = False
        self._closed = False

    def post(self, message: Message | EventsRead) -> None:
        """Add a message. Any thread, and signal handlers; events from one thread only."""
        if isinstance(message, EventsRead):
            if self.n_waiting_bytes > MAX_WAITING_BYTES:
                if not self._lost:
                    self._lost = True
                    self._queue.put(EventsLost("the daemon could not keep up with events"))
                return
            self._n_posted += len(message.buffer)
        self._queue.put(message)
        if self._closed:
            self._refuse()

    def close(self) -> None:
        """Refuse the requests that still wait, and all later ones. Engine's thread only."""
        self._closed = True
        self._refuse()

    @property
    def has_messages(self) -> bool:
        """Whether `drain` would return something."""
        return bool(self._waiting) or not self._queue.empty()

    @property
    def n_waiting_bytes(self) -> int:
        """Number of bytes of events that wait."""
        return self._n_posted - self._n_drained

    def wait(self, timeout: float) -> None:
        """Return when there is a message, or after `timeout` seconds. Engine's thread only."""
        if self._waiting or timeout <= 0:
            return
        # After `get_nowait`, the next `get` of CPython with a timeout may find the queue empty although it was marked
        # as ready, and wait for ever if its time is over by then. An attempt that fails resets the mark.
        with suppress(queue.Empty):
            self._waiting.append(self._queue.get_nowait())
            return
        with suppress(queue.Empty):
            self._waiting.append(self._queue.get(timeout=timeout))

    def drain(self) -> list[Message]:
        """Return all messages, oldest first. Engine's thread only."""
        messages, self._waiting = self._waiting, []
        self._lost = False
        self._n_drained = self._n_posted
        for _ in range(self._queue.qsize()):
            try:
                messages.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return _parse(messages)

    def put_back(self, messages: Iterable[Message]) -> None:
        """Have `drain` return these messages again, before all others. Engine's thread only."""
        self._waiting[:0] = messages

    def _refuse(self) -> None:
        while self.has_messages:
            for message in self.drain():
                if isinstance(message, Request):
                    refuse(message.reply, AlfwatchdError("the daemon is stopping; ask again when it is back"))


def _parse(messages: Iterable[Message | EventsRead]) -> list[Message]:
    """Parse events; those that one reader read with no other message in between are parsed together."""
    found: list[Message] = []
    for parse, group in groupby(messages, lambda each: each.parse if isinstance(each, EventsRead) else None):
        if parse is not None:
            found += parse(b"".join(each.buffer for each in group if isinstance(each, EventsRead)))
        else:
            found += (each for each in group if not isinstance(each, EventsRead))
    return found
