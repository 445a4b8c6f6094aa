"""The iterator over the change feed, for programs without asyncio."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from alfwatchd.changes import Change, Fresh
from alfwatchd.errors import AlfwatchdError, RequestFailed
from alfwatchd.web.feed_reader import SILENT_SECONDS, FeedReader

_READ_BYTES = 1 << 16


class Changes(Iterator[Change | Fresh]):
    """What changed, the oldest first; `client.Client.changes` makes it. One thread at a time.

    It connects at the first `next` or `take`, and again by itself whenever the daemon is restarted or closes the
    connection, as it does if a program does not read for a minute. Nothing is missed.

    Parameters
    ----------
    reader : FeedReader
    connect : callable
        Returns a connection to the daemon.
    """

    def __init__(self, reader: FeedReader, connect: Callable[[], socket.socket]) -> None:
        self._reader = reader
        self._connect = connect
        self._connection: socket.socket | None = None
        self._next_attempt = 0.0
        self._heard = 0.0

    @property
    def cursor(self) -> str:
        """Place behind what was told so far: `since` of a later call. It moves on without a change that is wanted, too.

        It is ``now`` until the daemon has answered.
        """
        return self._reader.cursor

    def __next__(self) -> Change | Fresh:
        item = self.take()
        if item is None:
            raise StopIteration
        return item

    def take(self, timeout: float | None = None) -> Change | Fresh | None:
        """Return what comes next.

        Parameters
        ----------
        timeout : float or None
            Seconds to wait for it. None: without end if the feed is followed.

        Returns
        -------
        Change, Fresh or None
            None if nothing came in time, or if the feed is not followed and all was told.

        Raises
        ------
        AlfwatchdError
            The daemon refuses, or has never answered. Where it has answered once, this waits for its next start.
        """
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        while (item := self._reader.take()) is None and not self._reader.is_over:
            left = deadline - time.monotonic()
            self._go_on(max(0.0, left))
            if left <= 0:
                return self._reader.take()
        return item

    def close(self) -> None:
        """Close the connection. What is asked next opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Changes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _go_on(self, seconds: float) -> None:
        """Connect, or read once; wait for at most this time."""
        try:
            if self._connection is None:
                self._begin(seconds)
            elif self._wait(seconds) and self._reader.receive(self._connection.recv(_READ_BYTES)):
                self.close()
        except (OSError, AlfwatchdError) as error:
            self.close()
            self._next_attempt = time.monotonic() + self._reader.fail(error)

    def _begin(self, seconds: float) -> None:
        pause = self._next_attempt - time.monotonic()
        if pause > 0:
            time.sleep(min(pause, seconds))
        if pause <= seconds:
            self._connection = self._connect()
            self._connection.sendall(self._reader.begin())
            self._heard = time.monotonic()

    def _wait(self, seconds: float) -> bool:
        """Return whether there is something to read, after this time at most."""
        assert self._connection is not None
        silent = self._heard + SILENT_SECONDS - time.monotonic()
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        if poll.poll(max(0.0, min(seconds, silent)) * 1000):
            self._heard = time.monotonic()
            return True
        if silent <= seconds:
            raise RequestFailed("the daemon is silent")
        return False
