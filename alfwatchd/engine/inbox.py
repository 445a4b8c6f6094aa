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

_MAX_WAITING_BYTES = 1 << 25
"""Room for some 700,000 events."""


class Inbox:
    """A queue that never blocks who posts, and whose memory is bounded: too many events become lost events."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Message | EventsRead] = queue.SimpleQueue()  # put() is reentrant: signals post
        self._waiting: list[Message | EventsRead] = []
        self._n_posted = self._n_drained = 0
        """Bytes of events; each number is changed by one thread only."""
        self._lost = False
        self._closed = False

    def post(self, message: Message | EventsRead) -> None:
        """Add a message. Events are posted by one thread only."""
        if isinstance(message, EventsRead):
            if self._n_posted - self._n_drained > _MAX_WAITING_BYTES:
                if not self._lost:
                    self._lost = True
                    self._queue.put(EventsLost("the daemon could not keep up with events"))
                return
            self._n_posted += len(message.buffer)
        self._queue.put(message)
        if self._closed:
            self._refuse()

    def close(self) -> None:
        """Refuse the requests that nobody took, and all that come from now on. Engine's thread only."""
        self._closed = True
        self._refuse()

    @property
    def has_messages(self) -> bool:
        """Whether `drain` would return something."""
        return bool(self._waiting) or not self._queue.empty()

    def wait(self, timeout: float) -> None:
        """Return when there is a message, or after `timeout` seconds. Engine's thread only."""
        if self._waiting or timeout <= 0:
            return
        # After `get_nowait`, the next timed `get` of CPython may take the queue for ready, find it empty and, if its
        # time is over by then, wait for ever. An attempt that fails puts that right.
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
        """Let `drain` return messages once more, before all others. Engine's thread only."""
        self._waiting[:0] = messages

    def _refuse(self) -> None:
        while self.has_messages:
            for message in self.drain():
                if isinstance(message, Request):
                    refuse(message.reply, AlfwatchdError("the daemon is stopping; ask again when it is back"))


def _parse(messages: Iterable[Message | EventsRead]) -> list[Message]:
    """Take events apart, all that were read by one reader without another message in between at once."""
    found: list[Message] = []
    for parse, group in groupby(messages, lambda each: each.parse if isinstance(each, EventsRead) else None):
        if parse is not None:
            found += parse(b"".join(each.buffer for each in group if isinstance(each, EventsRead)))
        else:
            found += (each for each in group if not isinstance(each, EventsRead))
    return found
