"""Connections: who asks, how many there may be, and how long each may take."""

from __future__ import annotations

import asyncio
import resource
import select
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from alfwatchd.alf.printable import printable
from alfwatchd.web.control_socket import find_peer

REQUEST_SECONDS = 10.0
"""How long a client may take to send a request."""
TOO_SLOW = f"the request did not come within {REQUEST_SECONDS:.0f} seconds; send it again, all at once"

ANSWER_SECONDS = 60.0
"""How long a client may take to read an answer that does not fit into the socket's own buffers."""

_MOST_HEAD_BYTES = 1 << 14
_MOST = 1024
_FEWEST = 8
_UNREAD_BYTES = 1 << 27
"""What all answers together may take that wait to be read."""


def room() -> int:
    """How many connections there may be at once: at most half of the descriptors. The rest is for the engine's work."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    half = _MOST if descriptors == resource.RLIM_INFINITY else descriptors // 2
    return max(_FEWEST, min(_MOST, half))


def json_error(kind: str, message: str, status: HTTPStatus, headers: Any = None) -> JSONResponse:
    """Any answer but 200: name of the error, and what happened and what to do."""
    return JSONResponse({"error": kind, "message": printable(message)}, status, headers=headers)


class Protocol(H11Protocol):
    """One request per connection, within a time; says who asks, and answers nonsense in JSON, too."""

    transport: asyncio.Transport
    connections: set[Protocol]  # type: ignore[assignment]
    hint = "GET /openapi.json lists what there is"
    """What is said to whom no application answers."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # uvicorn would count only whole requests, and refuse them in plain text.
        self._room, self.limit_concurrency = self.limit_concurrency or _MOST, None
        self.began = self.loop.time()
        self._most_head_bytes = self.config.h11_max_incomplete_event_size or _MOST_HEAD_BYTES
        self._n_head_bytes = 0
        self._unread_seconds = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who it is, and let time run."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._socket = transport.get_extra_info("socket")
        self.app_state = self.describe()
        self._next_look = self.loop.call_later(REQUEST_SECONDS, self._look)
        if len(self.connections) > self._room:
            self._make_room()

    def describe(self) -> dict[str, Any]:
        """Return what the application finds in `request.state`."""
        return {"peer": find_peer(self._socket)}

    def make_error(self, kind: str, message: str, status: HTTPStatus) -> JSONResponse:
        """Make the answer where no application does."""
        return json_error(kind, message, status)

    def has_stalled(self, unread_seconds: float) -> bool:
        """Tell whether a client that has not taken its answer for so long is to be dropped."""
        return unread_seconds >= ANSWER_SECONDS

    def data_received(self, data: bytes) -> None:
        """Show h11 what has come in pieces: of a head that comes at once, it does not ask how long it is."""
        while data and self.cycle is None and not self.transport.is_closing():
            room = self._most_head_bytes - self._n_head_bytes
            if not room:
                self.send_400_response(f"The head of the request has more than {self._most_head_bytes} bytes.")
                return
            self._n_head_bytes += len(data[:room])
            super().data_received(data[:room])
            data = data[room:]
        while data and not self.transport.is_closing():  # the head of a chunk, and trailers, have no more, too
            super().data_received(data[: self._most_head_bytes])
            data = data[self._most_head_bytes :]

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._next_look.cancel()  # it would keep all of this alive
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection of a client that only said that it has no more to say, as netcat does."""
        return self.has_asked and not self._is_gone

    def pause_writing(self) -> None:
        """Keep what waits to be read bounded: an answer is more than the client takes."""
        super().pause_writing()
        unread = self._others()
        n_bytes = sum(each.n_unread for each in self.connections)
        while n_bytes > _UNREAD_BYTES and unread:
            oldest = unread.pop(0)
            n_bytes -= oldest.n_unread
            if oldest.n_unread:
                oldest.drop()

    def shutdown(self) -> None:
        """Let what was asked be answered; nobody waits for the rest of a request."""
        if self.has_asked:
            super().shutdown()
        else:
            self.drop()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse("UsageError", f"{msg} {self.hint}", HTTPStatus.BAD_REQUEST)

    @property
    def n_unread(self) -> int:
        """Bytes of the answer that the client has not taken."""
        return self.transport.get_write_buffer_size()

    def drop(self) -> None:
        """End the connection at once, whoever is at the other end."""
        self.connections.discard(self)
        self.transport.abort()

    @property
    def has_asked(self) -> bool:
        """Whether the whole request has come."""
        return self.cycle is not None and not self.cycle.more_body

    @property
    def is_silent(self) -> bool:
        """Whether the client has not asked anything, nor sent anything that was not read yet."""
        return not self.has_asked and not self._has(select.POLLIN)

    @property
    def _is_gone(self) -> bool:
        """Whether the client has closed both directions. Nobody says so where reading is paused, or over."""
        return self._has(select.POLLHUP)

    def _has(self, event: int) -> bool:
        poll = select.poll()
        poll.register(self._socket, event)
        return any(found & event for _, found in poll.poll(0))

    def _make_room(self) -> None:
        """Drop who has been silent for longest; if all others have asked something, refuse this one."""
        others = self._others()
        silent = next((each for each in others if each.is_silent), None)
        if silent is not None:
            silent.drop()
        else:
            self._refuse("Busy", f"{self._room} requests wait already; try again later", HTTPStatus.SERVICE_UNAVAILABLE)

    def _look(self) -> None:
        """Drop who dawdles, and who is gone without our having heard of it."""
        if self.cycle is None and not self.transport.is_closing():
            self._give_up()
        elif (self.has_asked and self._is_gone) or self.has_stalled(self._unread_seconds):
            self.drop()
        self._unread_seconds = self._unread_seconds + REQUEST_SECONDS if self.n_unread else 0.0
        self._next_look = self.loop.call_later(REQUEST_SECONDS, self._look)

    def _give_up(self) -> None:
        """Answer half a request; the body has a time of its own."""
        if self.conn.trailing_data[0]:
            self._refuse("UsageError", TOO_SLOW, HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.drop()

    def _others(self) -> list[Protocol]:
        """Return all other connections, the oldest first."""
        return sorted(self.connections - {self}, key=lambda each: each.began)

    def _refuse(self, kind: str, message: str, status: HTTPStatus) -> None:
        body = bytes(self.make_error(kind, message, status).body)
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()
