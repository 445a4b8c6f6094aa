"""The header `Alfwatchd-Root` of the control API: which root a request means, and which one is kept here."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Header, Request, Response

from alfwatchd.errors import UsageError
from alfwatchd.web.control_service import ControlService
from alfwatchd.web.wanted_root import HEADER, encode_root

_MEANING = (
    "Which root is meant: its absolute path, percent-encoded. A daemon that keeps another one refuses. "
    "Required for all that changes something below /v1/prune, and for accept_root."
)


def make_root_check(service: ControlService) -> Callable[..., Awaitable[None]]:
    """Return what each request goes through: one that names another root than the desk's raises `WrongRoot`."""

    async def check(
        request: Request,
        response: Response,
        _: Annotated[str | None, Header(alias=HEADER, description=_MEANING)] = None,
    ) -> None:
        named = request.headers.getlist(HEADER)
        if len(named) > 1:
            raise UsageError(f"{HEADER} is given twice; a request means one root")
        for value in named:
            await service.check_root(value.encode("latin-1"))
        response.headers[HEADER] = encode_root(os.fsencode(service.root))

    return check


async def require_root_to_change(request: Request) -> None:
    """Refuse a request that changes something and names no root; a declaration for all that lies below a path."""
    if request.method not in ("GET", "HEAD"):
        require_root(request)


def require_root(request: Request) -> None:
    """Refuse a request that names no root.

    Raises
    ------
    UsageError
        Says how to name it.
    """
    if HEADER not in request.headers:
        raise UsageError(
            f"{request.method} {request.url.path}: which root is meant? Send its absolute path, percent-encoded, in a "
            f"header: curl -H '{HEADER}: /data/root' ...; GET /v1/status tells which one is kept here"
        )
