"""Refuses requests of clients that lack the right, and ends answers to those that lose it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alfwatchd.errors import AlfwatchdError, NotAllowed
from alfwatchd.web.control_rights import RULES, ControlRights, Right, Rule
from alfwatchd.web.peer import Peer

LOOK_AGAIN_SECONDS = 1.0
"""A right to read that was checked so long ago is checked again before more is sent."""

_PATTERNS = [(method, compile_path(path)[0], rule) for (method, path), rule in RULES.items()]


class RightsGuard:
    """Middleware: the application gets requests that are in `control_rights.RULES`, from clients that may send them.

    Parameters
    ----------
    app : ASGI application
        Finds the client in ``scope["state"]["peer"]``.
    rights : ControlRights
    refuse : callable
        Makes the answer to a request out of the error that it ends with.
    """

    def __init__(
        self, app: ASGIApp, rights: ControlRights, refuse: Callable[[Request, Exception], Awaitable[Response]]
    ) -> None:
        self._app = app
        self._rights = rights
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or have the application answer it."""
        peer: Peer = scope["state"]["peer"]
        try:
            rule = find_rule(scope["method"], scope["path"])
            await self._rights.check(peer, rule)
            if rule.right is not Right.CONTROL:
                await _Answer(self._rights, peer, rule, send).give(self._app, scope, receive)
            else:
                await self._app(scope, receive, send)
        except (AlfwatchdError, HTTPException) as error:
            response = await self._refuse(Request(scope), error)
            await response(scope, receive, send)


def find_rule(method: str, path: str) -> Rule:
    """Return what a request needs.

    Raises
    ------
    HTTPException
        There is no such request: 404, or 405 if the path has other methods.
    """
    found = {allowed: rule for allowed, pattern, rule in _PATTERNS if pattern.match(path)}
    if not found:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    if method not in found:
        raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(sorted(found))})
    return found[method]


class _Answer:
    """An answer that may take long. It ends if the client loses its right meanwhile."""

    def __init__(self, rights: ControlRights, peer: Peer, rule: Rule, send: Send) -> None:
        self._rights = rights
        self._peer = peer
        self._rule = rule
        self._send = send
        self._looked_at = asyncio.get_running_loop().time()
        self._has_begun = False
        self._is_lost = False

    async def give(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        """Have the application answer; end what it has begun if the right is lost.

        Raises
        ------
        NotAllowed
            The right was lost before the answer began.
        """
        self._answering = asyncio.ensure_future(app(scope, receive, self._send_if_allowed))
        try:
            await self._answering
        except asyncio.CancelledError:
            if not self._is_lost:
                raise
        if self._is_lost and self._has_begun:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        elif self._is_lost:
            raise NotAllowed(f"{self._peer} may not {self._rule.action} any more; ask again to learn why")

    async def _send_if_allowed(self, message: Message) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= LOOK_AGAIN_SECONDS and not self._is_lost:
            self._looked_at = now
            self._is_lost = not await self._rights.check_again(self._peer, self._rule)
        if self._is_lost:
            self._answering.cancel()
        else:
            self._has_begun = True
            await self._send(message)
