"""An HTTP server on a listening socket, in its own thread: quiet, bounded, and ended with its daemon."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from alfwatchd.web import connections
from alfwatchd.web.connections import Protocol
from alfwatchd.web.control_socket import BACKLOG

_log = logging.getLogger(__name__)

_MAX_HEAD_BYTES = 1 << 14
_GRACE_SECONDS = 5
_MEETING_SECONDS = 0.05
"""How often the end looks for connections that were accepted just before it."""
_END_SECONDS = 20.0
"""How long the end of the thread is waited for: nothing that it still does may keep the daemon from ending."""
_TAKEN_AT_ONCE = 32
"""asyncio accepts as many connections in one go, and only then looks at each of them."""
_TROUBLE_SECONDS = 30.0


class Server:
    """Serves an app on a listening socket, in its own thread.

    Parameters
    ----------
    app : ASGI application
    listening : socket.socket
        Closed at the end.
    protocol : type of Protocol
        What its connections are.
    room : int or None
        How many of them there may be at once; None: `connections.room`.
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
            log_level="error",  # what clients do wrong is told to them; a flood of it would fill the log
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,  # it would be that of the start: nothing ticks
            headers=[("connection", "close")],
            timeout_graceful_shutdown=_GRACE_SECONDS,
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
            limit_concurrency=room or connections.room(),
            backlog=_TAKEN_AT_ONCE,
        )
        self._server = _QuietServer(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="server", daemon=True
        )
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_listening(self) -> bool:
        """Whether the thread has begun to take connections, and `replace` may be called."""
        return self._server.started

    def replace(self, listening: socket.socket) -> None:
        """Take connections from another socket, which is closed at the end, and no more from the one before."""
        self._server.replace_soon(listening)

    def close(self) -> None:
        """Answer what was asked, for a few seconds at most, then end. A prune stops before its next session."""
        self._server.end()
        self._thread.join(_END_SECONDS)


class _QuietServer(uvicorn.Server):
    """Leaves signals to the daemon's main thread, and sleeps until it is asked or ended."""

    _ended: asyncio.Event | None = None
    _trouble_told = -_TROUBLE_SECONDS

    def end(self) -> None:
        """Let the server answer what was asked, then end. Any thread but its own."""
        self.should_exit = True
        if self._ended is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._ended.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections. asyncio lets as many wait as it takes in one go."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._note_trouble)
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(BACKLOG)

    def replace_soon(self, listening: socket.socket) -> None:
        """Listen elsewhere. Any thread but its own."""

        def begin() -> None:
            self._replacing = asyncio.ensure_future(self._replace(listening))

        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(begin)

    async def _replace(self, listening: socket.socket) -> None:
        before = self.servers
        await self.startup([listening])
        for server in before:
            server.close()

    async def main_loop(self) -> None:
        """Wait for the end. uvicorn looks ten times a second whether it has come, which takes 0.1 % of a core."""
        self._ended = asyncio.Event()
        if not await self.on_tick(0):  # `end` may have come first
            await self._ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End in order. Who was accepted just before is met only now, and asked to end like all others."""
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
        """Log what asyncio cannot hand to anybody: where there are no descriptors, some thousand times a second."""
        if not isinstance(context.get("exception"), OSError):
            loop.default_exception_handler(context)
        elif loop.time() - self._trouble_told >= _TROUBLE_SECONDS:
            self._trouble_told = loop.time()
            _log.error("a client cannot be served error=%s what=%s", context["exception"], context.get("message", ""))
