"""The control API as an app: what is asked goes to the desk; what is wrong with a request is told."""

from __future__ import annotations

import asyncio
import functools
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alfwatchd import api
from alfwatchd.api import FlushRequest, RescanRequest, StatusRequest, SyncRequest
from alfwatchd.errors import (
    AlfwatchdError,
    Busy,
    NotAllowed,
    PruneRefused,
    RootOffline,
    TablesError,
    UsageError,
    WrongRoot,
)
from alfwatchd.version import find_version
from alfwatchd.web import connections
from alfwatchd.web.connections import json_error
from alfwatchd.web.control_service import ApplyBody, ControlService, EmptyBody, PlanBody, RescanBody, UndoBody
from alfwatchd.web.control_socket import Peer
from alfwatchd.web.root_header import make_root_check, require_root, require_root_to_change

_STATUS_OF = {
    UsageError: HTTPStatus.BAD_REQUEST,
    NotAllowed: HTTPStatus.FORBIDDEN,
    WrongRoot: HTTPStatus.CONFLICT,
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
_MOST_MISTAKES = 5
"""How many mistakes in a body are told."""


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """Any answer but 200: name of the error (see `alfwatchd.errors`), and what happened and what to do."""

    error: str
    message: str


def create_app(service: ControlService) -> FastAPI:
    """Make the control API; its description is at ``/openapi.json``."""
    app = FastAPI(
        title="alfwatchd control API",
        version=find_version(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(make_root_check(service))],
        responses={
            status.value: {"model": ErrorReply, "description": status.phrase}
            for status in sorted({*_STATUS_OF.values(), *_OTHER_STATUSES})
        },
    )
    app.add_middleware(_RequestGuard)
    app.add_exception_handler(AlfwatchdError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_unexpected)

    @app.get("/v1/status")
    async def status() -> api.Status:
        """What the daemon knows, at once."""
        return await service.ask(StatusRequest)  # type: ignore[no-any-return]

    @app.post("/v1/sync")
    async def sync() -> api.SyncReply:
        """Wait until every change made before the call is in the tables on disk."""
        return await service.ask(SyncRequest)  # type: ignore[no-any-return]

    @app.post("/v1/flush")
    async def flush() -> api.FlushReply:
        """Wait until the tables in memory are on disk."""
        return await service.ask(FlushRequest)  # type: ignore[no-any-return]

    @app.post("/v1/rescan")
    async def rescan(request: Request, body: RescanBody | None = None) -> api.RescanReply:
        """Scan a folder and all below it again. With `accept_root`, the request must say which root it means."""
        wanted = body or RescanBody()
        if wanted.accept_root:
            require_root(request)
        make = functools.partial(RescanRequest, path=wanted.path, accept_root=wanted.accept_root)
        return await service.ask(make)  # type: ignore[no-any-return]

    @app.get("/v1/ids/{old}")
    async def ids(old: str) -> api.IdsReply:
        """What became of the id of a session or dataset."""
        return await service.find_id(old)

    @app.post("/v1/recompute_ids")
    async def recompute_ids(peer: Annotated[Peer, Depends(_peer)]) -> api.RecomputeReply:
        """Make all ids anew: those that follow from the paths, or are the database's."""
        return await service.recompute_ids(peer)

    prune = APIRouter(prefix="/v1/prune", dependencies=[Depends(require_root_to_change)])

    @prune.post("/plan")
    async def plan_prune(body: PlanBody | None = None) -> api.PruneReply:
        """Say what a prune would delete; deletes nothing."""
        return await service.plan(body or PlanBody())

    @prune.post("/apply")
    async def apply_prune(body: ApplyBody, peer: Annotated[Peer, Depends(_peer)]) -> api.PruneReply:
        """Delete exactly what a plan says and is unchanged since. Stops at the next file if the client leaves."""
        return await service.apply(body, peer)

    @prune.post("/undo")
    async def undo_prune(body: UndoBody, peer: Annotated[Peer, Depends(_peer)]) -> api.TrashReply:
        """Bring back what a plan has moved into the trash; never over what is there."""
        return await service.undo(body, peer)

    @prune.post("/empty")
    async def empty_trash(peer: Annotated[Peer, Depends(_peer)], body: EmptyBody | None = None) -> api.TrashReply:
        """Delete what a plan, or each, has moved into the trash."""
        return await service.empty(body or EmptyBody(), peer)

    @prune.get("/plans")
    async def list_plans() -> api.PlansReply:
        """The latest plans, and what became of them."""
        return await service.list_plans()

    app.include_router(prune)
    return app


class _RequestGuard:
    """Reads a request's body before the application does: bounded in size and time, JSON, and clear.

    The application stops waiting for an answer when the client has left.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(connections.REQUEST_SECONDS):
                body = await _read_body(receive)
        except TimeoutError:
            await json_error("UsageError", connections.TOO_SLOW, HTTPStatus.REQUEST_TIMEOUT)(scope, receive, send)
            return
        if body is None:
            return
        if len(body) > _MAX_BODY_BYTES:
            message = f"the request has more than {_MAX_BODY_BYTES} bytes; nothing that can be asked needs as many"
            await json_error("UsageError", message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)(scope, receive, send)
            return
        if mistake := _find_mistake(scope["query_string"], body):
            await json_error("UsageError", mistake, HTTPStatus.BAD_REQUEST)(scope, receive, send)
            return
        # `curl -d` says that it sends a form.
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        scope["headers"] = [*headers, (b"content-type", b"application/json")]
        try:
            await self._answer(scope, body, receive, send)
        except asyncio.CancelledError:
            message = "the daemon is stopping; ask again when it is back"
            await json_error("AlfwatchdError", message, HTTPStatus.INTERNAL_SERVER_ERROR)(scope, receive, send)

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Let the application answer, unless the client leaves first."""
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        leaving = asyncio.ensure_future(_disconnected(receive))

        async def receive_again() -> Message:
            return unread.pop() if unread else await asyncio.shield(leaving)

        answering = asyncio.ensure_future(self._app(scope, receive_again, send))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            answering.cancel()
            leaving.cancel()


async def _read_body(receive: Receive) -> bytes | None:
    """Return the whole body, or the beginning of one that is too long; None if the client left."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += bytes(message.get("body", b""))
        if len(body) > _MAX_BODY_BYTES or not message.get("more_body", False):
            return body


async def _disconnected(receive: Receive) -> Message:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message


def _find_mistake(query: bytes, body: bytes) -> str:
    """Return what is wrong with a request whatever it asks; what a guess would put right might be something else."""
    if query:
        return "parameters belong into the body, as a JSON object, not behind the path; GET /openapi.json lists them"
    try:
        if body:
            json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        return "the body is no JSON that this API knows: it is nested too deeply"
    except ValueError as error:
        return f"the body should be a JSON object: {error}"
    return ""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


async def _peer(request: Request) -> Peer:
    peer = request.state.peer
    assert isinstance(peer, Peer)
    return peer


async def _answer_error(_: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in _STATUS_OF.items() if isinstance(error, kind)), None)
    return json_error(type(error).__name__, str(error), status or HTTPStatus.INTERNAL_SERVER_ERROR)


async def _answer_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    lines = [f"{'.'.join(map(str, each['loc']))[:200]}: {each['msg']}" for each in error.errors()[:_MOST_MISTAKES]]
    message = "; ".join([*lines, "GET /openapi.json describes what is wanted"])
    return json_error("UsageError", message, HTTPStatus.UNPROCESSABLE_ENTITY)


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}; GET /openapi.json lists what there is"
    return json_error("UsageError", message, HTTPStatus(error.status_code), error.headers)


async def _answer_unexpected(_: Request, error: Exception) -> JSONResponse:
    """Answer; Starlette then hands the error on to uvicorn, which logs it."""
    message = f"unexpected {type(error).__name__} in the daemon, which goes on; its log has the details"
    return json_error("RequestFailed", message, HTTPStatus.INTERNAL_SERVER_ERROR)
