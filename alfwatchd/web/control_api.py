"""The routes of the control API: each hands a request to the control service and says what is wrong with others."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from alfwatchd import api
from alfwatchd.api import FlushRequest, RescanRequest, StatusRequest, SyncRequest
from alfwatchd.errors import (
    AlfwatchdError,
    Busy,
    NotAllowed,
    NoThreads,
    PruneRefused,
    RootOffline,
    TablesError,
    TooOften,
    UsageError,
    WrongRoot,
)
from alfwatchd.figures import Figures, FiguresRequest
from alfwatchd.version import find_version
from alfwatchd.web import change_routes
from alfwatchd.web.change_feed import ChangeFeed
from alfwatchd.web.connections import Protocol, json_error
from alfwatchd.web.control_service import ControlService
from alfwatchd.web.metrics import OPENMETRICS, TEXT, ServerFigures, show, wanted_type
from alfwatchd.web.peer import Peer
from alfwatchd.web.request_bodies import ApplyBody, EmptyBody, PlanBody, RescanBody, SetBody, UndoBody
from alfwatchd.web.request_guard import RequestGuard
from alfwatchd.web.rights_guard import RightsGuard
from alfwatchd.web.root_header import HEADER, encode_root

_STATUS_OF = {
    UsageError: HTTPStatus.BAD_REQUEST,
    NotAllowed: HTTPStatus.FORBIDDEN,
    WrongRoot: HTTPStatus.CONFLICT,
    PruneRefused: HTTPStatus.CONFLICT,
    NoThreads: HTTPStatus.SERVICE_UNAVAILABLE,
    TooOften: HTTPStatus.TOO_MANY_REQUESTS,
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
_OWN_ERROR = "Value error, "
"""What pydantic puts before the messages of our own checks."""
_MOST_MISTAKES = 5
"""How many mistakes in a body an answer lists."""
_ROOT_HEADER = (
    "Which root is meant: its absolute path, percent-encoded. A daemon that keeps another root refuses. "
    "Required for all requests below /v1/prune that change something, for /v1/set, and for accept_root."
)


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """Any answer but 200: name of the error (see `alfwatchd.errors`), and what happened and what to do."""

    error: str
    message: str


def create_app(service: ControlService, feed: ChangeFeed) -> FastAPI:
    """Return the control API as an ASGI application; its description is at ``/openapi.json``."""
    routers = (
        _tables_routes(service),
        _metrics_routes(service),
        _prune_routes(service),
        change_routes.make_routes(service, feed),
    )
    app = FastAPI(
        title="alfwatchd control API",
        version=find_version(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(_root_check(service))],
        responses={
            status.value: {"model": ErrorReply, "description": status.phrase}
            for status in sorted({*_STATUS_OF.values(), *_OTHER_STATUSES})
        },
    )
    app.add_middleware(RightsGuard, rights=service.rights, refuse=_refuse)
    app.add_middleware(RequestGuard, takes_query=_paths_with_query(routers).__contains__)
    app.add_exception_handler(AlfwatchdError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_unexpected)
    for router in routers:
        app.include_router(router)
    return app


def _paths_with_query(routers: Iterable[APIRouter]) -> frozenset[str]:
    routes = chain.from_iterable(router.routes for router in routers)
    return frozenset(each.path for each in routes if isinstance(each, APIRoute) and each.dependant.query_params)


def _tables_routes(service: ControlService) -> APIRouter:
    """Make the routes about tables and ids."""
    routes = APIRouter(prefix="/v1")

    @routes.get("/status")
    async def status() -> api.Status:
        """What the daemon knows, at once."""
        return await service.ask(StatusRequest)  # type: ignore[no-any-return]

    @routes.post("/sync")
    async def sync() -> api.SyncReply:
        """Wait until every change made before the call is in the tables on disk."""
        return await service.ask(SyncRequest)  # type: ignore[no-any-return]

    @routes.post("/flush")
    async def flush() -> api.FlushReply:
        """Wait until the tables in memory are on disk."""
        return await service.ask(FlushRequest)  # type: ignore[no-any-return]

    @routes.post("/rescan")
    async def rescan(request: Request, body: RescanBody | None = None) -> api.RescanReply:
        """Scan a folder and all below it again. With `accept_root`, the request must say which root it means."""
        wanted = body or RescanBody()
        if wanted.accept_root:
            _require_root(request)
        make = functools.partial(RescanRequest, path=wanted.path, accept_root=wanted.accept_root)
        return await service.ask(make)  # type: ignore[no-any-return]

    @routes.get("/ids/{old}")
    async def ids(old: str) -> api.IdsReply:
        """What became of the id of a session or dataset."""
        return await service.find_id(old)

    @routes.post("/recompute_ids")
    async def recompute_ids(peer: Annotated[Peer, Depends(_peer)]) -> api.RecomputeReply:
        """Compute all ids again, from the paths or from the database; ids in earlier tables do not count."""
        return await service.recompute_ids(peer)

    @routes.post("/set")
    async def set_columns(request: Request, body: SetBody, peer: Annotated[Peer, Depends(_peer)]) -> api.SetReply:
        """Set qc, projects or task_protocol of a session that no database knows. It must say which root it means."""
        _require_root(request)
        return await service.set_columns(body, peer)

    return routes


def _metrics_routes(service: ControlService) -> APIRouter:
    """Make the route for programs that watch over many machines."""
    routes = APIRouter()

    texts = {content_type.partition(";")[0]: {"schema": {"type": "string"}} for content_type in (TEXT, OPENMETRICS)}

    @routes.get("/metrics", response_class=Response, responses={HTTPStatus.OK.value: {"content": texts}})
    async def metrics(request: Request) -> Response:
        """Return all metrics: as OpenMetrics if the header Accept names it, else as Prometheus' text."""
        figures: Figures = await service.ask(FiguresRequest)
        connection: Protocol = request.state.connection
        server = ServerFigures(len(connection.connections), connection.room, service.n_pruned_bytes)
        content_type = wanted_type(request.headers.get("accept", ""))
        return Response(show(figures, server, content_type), headers={"content-type": content_type})

    return routes


def _prune_routes(service: ControlService) -> APIRouter:
    """Make the routes that plan and apply a prune, and those of the trash."""
    routes = APIRouter(prefix="/v1/prune", dependencies=[Depends(_require_root_to_change)])

    @routes.post("/plan")
    async def plan_prune(body: PlanBody | None = None) -> api.PruneReply:
        """Say what a prune would delete; deletes nothing."""
        return await service.plan(body or PlanBody())

    @routes.post("/apply")
    async def apply_prune(body: ApplyBody, peer: Annotated[Peer, Depends(_peer)]) -> api.PruneReply:
        """Delete the files of a plan that are unchanged since. Stops at the next file if the client disconnects."""
        return await service.apply(body, peer)

    @routes.post("/undo")
    async def undo_prune(body: UndoBody, peer: Annotated[Peer, Depends(_peer)]) -> api.TrashReply:
        """Move the files of a plan from the trash back to their places; never over a file that is there."""
        return await service.undo(body, peer)

    @routes.post("/empty")
    async def empty_trash(peer: Annotated[Peer, Depends(_peer)], body: EmptyBody | None = None) -> api.TrashReply:
        """Delete the files of one plan, or of all plans, from the trash."""
        return await service.empty(body or EmptyBody(), peer)

    @routes.get("/plans")
    async def list_plans() -> api.PlansReply:
        """The latest plans, and what became of them."""
        return await service.list_plans()

    return routes


# What routes depend on.


async def _peer(request: Request) -> Peer:
    peer = request.state.peer
    assert isinstance(peer, Peer)
    return peer


def _root_check(service: ControlService) -> Callable[..., Awaitable[None]]:
    """Return the check of every request: one that names another root than the service's raises `WrongRoot`."""

    async def check(
        request: Request,
        response: Response,
        _: Annotated[str | None, Header(alias=HEADER, description=_ROOT_HEADER)] = None,
    ) -> None:
        named = request.headers.getlist(HEADER)
        if len(named) > 1:
            raise UsageError(f"{HEADER} is given twice; a request means one root")
        for value in named:
            await service.check_root(value.encode("latin-1"))
        response.headers[HEADER] = encode_root(os.fsencode(service.root))

    return check


async def _require_root_to_change(request: Request) -> None:
    """Refuse a request that changes something and names no root."""
    if request.method not in ("GET", "HEAD"):
        _require_root(request)


def _require_root(request: Request) -> None:
    """Refuse a request that names no root; the error says how to name it."""
    if HEADER not in request.headers:
        raise UsageError(
            f"{request.method} {request.url.path}: which root is meant? Send its absolute path, percent-encoded, in a "
            f"header: curl -H '{HEADER}: /data/root' ...; GET /v1/status tells which one is kept here"
        )


# Errors.


async def _answer_error(_: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in _STATUS_OF.items() if isinstance(error, kind)), None)
    headers = {"Retry-After": str(math.ceil(error.wait_seconds))} if isinstance(error, TooOften) else None
    return json_error(type(error).__name__, str(error), status or HTTPStatus.INTERNAL_SERVER_ERROR, headers)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that the rights guard does not hand on."""
    answer = _answer_http_error if isinstance(error, HTTPException) else _answer_error
    return await answer(request, error)


async def _answer_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    lines = [
        f"{'.'.join(map(str, each['loc']))[:200]}: {each['msg'].removeprefix(_OWN_ERROR)}"
        for each in error.errors()[:_MOST_MISTAKES]
    ]
    message = "; ".join([*lines, "GET /openapi.json describes what is wanted"])
    return json_error("UsageError", message, HTTPStatus.UNPROCESSABLE_ENTITY)


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}; GET /openapi.json lists all paths"
    return json_error("UsageError", message, HTTPStatus(error.status_code), error.headers)


async def _answer_unexpected(_: Request, error: Exception) -> JSONResponse:
    """Answer; Starlette then hands the error on to uvicorn, which logs it."""
    message = f"unexpected {type(error).__name__} in the daemon, which continues; its log has the details"
    return json_error("RequestFailed", message, HTTPStatus.INTERNAL_SERVER_ERROR)
