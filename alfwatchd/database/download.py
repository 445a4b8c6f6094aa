"""Fetches files over HTTP, if they have changed; the only module that asks web servers for tables."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import IO, Any, BinaryIO
from urllib.parse import urlsplit

from alfwatchd.addresses import shown
from alfwatchd.errors import SourceError, SourceMissing, SourceRefused

MOST_BYTES = 1 << 34
"""Largest size of one file: a hundred times that of the tables of the largest databases."""
_CHUNK_BYTES = 1 << 20
SILENCE_SECONDS, MOST_SECONDS = 60.0, 3600.0
"""How long a server may say nothing, and how long a file may take as a whole."""
_FAILURES: Mapping[int, str] = {
    401: "it needs credentials: set a token as the credential adopt_token",
    403: "it refuses access: set a token as the credential adopt_token, if it needs one, and check the address",
    404: "there is no such file: check the address",
    410: "the file is no longer there: check the address",
}
_NOT_ACCEPTED = "it does not accept the token: it may be revoked; give a valid one as the credential adopt_token"


@dataclass(frozen=True, slots=True)
class Version:
    """What tells the content of an address from a later one.

    Parameters
    ----------
    address : str
    etag, modified : str
        What the server said: ``ETag`` and ``Last-Modified``; empty if it says nothing.
    size : int
        Bytes.
    digest : str
        Of the content, in hex.
    """

    address: str
    etag: str
    modified: str
    size: int
    digest: str


def fetch(address: str, into: BinaryIO, known: Version | None, token: str, most_bytes: int = MOST_BYTES) -> Version:
    """Fetch a file, unless it is the one that is known.

    Parameters
    ----------
    address : str
        Begins with ``http://`` or ``https://``.
    into : file
        Gets the content, which counts only if the returned version differs from `known`.
    known : Version or None
        What an earlier call returned.
    token : str
        Sent as ``Authorization: Token`` to this scheme, host and port, and to no server to which they redirect; empty:
        none.
    most_bytes : int
        A larger file is an error.

    Returns
    -------
    Version
        `known` itself if nothing has changed. If the server sends no version, the file is fetched to be compared.

    Raises
    ------
    SourceMissing
        The server answered 403 (then a `SourceRefused`), 404 or 410.
    SourceError
        All else that went wrong. No message holds the query of an address, or the token.
    """
    request = urllib.request.Request(address, headers={"User-Agent": "alfwatchd"})  # noqa: S310  # only HTTP is opened
    if token:
        request.add_unredirected_header("Authorization", f"Token {token}")
    if known is not None and known.address == address:
        for name, value in (("If-None-Match", known.etag), ("If-Modified-Since", known.modified)):
            if value:
                request.add_header(name, value)
    else:
        known = None
    try:
        with _OPENER.open(request, timeout=SILENCE_SECONDS) as response:
            return _receive(response, address, into, known, most_bytes)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 304 and known is not None:
            return known
        kind = {403: SourceRefused, 404: SourceMissing, 410: SourceMissing}.get(error.code, SourceError)
        reason = _FAILURES.get(error.code, "try again later, or check the address")
        if token and error.code in (401, 403):
            reason = _NOT_ACCEPTED
        raise kind(f"{shown(address)}: the server answered {error.code}: {reason}") from None
    except (http.client.HTTPException, OSError, ValueError) as error:
        # None: it may hold the whole address.
        raise SourceError(
            f"{shown(address)}: cannot be fetched: {_reason(error)}; check address, network and disk"
        ) from None


def origin(address: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address: a token is sent only where these three are equal."""
    parts = urlsplit(address)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def _reason(error: Exception) -> str:
    """Return what went wrong; of the errors whose text may hold a whole address, only the kind."""
    said = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(said, OSError):
        return said.strerror or str(said)
    return said if isinstance(said, str) else type(said).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to web servers only, and takes a token along only to the same one."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError("redirected to an address that is not http or https")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if request is not None and token and origin(newurl) == origin(req.full_url):
            request.add_unredirected_header("Authorization", token)
        return request


def _make_opener() -> urllib.request.OpenerDirector:
    """Make what opens HTTP only: `urllib` by itself opens local files, too."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


_OPENER = _make_opener()


def _receive(response: Any, address: str, into: BinaryIO, known: Version | None, most_bytes: int) -> Version:
    """Copy an answer into a file, in bounded size and time; return its version, which may be `known`."""
    etag, modified = (response.headers.get(name) or "" for name in ("ETag", "Last-Modified"))
    length = response.headers.get("Content-Length", "")
    announced = int(length) if length.isdecimal() else None
    if known is not None and (etag or modified) and (etag, modified, announced) == _told(known):
        return known  # by a server that does not heed conditions
    if announced is not None and announced > most_bytes:
        raise SourceError(f"{shown(address)}: has {announced} bytes, more than tables have; check the address")
    digest, size, deadline = hashlib.blake2b(digest_size=16), 0, time.monotonic() + MOST_SECONDS
    while chunk := response.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > most_bytes:
            raise SourceError(
                f"{shown(address)}: has over {most_bytes} bytes, more than tables have; check the address"
            )
        if time.monotonic() > deadline:
            raise SourceError(f"{shown(address)}: not fetched in {MOST_SECONDS:.0f} s; check the network")
        digest.update(chunk)
        into.write(chunk)
    if announced is not None and size != announced:  # `read` with a size does not tell
        raise SourceError(f"{shown(address)}: ended after {size} of {announced} bytes; will be tried again")
    if known is not None and not etag and not modified and known.digest == digest.hexdigest():
        return known
    return Version(address, etag, modified, size, digest.hexdigest())


def _told(version: Version) -> tuple[str, str, int]:
    return version.etag, version.modified, version.size
