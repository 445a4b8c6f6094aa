"""An HTTP server on a listening socket, in its own thread; it sleeps while no client asks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from alfwatchd import threads
from alfwatchd.web import connections
from alfwatchd.web.connections import Protocol
from alfwatchd.web.control_socket import BACKLOG

_log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 1 << 14
"""The longest head of a request."""
GRACE_SECONDS = 5
"""How long the server waits at its end for answers that are under way."""
_MEETING_SECONDS = 0.05
"""How often a server that ends looks for connections that it accepted just before."""
_END_SECONDS = 20.0
"""How long `close` waits for the thread. After that the daemon ends without it."""
_TAKEN_AT_ONCE = 32
"""asyncio accepts as many connections in one go, and only then looks at each of them."""
_TROUBLE_SECONDS = 30.0


class Server:
    """Serves an app on a listening socket, in its own thread.

    Parameters
    ----------
    app : ASGI application
    listening : socket.socket
        The server closes it at its end.
    protocol : type of Protocol
        Class of the connections.
    room : int or None
        The most connections at a time; None: `connections.room`.
    """

    def __init__(
        self, app: ASGIApp, listening: socket.socket, protocol: type[Protocol] = Protocol, room: int | None = None
    ) -> None:
        config = uvicorn.Config(
            app,
            http=protocol,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # clients are told about their mistakes; a flood of mistakes would fill the log
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,  # it would be the time of the start, because no timer runs
            headers=[("connection", "close")],
            timeout_graceful_shutdown=GRACE_SECONDS,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            limit_concurrency=room or connections.room(),
            backlog=_TAKEN_AT_ONCE,
        )
        self._server = _QuietServer(config)
        self._thread = threads.start(partial(self._server.run, sockets=[listening]), "server")

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_listening(self) -> bool:
        """Whether the server accepts connections. Only then `replace` and `call_soon` may be called."""
        return self._server.started

    @property
    def is_ending(self) -> bool:
        """Whether the server was told to end."""
        return self._server.should_exit

    @property
    def connections(self) -> frozenset[Protocol]:
        """The connections that are open."""
        return frozenset(self._server.server_state.connections)  # type: ignore[arg-type]

    def replace(self, listening: socket.socket) -> None:
        """Accept connections from another socket instead, which the server closes at its end."""
        self._server.replace_soon(listening)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function in the server's event loop. Any thread; nothing happens after the end of the server."""
        self._server.call_soon(function)

    def end(self) -> None:
        """Tell the server to answer the requests that it has, for a few seconds at most, and to end. Any thread."""
        self._server.end()

    def close(self) -> None:
        """End the server and wait for it. A running prune stops before its next session. Not in the server's thread."""
        self.end()
        self._thread.join(_END_SECONDS)


class _QuietServer(uvicorn.Server):
    """A server that leaves signals to the daemon's main thread, and sleeps while no client asks."""

    _ended: asyncio.Event | None = None
    _trouble_told = -_TROUBLE_SECONDS

    def end(self) -> None:
        """Tell the server to end. Any thread."""
        self.should_exit = True
        if self._ended is not None:
            self.call_soon(self._ended.set)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function in the event loop. Any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections. asyncio would let only as many wait as it accepts in one go; here more may."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._note_trouble)
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(BACKLOG)

    def replace_soon(self, listening: socket.socket) -> None:
        """Accept connections from another socket instead. Any thread."""

        def begin() -> None:
            self._replacing = asyncio.ensure_future(self._replace(listening))

        self.call_soon(begin)

    async def _replace(self, listening: socket.socket) -> None:
        before = self.servers
        await self.startup([listening])
        for server in before:
            server.close()

    async def main_loop(self) -> None:
        """Wait to be ended. uvicorn would wake up ten times a second to look, which takes 0.1 % of a core."""
        self._ended = asyncio.Event()
        if not await self.on_tick(0):  # `end` may have come first
            await self._ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End in order; close connections accepted during shutdown instead of waiting 5 s for them."""
        met = set(self.server_state.connections)
        ending = asyncio.ensure_future(super().shutdown(sockets))
        while not ending.done():
            await asyncio.wait({ending}, timeout=_MEETING_SECONDS)
            for connection in self.server_state.connections - met:
                met.add(connection)
                connection.shutdown()
        await ending

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield

    def _note_trouble(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error that reaches no caller; without free descriptors, accept fails a thousand times a second."""
        if not isinstance(context.get("exception"), OSError):
            loop.default_exception_handler(context)
        elif loop.time() - self._trouble_told >= _TROUBLE_SECONDS:
            self._trouble_told = loop.time()
            _log.error("a client cannot be served error=%s what=%s", context["exception"], context.get("message", ""))
