"""Connections: how many there may be, and how long each may take."""

from __future__ import annotations

import asyncio
import resource
import select
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from alfwatchd import linux
from alfwatchd.alf.printable import printable

REQUEST_SECONDS = 10.0
"""How long a client may take to send a request."""
TOO_SLOW = f"the request did not come within {REQUEST_SECONDS:.0f} seconds; send it again, all at once"

ANSWER_SECONDS = 60.0
"""How long a client may take to read an answer that does not fit into the socket's own buffers."""

_MOST_HEAD_BYTES = 1 << 14
MOST_CONNECTIONS = 1024
"""The most connections at a time, where the process may open enough files."""
_FEWEST = 8
MOST_UNREAD_BYTES = 1 << 27
"""The most bytes of answers, of all connections together, that wait to be read by their clients."""


def room() -> int:
    """Return the most connections at a time: at most half of the descriptors, as the engine needs the others."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    half = MOST_CONNECTIONS if descriptors == resource.RLIM_INFINITY else descriptors // 2
    return max(_FEWEST, min(MOST_CONNECTIONS, half))


def json_error(kind: str, message: str, status: HTTPStatus, headers: Any = None) -> JSONResponse:
    """Return an answer with a status other than 200: name of the error, and what happened and what to do."""
    return JSONResponse({"error": kind, "message": printable(message)}, status, headers=headers)


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the room for connections.

    Parameters
    ----------
    n_taken : int
        How many connections take of it, the newest included.
    most : int
        How many may.
    is_rival : callable
        Tells whether the newest may push another one out that is silent.
    """

    n_taken: int
    most: int
    is_rival: Callable[[Protocol], bool] = lambda _: True


class Protocol(H11Protocol):
    """A connection: one request, within a time limit. Bytes that are not HTTP are answered in JSON, too."""

    transport: asyncio.Transport
    connections: set[Protocol]  # type: ignore[assignment]
    is_trusted = True
    """Whether the client may take what is kept from others."""
    hint = "GET /openapi.json lists all paths"
    """What to do, for answers that do not come from the application."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # uvicorn would count only whole requests, and refuse them in plain text.
        self._room, self.limit_concurrency = self.limit_concurrency or MOST_CONNECTIONS, None
        self.began = self.loop.time()
        self._most_head_bytes = self.config.h11_max_incomplete_event_size or _MOST_HEAD_BYTES
        self._n_head_bytes = 0
        self._unread_seconds = 0.0
        self.is_follower = False
        """Whether the client waits for changes: it has a place of its own, and does not count as one that asks."""
        self.is_ending = False
        """Whether the server ends."""
        self.wake: Callable[[], object] = lambda: None
        """Called when the server ends; then a follower should get the end of its answer."""
        self._has_proceeded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out which process connected, and start to measure time."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._socket = transport.get_extra_info("socket")
        self.app_state = self.describe()
        self._next_look = self.loop.call_later(REQUEST_SECONDS, self._look)
        for share in self.shares():
            if share.n_taken > share.most:
                self._make_room(share)
                break

    def describe(self) -> dict[str, Any]:
        """Return what the application finds in `request.state`."""
        return {"connection": self}

    def shares(self) -> Iterator[Share]:
        """Yield the shares of the room that this connection takes a part of."""
        yield Share(len(self.asking), self._room)

    @property
    def asking(self) -> list[Protocol]:
        """All connections of clients that ask: those that wait for changes have places of their own."""
        return [each for each in self.connections if not each.is_follower]

    def expendable(self) -> list[Protocol]:
        """Return all other connections, those first that are dropped first if there is not enough for all."""
        return sorted(self.connections - {self}, key=lambda each: each.began)

    def make_error(self, kind: str, message: str, status: HTTPStatus) -> JSONResponse:
        """Return an error that does not come from the application."""
        return json_error(kind, message, status)

    def has_stalled(self, unread_seconds: float) -> bool:
        """Tell whether to drop a client that has not read all of its answer for this time."""
        return unread_seconds >= ANSWER_SECONDS

    def data_received(self, data: bytes) -> None:
        """Hand the bytes to h11 in pieces, because h11 does not limit a head that arrives in one piece."""
        while data and self.cycle is None and not self.transport.is_closing():
            room = self._most_head_bytes - self._n_head_bytes
            if not room:
                self.send_400_response(f"The head of the request has more than {self._most_head_bytes} bytes.")
                return
            self._n_head_bytes += len(data[:room])
            super().data_received(data[:room])
            data = data[room:]
        while data and not self.transport.is_closing():  # the same limit counts for heads of chunks, and for trailers
            super().data_received(data[: self._most_head_bytes])
            data = data[self._most_head_bytes :]

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._next_look.cancel()  # it would keep all of this alive
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection of a client that only closed its sending side, as netcat does."""
        return self.has_asked and not self._is_gone

    def pause_writing(self) -> None:
        """Limit the memory of unread answers: drop the oldest clients that do not read theirs."""
        super().pause_writing()
        unread = self.expendable()
        n_bytes = sum(each.n_unread for each in self.connections)
        while n_bytes > MOST_UNREAD_BYTES and unread:
            oldest = unread.pop(0)
            n_bytes -= oldest.n_unread
            if oldest.n_unread:
                oldest.drop()

    def shutdown(self) -> None:
        """End after the answer if the whole request is there; else end at once."""
        self.is_ending = True
        if self.is_follower and self.is_unread:
            self.drop()
        elif self.has_asked:
            self.wake()
            super().shutdown()
        else:
            self.drop()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP."""
        self._refuse("UsageError", f"{msg} {self.hint}", HTTPStatus.BAD_REQUEST)

    @property
    def n_unread(self) -> int:
        """Bytes of the answer that the client has not read."""
        return self.transport.get_write_buffer_size()

    @property
    def is_unread(self) -> bool:
        """Whether the client has not read all that was sent so far. Only for a Unix socket."""
        try:
            return bool(self.n_unread or linux.count_unread(self._socket.fileno()))
        except OSError:
            return False

    def begin_stream(self) -> None:
        """Send a part only after the client has read the part before, apart from what the kernel buffers."""
        self.transport.set_write_buffer_limits(high=0)

    def proceed(self) -> None:
        """Note that the client has read a part of a stream."""
        self._has_proceeded = True

    def drop(self) -> None:
        """Close the connection at once."""
        self.connections.discard(self)
        self.transport.abort()

    @property
    def room(self) -> int:
        """The most connections at a time."""
        return self._room

    @property
    def has_asked(self) -> bool:
        """Whether the whole request has arrived."""
        return self.cycle is not None and not self.cycle.more_body

    @property
    def is_silent(self) -> bool:
        """Whether the client has sent no whole request, and no bytes that are still unread."""
        return not self.has_asked and not self._has(select.POLLIN)

    @property
    def _is_gone(self) -> bool:
        """Whether the client has closed both directions. asyncio does not notice while reading is paused, or over."""
        return self._has(select.POLLHUP)

    def _has(self, event: int) -> bool:
        poll = select.poll()
        poll.register(self._socket, event)
        return any(found & event for _, found in poll.poll(0))

    def _make_room(self, share: Share) -> None:
        """Drop the first client of a share that has sent no request; if all have sent one, refuse this client."""
        silent = next((each for each in self.expendable() if share.is_rival(each) and each.is_silent), None)
        if silent is not None:
            silent.drop()
        else:
            message = f"{share.most} requests wait already; try again later"
            self._refuse("Busy", message, HTTPStatus.SERVICE_UNAVAILABLE)

    def _look(self) -> None:
        """Close the connection if its client is too slow, or has disconnected."""
        if self.cycle is None and not self.transport.is_closing():
            self._give_up()
        elif (self.has_asked and self._is_gone) or self.has_stalled(self._unread_seconds):
            self.drop()
        has_stopped = self.is_unread and not self._has_proceeded if self.is_follower else self.n_unread
        self._unread_seconds = self._unread_seconds + REQUEST_SECONDS if has_stopped else 0.0
        self._has_proceeded = False
        self._next_look = self.loop.call_later(REQUEST_SECONDS, self._look)

    def _give_up(self) -> None:
        """Answer a request whose head did not arrive in time; the request guard limits the time of the body."""
        if self.conn.trailing_data[0]:
            self._refuse("UsageError", TOO_SLOW, HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.drop()

    def _refuse(self, kind: str, message: str, status: HTTPStatus) -> None:
        body = bytes(self.make_error(kind, message, status).body)
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()
