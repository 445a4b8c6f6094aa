"""The control API: HTTP over a listening Unix socket, in its own thread. What is asked goes to the desk."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import select
import socket
import threading
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

import alfwatchd
from alfwatchd.control_socket import Peer, find_peer
from alfwatchd.core import messages, replies
from alfwatchd.desk import ApplyBody, Desk, PlanBody, RescanBody
from alfwatchd.errors import AlfwatchdError, Busy, NotAllowed, PruneRefused, RootOffline, TablesError, UsageError
from alfwatchd.scanner import printable

_STATUS_OF = {
    UsageError: HTTPStatus.BAD_REQUEST,
    NotAllowed: HTTPStatus.FORBIDDEN,
    PruneRefused: HTTPStatus.CONFLICT,
    Busy: HTTPStatus.CONFLICT,
    RootOffline: HTTPStatus.SERVICE_UNAVAILABLE,
    TablesError: HTTPStatus.SERVICE_UNAVAILABLE,
}
_OTHER_STATUSES = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.INTERNAL_SERVER_ERROR,
)
_MAX_BODY_BYTES = 1 << 16
_REQUEST_SECONDS = 10.0
"""How long a client may take to send a request."""
_GRACE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """Any answer but 200: name of the error (see `alfwatchd.errors`), and what happened and what to do."""

    error: str
    message: str


def create_app(desk: Desk) -> FastAPI:
    """Make the control API; its description is at ``/openapi.json``."""
    app = FastAPI(
        title="alfwatchd control API",
        version=alfwatchd.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={
            status.value: {"model": ErrorReply, "description": status.phrase}
            for status in sorted({*_STATUS_OF.values(), *_OTHER_STATUSES})
        },
    )
    app.add_middleware(_BodyGuard)
    app.add_exception_handler(AlfwatchdError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_unexpected)

    @app.get("/v1/status")
    async def status() -> replies.Status:
        """What the daemon knows, at once."""
        return await desk.ask(messages.StatusRequest)  # type: ignore[no-any-return]

    @app.post("/v1/sync")
    async def sync() -> replies.SyncReply:
        """Wait until every change made before the call is in the tables on disk."""
        return await desk.ask(messages.SyncRequest)  # type: ignore[no-any-return]

    @app.post("/v1/flush")
    async def flush() -> replies.FlushReply:
        """Wait until the tables in memory are on disk."""
        return await desk.ask(messages.FlushRequest)  # type: ignore[no-any-return]

    @app.post("/v1/rescan")
    async def rescan(body: RescanBody | None = None) -> replies.RescanReply:
        """Scan a folder and all below it again."""
        wanted = body or RescanBody()
        make = functools.partial(messages.RescanRequest, path=wanted.path, accept_root=wanted.accept_root)
        return await desk.ask(make)  # type: ignore[no-any-return]

    @app.post("/v1/prune/plan")
    async def plan_prune(body: PlanBody | None = None) -> replies.PruneReply:
        """Say what a prune would delete; deletes nothing."""
        return await desk.plan(body or PlanBody())

    @app.post("/v1/prune/apply")
    async def apply_prune(body: ApplyBody, peer: Annotated[Peer, Depends(_peer)]) -> replies.PruneReply:
        """Delete exactly what a plan says and is unchanged since."""
        return await desk.apply(body, peer)

    return app


class Server:
    """Serves an app on a listening Unix socket, in its own thread.

    Parameters
    ----------
    app : FastAPI
    listening : socket.socket
        Closed at the end.
    """

    def __init__(self, app: FastAPI, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=_Protocol,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            date_header=False,  # it would be that of the start: nothing ticks
            headers=[("connection", "close")],
            timeout_graceful_shutdown=_GRACE_SECONDS,
            h11_max_incomplete_event_size=_MAX_BODY_BYTES,
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

    def close(self) -> None:
        """Answer what was asked, for a few seconds at most, then end. A prune stops before its next session."""
        self._server.end()
        self._thread.join()


class _QuietServer(uvicorn.Server):
    """Leaves signals to the daemon's main thread, and sleeps until it is asked or ended."""

    _ended: asyncio.Event | None = None

    def end(self) -> None:
        """Let the server answer what was asked, then end. Any thread but its own."""
        self.should_exit = True
        if self._ended is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._ended.set)

    async def main_loop(self) -> None:
        """Wait for the end. uvicorn looks ten times a second whether it has come, which takes 0.1 % of a core."""
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        if not await self.on_tick(0):  # `end` may have come first
            await self._ended.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


class _Protocol(H11Protocol):
    """One request per connection, within a time; says who asks, and answers nonsense in JSON, too."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.app_state = {"peer": find_peer(transport.get_extra_info("socket"))}  # as `request.state.peer`
        self.loop.call_later(_REQUEST_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is None:  # the body has a time of its own
            self.transport.abort()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection of a client that only said that it has no more to say, as netcat does."""
        if self.cycle is None or self.cycle.more_body:
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket"), 0)
        return not poll.poll(0)  # POLLHUP: both directions are closed

    def send_400_response(self, msg: str) -> None:
        body = bytes(_json_error("UsageError", msg, HTTPStatus.BAD_REQUEST).body)
        head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: "
        self.transport.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
        self.transport.close()


class _BodyGuard:
    """Reads a request's body before the application does: bounded in size and in time, and taken for JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                body = await _read_body(receive)
        except TimeoutError:
            message = f"the request did not come within {_REQUEST_SECONDS:.0f} seconds"
            await _json_error("UsageError", message, HTTPStatus.REQUEST_TIMEOUT)(scope, receive, send)
            return
        except ValueError as error:
            await _json_error("UsageError", str(error), HTTPStatus.REQUEST_ENTITY_TOO_LARGE)(scope, receive, send)
            return
        if body is None:
            return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return unread.pop() if unread else await receive()

        # `curl -d` says that it sends a form.
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        scope["headers"] = [*headers, (b"content-type", b"application/json")]
        await self._app(scope, receive_again, send)


async def _read_body(receive: Receive) -> bytes | None:
    """Return the whole body, or None if the client left; raise ValueError if it is too long."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += bytes(message.get("body", b""))
        if len(body) > _MAX_BODY_BYTES:
            raise ValueError(f"the request has more than {_MAX_BODY_BYTES} bytes")
        if not message.get("more_body", False):
            return body


async def _peer(request: Request) -> Peer:
    peer = request.state.peer
    assert isinstance(peer, Peer)
    return peer


async def _answer_error(_: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in _STATUS_OF.items() if isinstance(error, kind)), None)
    return _json_error(type(error).__name__, str(error), status or HTTPStatus.INTERNAL_SERVER_ERROR)


async def _answer_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return _json_error("UsageError", "; ".join(lines), HTTPStatus.UNPROCESSABLE_ENTITY)


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}; GET /openapi.json lists what there is"
    return _json_error("UsageError", message, HTTPStatus(error.status_code), error.headers)


async def _answer_unexpected(_: Request, error: Exception) -> JSONResponse:
    """Answer; Starlette then hands the error on to uvicorn, which logs it."""
    message = f"unexpected {type(error).__name__} in the daemon, which goes on; its log has the details"
    return _json_error("RequestFailed", message, HTTPStatus.INTERNAL_SERVER_ERROR)


def _json_error(kind: str, message: str, status: HTTPStatus, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": kind, "message": printable(message)}, status, headers=headers)
