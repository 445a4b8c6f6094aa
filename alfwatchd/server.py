"""The control socket: HTTP in, messages to the engine, replies out. Runs in its own thread."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import grp
import json
import logging
import os
import pwd
import socket
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.h11_impl import H11Protocol

import alfwatchd
from alfwatchd import errors, pruning
from alfwatchd.core import messages, replies
from alfwatchd.core.messages import Message, TablesView
from alfwatchd.core.prune_plan import PrunePlan
from alfwatchd.errors import AlfwatchdError, Busy, Locked, NotAllowed, PruneRefused, RootOffline, UsageError
from alfwatchd.settings import Settings

_log = logging.getLogger(__name__)

_STATUS_OF = {
    UsageError: HTTPStatus.BAD_REQUEST,
    NotAllowed: HTTPStatus.FORBIDDEN,
    PruneRefused: HTTPStatus.CONFLICT,
    Busy: HTTPStatus.CONFLICT,
    RootOffline: HTTPStatus.SERVICE_UNAVAILABLE,
}
_MAX_PLANS = 8
_MAX_BODY_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks: process, user and primary group (``SO_PEERCRED``, unix(7))."""

    pid: int
    uid: int
    gid: int

    def __str__(self) -> str:
        try:
            name = pwd.getpwuid(self.uid).pw_name
        except KeyError:
            name = "?"
        return f"user={name} uid={self.uid} pid={self.pid}"

    def groups(self) -> set[int]:
        """Return the ids of all groups of the user."""
        try:
            return {self.gid, *os.getgrouplist(pwd.getpwuid(self.uid).pw_name, self.gid)}
        except KeyError:
            return {self.gid}


class RescanBody(BaseModel):
    """What to scan again."""

    model_config = ConfigDict(extra="forbid")
    path: str = Field("", max_length=4096, description="Folder relative to the root; empty for all of it.")
    accept_root: bool = Field(default=False, description="Take the root as it is, though it is not what it was.")


class PlanBody(BaseModel):
    """What a prune is measured against."""

    model_config = ConfigDict(extra="forbid")
    reference: str | None = Field(None, max_length=4096, description="Folder of the reference tables.")
    keep_empty_sessions: bool = False
    max_fraction: float | None = Field(None, ge=0, le=1, description="Largest fraction of the datasets that may go.")


class ApplyBody(BaseModel):
    """Which plan to carry out."""

    model_config = ConfigDict(extra="forbid")
    plan_id: str = Field(max_length=64)


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """Any answer but 200: class of the error, and what happened and what to do."""

    error: str
    message: str


class Desk:
    """Answers requests: turns them into messages to the engine, and runs prunes.

    Parameters
    ----------
    post : callable
        Takes messages to the engine.
    settings : callable
        Returns the settings in force.
    """

    def __init__(self, post: Callable[[Message], None], settings: Callable[[], Settings]) -> None:
        self._post = post
        self._settings = settings
        self._plans: OrderedDict[str, PrunePlan] = OrderedDict()
        self._pruning = threading.Lock()

    async def ask(self, make: Callable[[Future[Any]], Message]) -> Any:
        """Post a request and wait for the engine's answer."""
        reply: Future[Any] = Future()
        self._post(make(reply))
        return await asyncio.wrap_future(reply)

    async def plan(self, body: PlanBody) -> replies.PruneReply:
        """Plan a prune of what is on disk now."""
        await self.ask(messages.SyncRequest)
        view: TablesView = await self.ask(messages.SnapshotRequest)
        options = pruning.PruneOptions(
            Path(body.reference) if body.reference else None, body.keep_empty_sessions, body.max_fraction
        )
        return await asyncio.to_thread(self._plan, view, options)

    async def apply(self, body: ApplyBody, peer: Peer) -> replies.PruneReply:
        """Carry out a plan that was made."""
        self.check_may_prune(peer)
        plan = self._plans.get(body.plan_id)
        if plan is None:
            raise UsageError(f"plan {body.plan_id}: no such plan, or it is too old; make one with /v1/prune/plan")
        view: TablesView = await self.ask(messages.SnapshotRequest)  # fails while the root is offline
        if view.unsure:
            raise PruneRefused(f"{view.unsure[0]}: not readable any more; nothing was deleted, make a new plan")
        return await asyncio.to_thread(self._apply, plan, peer)

    def check_may_prune(self, peer: Peer) -> None:
        """Let root, the daemon's user and members of `control.group` prune, if pruning is enabled at all.

        Raises
        ------
        NotAllowed
            With what would have to change.
        """
        settings = self._settings()
        if not settings.prune.enabled:
            raise NotAllowed("pruning over the socket is off; set prune.enabled = true in the daemon's settings")
        if peer.uid in (0, os.getuid()) or (settings.control.group and _gid(settings.control.group) in peer.groups()):
            return
        raise NotAllowed(f"{peer} may not prune; root, the daemon's user and members of control.group may")

    def _plan(self, view: TablesView, options: pruning.PruneOptions) -> replies.PruneReply:
        settings = self._settings()
        plan = pruning.plan_prune(view, settings, options)
        self._plans[plan.plan_id] = plan
        while len(self._plans) > _MAX_PLANS:
            self._plans.popitem(last=False)
        return pruning.preview(settings, plan, self._may_continue)

    def _apply(self, plan: PrunePlan, peer: Peer) -> replies.PruneReply:
        if not self._pruning.acquire(blocking=False):
            raise Busy("another prune is running; try again when it is done")
        try:
            _log.warning("prune begins plan=%s files=%d %s", plan.plan_id, len(plan.files), peer)
            reply = pruning.apply(
                self._settings(), plan, self._may_continue, lambda line: _log.info("%s by %s", line, peer)
            )
        finally:
            self._pruning.release()
        self._plans.pop(plan.plan_id, None)
        gone = [item.path for item in (*reply.files, *reply.folders)]
        self._post(messages.PrunedNotice(tuple({path.rpartition("/")[0] for path in gone})))
        return reply

    def _may_continue(self) -> None:
        reply: Future[Any] = Future()
        self._post(messages.SnapshotRequest(reply))
        reply.result()


def create_app(desk: Desk) -> FastAPI:
    """Make the control API; its description is at ``/openapi.json``."""
    app = FastAPI(
        title="alfwatchd control API",
        version=alfwatchd.__version__,
        docs_url=None,
        redoc_url=None,
        responses={
            status.value: {"model": ErrorReply, "description": status.phrase}
            for status in sorted({*_STATUS_OF.values(), HTTPStatus.UNPROCESSABLE_ENTITY})
        },
    )
    app.add_exception_handler(AlfwatchdError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_error)

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
    """

    def __init__(self, app: FastAPI, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=_PeerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=5,
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
        """Answer what was asked, then end."""
        self._server.should_exit = True
        self._thread.join()


class _QuietServer(uvicorn.Server):
    """Leaves signals to the daemon's main thread."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


class _PeerProtocol(H11Protocol):
    """Puts the peer's credentials where the application finds its client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        connection = transport.get_extra_info("socket")
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.client = (json.dumps(struct.unpack("3i", packed)), 0)


def listen(path: Path, group: str) -> socket.socket:
    """Make the control socket: for its owner, and for `group` if one is set.

    A socket that nobody serves is replaced; the caller holds the lock on the output folder.

    Raises
    ------
    Locked
        Another daemon serves this socket.
    AlfwatchdError
        The socket cannot be made.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_served(path):
            raise Locked(f"{path}: another daemon serves this socket; give this one its own with --socket")
        path.unlink(missing_ok=True)
        old_mask = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(old_mask)
        if group:
            os.chown(path, -1, _gid(group))
            path.chmod(0o660)
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise AlfwatchdError(f"{path}: cannot make the control socket ({error.strerror}); set --socket") from error
    except AlfwatchdError:
        listening.close()
        raise
    return listening


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except TimeoutError:
            return True
        except OSError:
            return False
        return True


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise errors.ConfigError(f"control.group: there is no group {group!r} on this machine") from error


def _peer(request: Request) -> Peer:
    assert request.client is not None
    return Peer(*json.loads(request.client.host))


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


def _json_error(kind: str, message: str, status: HTTPStatus, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": kind, "message": message}, status, headers=headers)
