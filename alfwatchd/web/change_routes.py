"""The routes of the change feed. All who may read what the daemon knows may use them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from alfwatchd.changes import ChangesReply
from alfwatchd.errors import UsageError
from alfwatchd.web.change_feed import ChangeFeed
from alfwatchd.web.control_service import ControlService
from alfwatchd.web.request_queries import ChangesQuery, StreamQuery, check_place
from alfwatchd.web.root_header import HEADER, encode_root

EVENTS = "text/event-stream"
_LAST_EVENT_ID = "Last-Event-ID"
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {EVENTS: {"schema": {"type": "string"}}}}}


def _check(last_event_id: str) -> str:
    try:
        return check_place(last_event_id)
    except ValueError as error:
        raise UsageError(f"{_LAST_EVENT_ID}: {error}") from error


class EventStream(Response):
    """An answer that goes on until the client leaves or the server ends."""

    media_type = None  # FastAPI would describe errors with the same one

    def __init__(self, parts: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        super().__init__(headers=headers | {"content-type": EVENTS})
        del self.headers["content-length"]
        self._parts = parts

    async def __call__(self, _: Scope, _receive: Receive, send: Send) -> None:
        """Send each part when it is there. An error before the first part gets an answer of its own."""
        async with aclosing(self._parts) as parts:  # type: ignore[type-var]
            part = await anext(parts)
            await send({"type": "http.response.start", "status": int(HTTPStatus.OK), "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": part, "more_body": True})
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def make_routes(service: ControlService, feed: ChangeFeed) -> APIRouter:
    """Make the routes that tell what changed."""
    routes = APIRouter(prefix="/v1/changes")

    def headers() -> dict[str, str]:
        return {HEADER: encode_root(os.fsencode(service.root)), "cache-control": "no-store"}

    @routes.get("", response_model=ChangesReply)
    async def changes(request: Request, query: Annotated[ChangesQuery, Query()]) -> Response:
        """Which sessions changed since a place in the feed: each once, with its latest state, oldest first."""
        body = await feed.page(query, request.state.peer, request.state.connection)
        return Response(body, media_type="application/json", headers=headers())

    @routes.get("/stream", response_class=EventStream, status_code=HTTPStatus.OK, responses=_STREAM)
    async def stream(
        request: Request,
        query: Annotated[StreamQuery, Query()],
        last_event_id: Annotated[
            str | None,
            Header(alias=_LAST_EVENT_ID, description="Where to go on after a lost connection; goes before `since`."),
        ] = None,
    ) -> EventStream:
        """Each change when it happens, as server-sent events with the place behind it as id."""
        if len(request.headers.getlist(_LAST_EVENT_ID)) > 1:
            raise UsageError(f"{_LAST_EVENT_ID} is given twice")
        if last_event_id:
            query.since = _check(last_event_id)
        return EventStream(feed.events(query, request.state.peer, request.state.connection), headers())

    return routes
