"""The iterator over the change feed, for programs with asyncio."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType

from alfwatchd.changes import Change, Fresh
from alfwatchd.errors import AlfwatchdError, RequestFailed
from alfwatchd.web.feed_reader import SILENT_SECONDS, FeedReader

_READ_BYTES = 1 << 16


class AsyncChanges(AsyncIterator[Change | Fresh]):
    """As `follow.Changes`, for ``async for``. One task at a time; it can be cancelled, and asked again afterwards.

    Parameters
    ----------
    reader : FeedReader
    connect : callable
        Returns a connection to the daemon. It is called in a thread.
    """

    def __init__(self, reader: FeedReader, connect: Callable[[], socket.socket]) -> None:
        self._reader = reader
        self._connect = connect
        self._connection: socket.socket | None = None
        self._reading: asyncio.Future[bytes] | None = None
        """Goes on if a task is cancelled that waits for it, so that nothing is lost."""

    @property
    def cursor(self) -> str:
        """As `follow.Changes.cursor`."""
        return self._reader.cursor

    async def __anext__(self) -> Change | Fresh:
        while (item := self._reader.take()) is None:
            if self._reader.is_over:
                raise StopAsyncIteration
            await self._go_on()
        return item

    async def aclose(self) -> None:
        """Close the connection. What is asked next opens another one."""
        self._drop()

    async def __aenter__(self) -> AsyncChanges:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        with suppress(RuntimeError):  # the event loop may be closed
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            if self._reading is not None:
                self._reading.cancel()
            self._connection.close()
        self._connection = self._reading = None

    async def _go_on(self) -> None:
        """Connect, or read once."""
        try:
            if self._connection is None:
                await self._begin()
            elif self._reader.receive(await self._read(self._connection)):
                await self.aclose()
        except (OSError, AlfwatchdError) as error:
            await self.aclose()
            await asyncio.sleep(self._reader.fail(error))

    async def _begin(self) -> None:
        connection = await asyncio.to_thread(self._connect)
        try:
            connection.settimeout(0)
            await asyncio.get_running_loop().sock_sendall(connection, self._reader.begin())
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    async def _read(self, connection: socket.socket) -> bytes:
        if self._reading is None:
            self._reading = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(connection, _READ_BYTES))
        done, _ = await asyncio.wait({self._reading}, timeout=SILENT_SECONDS)
        if not done:
            raise RequestFailed("the daemon is silent")
        reading, self._reading = self._reading, None
        return reading.result()
