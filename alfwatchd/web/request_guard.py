"""Reads the body of a request before the application does, and refuses one that is too long, too slow or unclear."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alfwatchd.web import connections
from alfwatchd.web.connections import json_error

MAX_BODY_BYTES = 1 << 16
"""The longest body of a request."""


class RequestGuard:
    """Middleware: the application gets requests whose whole body is there, and is short, unambiguous JSON.

    If the client disconnects, the application is cancelled.

    Parameters
    ----------
    app : ASGI application
    takes_query : callable
        Tells whether the requests to a path may have a query, behind a ``?``.
    """

    def __init__(self, app: ASGIApp, takes_query: Callable[[str], bool] = lambda _: False) -> None:
        self._app = app
        self._takes_query = takes_query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or have the application answer it."""
        try:
            async with asyncio.timeout(connections.REQUEST_SECONDS):
                body = await _read_body(receive)
        except TimeoutError:
            await json_error("UsageError", connections.TOO_SLOW, HTTPStatus.REQUEST_TIMEOUT)(scope, receive, send)
            return
        if body is None:
            return
        if len(body) > MAX_BODY_BYTES:
            message = f"the request has more than {MAX_BODY_BYTES} bytes; no request of this API needs so many"
            await json_error("UsageError", message, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)(scope, receive, send)
            return
        if mistake := self._find_mistake(scope, body):
            await json_error("UsageError", mistake, HTTPStatus.BAD_REQUEST)(scope, receive, send)
            return
        # `curl -d` says that it sends a form.
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        scope["headers"] = [*headers, (b"content-type", b"application/json")]
        has_begun = False

        async def send_noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._answer(scope, body, receive, send_noted)
        except asyncio.CancelledError:
            if not has_begun:
                message = "the daemon is stopping; ask again when it is back"
                await json_error("AlfwatchdError", message, HTTPStatus.INTERNAL_SERVER_ERROR)(scope, receive, send)

    def _find_mistake(self, scope: Scope, body: bytes) -> str:
        query = scope["query_string"]
        if query and not self._takes_query(scope["path"]):
            return (
                "parameters belong into the body, as a JSON object, not behind the path; GET /openapi.json lists them"
            )
        return _find_mistake_in_query(query) or _find_mistake_in_body(body)

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Have the application answer, unless the client disconnects first."""
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
    """Return the whole body, or the start of one that is too long; None if the client disconnected."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY_BYTES or not message.get("more_body", False):
            return body


async def _disconnected(receive: Receive) -> Message:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message


def _find_mistake_in_query(query: bytes) -> str:
    """Return what is wrong with any such query, or an empty string. Nothing is guessed: a guess may be wrong."""
    if not query:
        return ""
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=100
        )
        names = _unique(pairs)
        empty = [name for name, value in names.items() if not name or not value]
    except ValueError as error:
        return f"what stands behind the ? should be name=value pairs with & between them: {error}"
    return f"behind the ?, {empty[0] or 'a name'} is empty; leave it out" if empty else ""


def _find_mistake_in_body(body: bytes) -> str:
    """Return what is wrong with any such body, or an empty string."""
    try:
        if body:
            json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        return "the body is not JSON that this API accepts: it is nested too deeply"
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
