"""Messages to the engine, from any thread and from signal handlers."""

from __future__ import annotations

import queue
from contextlib import suppress

from alfwatchd.core.messages import EventsLost, Message, PathsChanged, Request, refuse
from alfwatchd.errors import AlfwatchdError

_MAX_WAITING = 20_000


class Inbox:
    """A queue that never blocks who posts, and whose memory is bounded: too many events become lost events."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()  # put() is reentrant, as signals need
        self._waiting: list[Message] = []
        self._lost = False
        self._closed = False

    def post(self, message: Message) -> None:
        """Add a message."""
        if isinstance(message, PathsChanged) and self._queue.qsize() > _MAX_WAITING:
            if not self._lost:
                self._lost = True
                self._queue.put(EventsLost("the daemon could not keep up with events"))
            return
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
        for _ in range(self._queue.qsize()):
            try:
                messages.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return messages

    def _refuse(self) -> None:
        while self.has_messages:
            for message in self.drain():
                if isinstance(message, Request):
                    refuse(message.reply, AlfwatchdError("the daemon is stopping; ask again when it is back"))
