"""The site that gives tables to remote ONE clients: it answers a stock `OneAlyx` client as an Alyx database would.

The contract is that of ``one.webclient.AlyxClient.authenticate`` and ``one.api.OneAlyx.load_cache``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import hmac
import ipaddress
import json
import logging
import os
import re
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from alfwatchd.alf.printable import printable
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.files import NotRegular, open_regular_fd
from alfwatchd.publish.cache_info import MOST_INFO_BYTES, parse_info
from alfwatchd.web import connections
from alfwatchd.web.connections import Protocol
from alfwatchd.web.daemon_metrics import DaemonMetrics

_log = logging.getLogger(__name__)

INFO = "cache_info.json"
ZIP = "cache.zip"
OPEN_TOKEN = "none-needed"  # noqa: S105 - opens nothing
"""The token that every login gets if the site has none."""

_PATH = re.compile(r"/(?:(?P<tag>[\w.-]+)/)?(?:tables/(?P<generation>(?!\.)[\w.-]+)/)?cache\.zip")
_INFO_PATH = re.compile(r"/cache/info(?:/(?P<tag>[\w.-]+))?/?")
_LOCATION = re.compile(r"(?:tables/[\w.-]+/)?cache\.zip$")
_HOST = re.compile(r"(?P<name>[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
_MOST_BODY_BYTES = 1 << 13
_CHUNK_BYTES = 1 << 18
LEAST_BYTES = 1 << 16
"""A client that reads less of an answer in `connections.ANSWER_SECONDS` is dropped."""
_RETRY_SECONDS = 5
_SELDOM_SECONDS = 30.0
_BYTES_ACKED = 120
"""Offset of ``tcpi_bytes_acked`` in ``struct tcp_info`` of <linux/tcp.h>, unsigned and 64 bits wide."""

_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG)
"""Errors of open(2): no such file, a file instead of a folder, a symbolic link, a socket, an impossible name."""

_ABOUT = (
    "these are only the tables, not a database: ask with mode='local' or query_type='local'. "
    "There is POST /auth-token, GET /cache/info, /cache/info/TAG, /cache.zip and /metrics"
)


class _Refused(Exception):
    """A request is refused; holds the answer."""

    def __init__(self, status: HTTPStatus, content: str | Mapping[str, Any], **headers: str) -> None:
        super().__init__(status, content)
        self.response = _json({"detail": printable(content)} if isinstance(content, str) else content, status)
        self.response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})


def _json(content: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> JSONResponse:
    return JSONResponse(content, status, headers={"cache-control": "no-store"})


class _Seldom:
    """Logs messages that any client can cause, each at most every 30 s."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def log(self, level: int, message: str, *values: object) -> None:
        """Log a message, unless it was logged in the last 30 s."""
        now = time.monotonic()
        if now - self._told.get(message, -_SELDOM_SECONDS) >= _SELDOM_SECONDS:
            self._told[message] = now
            _log.log(level, message, *values)


@dataclass(frozen=True, slots=True)
class Site:
    """Which tables are served, and to which clients: an ASGI application.

    Parameters
    ----------
    folder : Path
        Holds ``cache_info.json``, ``cache.zip`` and ``tables/<generation>/cache.zip``, and the same below ``<tag>/``
        for each tag. Each file is replaced by renaming, never changed. Symbolic links are not followed.
    tags : frozenset of str
        Tags that are served; other folders are not.
    base_url : str
        Address under which clients reach the site, without a slash at the end; empty: the address that they ask.
    token : str or None
        Password of every user, and token of every request; None: clients need neither.
    is_private : bool
        Whether only this machine may reach the site. Requests under a foreign name are refused then, because a page in
        a browser of this machine could send them.
    metrics : DaemonMetrics or None
        Answers ``/metrics``; None: there is no such path.
    """

    folder: Path
    tags: frozenset[str] = frozenset()
    base_url: str = ""
    token: str | None = None
    is_private: bool = False
    metrics: DaemonMetrics | None = None
    _seldom: _Seldom = field(default_factory=_Seldom, repr=False, compare=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        response: Response | _Zip
        try:
            response = await self._answer(request)
        except _Refused as refused:
            response = refused.response
        except ClientDisconnect:
            return
        except OSError as error:
            # No client can cause this: there are too many open files, or the disk fails.
            self._seldom.log(logging.ERROR, "a request cannot be answered path=%s error=%s", scope["path"][:200], error)
            detail = "the tables cannot be read at the moment; the server's log says why"
            response = _Refused(HTTPStatus.SERVICE_UNAVAILABLE, detail, retry_after=str(_RETRY_SECONDS)).response
        status = response.status_code
        client = (scope.get("client") or ("?",))[0]
        path = printable(scope["path"][:200])
        _log.debug("request client=%s method=%s path=%s status=%d", client, request.method, path, status)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response | _Zip:
        host = self._check_host(request.headers.get("host", ""))
        # If the client's address of this site ends in a slash, the path begins with two.
        path = "/" + request.scope["path"].lstrip("/")
        if path.rstrip("/") == "/auth-token":
            _check_method(request, path, "POST")
            return await self._log_in(request)
        self._check_token(request.headers.get("authorization", ""))
        if path.rstrip("/") == "/metrics" and self.metrics is not None:
            _check_method(request, path, "GET", "HEAD")
            return await self.metrics.answer(request)
        if found := _INFO_PATH.fullmatch(path):
            _check_method(request, path, "GET", "HEAD")
            return await asyncio.to_thread(self._tell_info, request, self._check_tag(found["tag"]), host)
        if found := _PATH.fullmatch(path):
            _check_method(request, path, "GET", "HEAD")
            return await asyncio.to_thread(
                self._open_zip, request, self._check_tag(found["tag"]), found["generation"] or ""
            )
        raise _Refused(HTTPStatus.NOT_FOUND, f"{request.method} {path[:200]}: {_ABOUT}")

    # Which clients are answered.

    def _check_host(self, host: str) -> str:
        """Return the Host header of a request if it is a host and a port, and may be used."""
        found = _HOST.fullmatch(host)
        if not found:
            raise _Refused(
                HTTPStatus.BAD_REQUEST, "the Host header should be a name or an address, with or without a port"
            )
        name = found["name"].lower().rstrip(".")
        if self.is_private and not _is_local(name) and name != urlsplit(self.base_url).hostname:
            raise _Refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"{name} is not a name of this server, which listens to its own machine only: ask localhost, or set "
                "serve.base_url to the address that clients use",
            )
        return host

    async def _log_in(self, request: Request) -> Response:
        """Answer as Django REST framework's `obtain_auth_token` does."""
        given = await _read_form(request)
        if self.token is not None:
            if not given.get("password"):
                raise _Refused(HTTPStatus.BAD_REQUEST, {"password": ["This field is required."]})
            if not _is_same(given["password"], self.token):
                client = (request.scope.get("client") or ("?",))[0]
                self._seldom.log(logging.WARNING, "login refused client=%s", client)
                reason = "Unable to log in with provided credentials."
                raise _Refused(HTTPStatus.BAD_REQUEST, {"non_field_errors": [reason]})
        return _json({"token": self.token or OPEN_TOKEN})

    def _check_token(self, authorization: str) -> None:
        """Refuse as Alyx does: only with exactly these words and this status, the client logs in again."""
        if self.token is None:
            return
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "token":
            raise _Refused(HTTPStatus.FORBIDDEN, "Authentication credentials were not provided.")
        if not _is_same(given.strip(), self.token):
            raise _Refused(HTTPStatus.FORBIDDEN, "Invalid token.")

    def _check_tag(self, tag: str | None) -> str:
        if tag and tag not in self.tags:
            raise _Refused(HTTPStatus.NOT_FOUND, f"there are no tables with the tag {tag[:200]!r}")
        return tag or ""

    # What clients get.

    def _tell_info(self, request: Request, tag: str, host: str) -> Response:
        file = self._open(tag, INFO)
        info = {}
        if file is not None:
            with os.fdopen(file, "rb") as opened:
                info = parse_info(opened.read(MOST_INFO_BYTES))
        if not info:
            detail = "there are no tables yet; try again in a few seconds"
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, detail, retry_after=str(_RETRY_SECONDS))
        found = _LOCATION.search(str(info.get("location", "")))
        # Below the address that the client uses: it sends its token to no other address.
        parts = [self.base_url or f"http://{host}", tag, found[0] if found else ZIP]
        body = json.dumps(info | {"location": "/".join(filter(None, parts))}, ensure_ascii=False).encode()
        headers = {"etag": _etag(body), "cache-control": "no-cache", "vary": "Host, Authorization"}
        if _has(request, headers["etag"]):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(body, headers=headers, media_type="application/json")

    def _open_zip(self, request: Request, tag: str, generation: str) -> Response | _Zip:
        file = self._open(tag, *(("tables", generation) if generation else ()), ZIP)
        if file is None:
            detail = "these tables do not exist, or no longer; GET /cache/info tells where the present tables are"
            raise _Refused(HTTPStatus.NOT_FOUND, detail)
        about = os.fstat(file)
        etag = _etag(f"{about.st_dev} {about.st_ino} {about.st_size} {about.st_mtime_ns}".encode())
        headers = {"etag": etag, "cache-control": "no-cache", "vary": "Authorization"}
        if _has(request, etag):
            os.close(file)
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return _Zip(file, about.st_size, headers)

    def _open(self, *names: str) -> int | None:
        """Open a file below the folder, one name after the other; return None if there is no such regular file."""
        folder = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        *above, last = filter(None, names)
        try:
            for name in above:
                inner = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                os.close(folder)
                folder = inner
            return open_regular_fd(last, dir_fd=folder, follow_links=False)
        except NotRegular:
            return None
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        finally:
            os.close(folder)


class _Zip:
    """An open file as an answer. The client gets all of it, even if another file takes its name meanwhile.

    Parameters
    ----------
    file : int
        Descriptor; this closes it.
    size : int
        Bytes.
    headers : mapping of str to str
    """

    status_code = HTTPStatus.OK

    def __init__(self, file: int, size: int, headers: Mapping[str, str]) -> None:
        self._file = file
        self._size = size
        self._headers = {**headers, "content-type": "application/zip", "content-length": str(size)}

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Send the file as fast as the client reads, until the client disconnects or the server ends."""
        connection: PublicProtocol = scope["state"]["connection"]
        n_left = 0 if scope["method"] == "HEAD" else self._size
        try:
            headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
            await send({"type": "http.response.start", "status": int(self.status_code), "headers": headers})
            while n_left and not connection.transport.is_closing():
                chunk = await asyncio.to_thread(os.pread, self._file, min(n_left, _CHUNK_BYTES), self._size - n_left)
                if not chunk:
                    raise OSError(errno.EIO, "the file became shorter; replace served files, never change them")
                n_left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": n_left > 0})
            if scope["method"] == "HEAD" or not self._size:
                await send({"type": "http.response.body", "body": b""})
        except OSError as error:
            _log.error("an answer was not sent completely path=%s error=%s", scope["path"], error)
        except asyncio.CancelledError:
            _log.info("the server ended before an answer was sent completely path=%s", scope["path"])
        finally:
            os.close(self._file)
        if n_left:  # uvicorn expects the application to return only after the connection was lost
            connection.drop()
            with contextlib.suppress(asyncio.CancelledError):
                await connection.lost.wait()


class PublicProtocol(Protocol):
    """A connection from any machine; its answer may be large, and its network slow."""

    hint = _ABOUT
    _n_acked = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is lost."""
        super().connection_lost(exc)
        self.lost.set()

    def describe(self) -> dict[str, Any]:
        """Return what the application finds in `request.state`: this connection, to end it early."""
        return {"connection": self}

    def make_error(self, _: str, message: str, status: HTTPStatus) -> JSONResponse:
        """Return an answer in the form of the application's."""
        return _Refused(status, message).response

    def has_stalled(self, unread_seconds: float) -> bool:
        """Tell whether the client reads too slowly. A large answer may take long, as long as it proceeds."""
        if unread_seconds < connections.ANSWER_SECONDS:
            return False
        about = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
        (n_acked,) = struct.unpack_from("Q", about, _BYTES_ACKED)
        n_new, self._n_acked = n_acked - self._n_acked, n_acked
        self._unread_seconds = 0.0
        return bool(n_new < LEAST_BYTES)


def _check_method(request: Request, path: str, *allowed: str) -> None:
    if request.method not in allowed:
        detail = f"{request.method} {path[:200]}: should be {' or '.join(allowed)}"
        raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, detail, allow=", ".join(allowed))


async def _read_form(request: Request) -> dict[str, str]:
    """Return the fields of a login, sent as a form or as JSON."""
    body = b""
    try:
        async with asyncio.timeout(connections.REQUEST_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > _MOST_BODY_BYTES:
                    detail = "the login is too long: it needs a user name and a password only"
                    raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
    except TimeoutError as error:
        raise _Refused(HTTPStatus.REQUEST_TIMEOUT, connections.TOO_SLOW) from error
    try:
        text = body.decode()
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return dict(parse_qsl(text, max_num_fields=10))
        given = parse_json(text or "{}")
        return {name: value for name, value in given.items() if isinstance(value, str)}
    except (ValueError, AttributeError) as error:
        detail = "the login should be a form or a JSON object with username and password"
        raise _Refused(HTTPStatus.BAD_REQUEST, detail) from error


def _is_same(given: str, token: str) -> bool:
    """Compare two texts in a time that does not depend on how similar they are."""
    first, second = (hashlib.sha256(text.encode(errors="surrogatepass")).digest() for text in (given, token))
    return hmac.compare_digest(first, second)


def _is_local(name: str) -> bool:
    """Tell whether a host is an address, or a name that always means this machine."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    return True


def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _has(request: Request, etag: str) -> bool:
    """Tell whether the client has this version already (RFC 9110, If-None-Match, weak comparison)."""
    given = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    return etag in given or given == ["*"]
