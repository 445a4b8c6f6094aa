"""A bucket in S3 as a target; the only importer of s3fs.

Each write has a condition that the server checks: ``If-None-Match: *`` or ``If-Match: ETag``. Of a server's answer only
the error code is passed on, because the answer may repeat parts of the request, and so a secret.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from alfwatchd import credentials
from alfwatchd.alf.file_names import TABLES, ZIP
from alfwatchd.errors import ConfigError, TargetChanged, TargetError
from alfwatchd.publish.target import Token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONNECT_SECONDS, READ_SECONDS, REQUEST_SECONDS = 10.0, 60.0, 900.0
"""Time-outs in seconds, for connecting, between two bytes, and for a whole request: a dead server ends an attempt."""
CREDENTIALS = {"key": "access_key_id", "secret": "secret_access_key", "token": "session_token"}
"""Argument of `s3fs.S3FileSystem` -> name of a credential, after ``aws_``; see `credentials.find`."""
_TRIES = 2
_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_MISSING = {"NoSuchKey", "NotFound", "404"}
_KINDS = {".zip": "application/zip", ".json": "application/json"}
_TALKATIVE = ("s3fs", "fsspec", "botocore", "aiobotocore", "aiohttp")


class S3Target:
    """Objects in a bucket. Connects at the first request.

    Parameters
    ----------
    target : str
        ``s3://bucket`` or ``s3://bucket/prefix``.
    tag : str
        Prefix below that for all objects; empty for none.
    endpoint : str
        Address of the server; empty for Amazon's, or the one in the environment.
    region : str
        Empty for the one in the environment.
    connect_seconds, read_seconds, request_seconds : float
        Time-outs, see `CONNECT_SECONDS`.

    Raises
    ------
    ConfigError
        s3fs is not installed, or a credential cannot be read.
    """

    def __init__(
        self,
        target: str,
        tag: str = "",
        endpoint: str = "",
        region: str = "",
        *,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self._bucket, _, path = target.partition("://")[2].partition("/")
        prefix = path.strip("/")
        self._prefix = "".join(f"{part}/" for part in (prefix, tag) if part)
        self.address = target + (f"/{tag}" if tag else "")
        self.location = _public_address(self._bucket, self._prefix.rstrip("/"), endpoint, region)
        self._request_seconds = request_seconds
        self._files = _connect(endpoint, region, connect_seconds, read_seconds)

    def token(self, key: str) -> Token | None:
        """See `Target`."""
        try:
            return str(self._head(key, "ETag"))
        except _Missing:
            return None

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """See `Target`. Reads the whole file, but only the end of a zip."""
        try:
            if key.endswith(".zip"):
                yield _Tail(partial(self._read, key), int(self._head(key, "ContentLength")))
            else:
                yield BytesIO(self._read(key))
        except _Missing as error:
            raise TargetChanged(f"{self.address}/{key}: it was removed just now; try again") from error

    def create(self, key: str, content: BinaryIO) -> None:
        """See `Target`."""
        self._put(key, content, {"IfNoneMatch": "*"})

    def replace(self, key: str, content: BinaryIO, token: Token | None) -> None:
        """See `Target`."""
        self._put(key, content, {"IfNoneMatch": "*"} if token is None else {"IfMatch": token})

    def generations(self) -> set[str]:
        """See `Target`."""
        above = f"{self._prefix}{TABLES}/"
        found: set[str] = set()
        more: dict[str, str] = {}
        while True:
            answer = self._call(TABLES, "list_objects_v2", Prefix=above, Delimiter="/", **more)
            found |= {each["Prefix"][len(above) :].rstrip("/") for each in answer.get("CommonPrefixes", ())}
            if not answer.get("NextContinuationToken"):
                return found
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def remove(self, generation: str) -> None:
        """See `Target`."""
        key = f"{TABLES}/{generation}/{ZIP}"
        with suppress(_Missing):
            self._call(key, "delete_object", Key=self._prefix + key)

    def close(self) -> None:
        """See `Target`."""
        # s3fs closes connections in its own thread; without a session there are none.
        with suppress(Exception):
            self._files.close_session(self._files.loop, self._files.s3)

    def _head(self, key: str, field: str) -> Any:
        about = self._call(key, "head_object", Key=self._prefix + key)
        if field not in about:
            raise TargetError(f"{self.address}/{key}: the S3 server sent no {field}; is it an S3 server, or a proxy?")
        return about[field]

    def _read(self, key: str, start: int | None = None) -> bytes:
        part = {} if start is None else {"Range": f"bytes={start}-"}

        async def read() -> bytes:
            answer = await self._files._call_s3(  # noqa: SLF001 - all its methods call this one
                "get_object", Bucket=self._bucket, Key=self._prefix + key, **part
            )
            async with answer["Body"] as body:
                return bytes(await body.read())

        content: bytes = self._run(key, read)
        return content

    def _put(self, key: str, content: BinaryIO, condition: Mapping[str, str]) -> None:
        content.seek(0)
        is_immutable = key.startswith(f"{TABLES}/")
        about = {
            "ContentType": _KINDS[key[key.rindex(".") :]],
            "CacheControl": "public, max-age=31536000, immutable" if is_immutable else "no-cache",
        }
        self._call(key, "put_object", Key=self._prefix + key, Body=content.read(), **about, **condition)

    def _call(self, key: str, method: str, **arguments: Any) -> Mapping[str, Any]:
        async def call() -> Mapping[str, Any]:
            return await self._files._call_s3(method, Bucket=self._bucket, **arguments)  # type: ignore[no-any-return]  # noqa: SLF001

        answer: Mapping[str, Any] = self._run(key, call)
        return answer

    def _run(self, key: str, function: Callable[[], Any]) -> Any:
        from fsspec.asyn import sync

        try:
            return sync(self._files.loop, function, timeout=self._request_seconds)
        except Exception as error:  # noqa: BLE001 - of botocore, aiohttp, asyncio, s3fs; all mean the same
            code = _code(error)
        # Not inside the `except`: the error would carry its cause, which may hold a secret.
        where = f"{self.address}/{key}"
        if code in _CHANGED:
            raise TargetChanged(f"{where}: another publisher has written it meanwhile; try again")
        if code in _MISSING:
            raise _Missing(f"{where}: there is no such object")
        raise TargetError(f"{where}: the S3 server cannot be used ({code}); check endpoint, bucket and credentials")


class _Missing(TargetError):
    """There is no such object."""


class _Tail(BytesIO):
    """The last MiB of a remote zip, where its directory and its last entry are; offsets are those of the whole file.

    Parameters
    ----------
    read : callable
        Reads from an offset to the end.
    size : int
        Size of the whole file in bytes.
    """

    def __init__(self, read: Callable[[int], bytes], size: int) -> None:
        start = max(0, size - (1 << 20))
        end = read(start) if size else b""
        self._start, self._size = start, start + len(end)
        super().__init__(end)

    def seek(self, offset: int, whence: int = 0) -> int:
        place = offset + (0, self.tell(), self._size)[whence]
        if place < self._start:
            raise EOFError("before what was read of the file")
        return super().seek(place - self._start) + self._start

    def tell(self) -> int:
        return super().tell() + self._start


def check_installed() -> None:
    """Raise `ConfigError` if s3fs is not installed, or a credential cannot be read."""
    if find_spec("s3fs") is None:
        raise ConfigError("targets in S3 need s3fs: pip install 'alfwatchd[s3]'")
    _find_credentials()


def _find_credentials() -> dict[str, str]:
    found = {name: credentials.find(f"aws_{long}") for name, long in CREDENTIALS.items()}
    return {name: value for name, value in found.items() if value}


def _connect(endpoint: str, region: str, connect_seconds: float, read_seconds: float) -> Any:
    """Return an s3fs file system of its own, without any cache."""
    check_installed()
    import s3fs

    for name in _TALKATIVE:  # at the level `debug` they log requests with their signatures
        logging.getLogger(name).setLevel(logging.CRITICAL)
    client = {name: value for name, value in (("endpoint_url", endpoint), ("region_name", region)) if value}
    files = s3fs.S3FileSystem(
        **_find_credentials(),
        client_kwargs=client,
        config_kwargs={
            "connect_timeout": connect_seconds,
            "read_timeout": read_seconds,
            "retries": {"total_max_attempts": 1},
        },
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    files.retries = _TRIES
    return files


def _code(error: BaseException) -> str:
    """Return what failed in a word that cannot hold a secret: a code of S3, a status of HTTP, or a type of error."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            code = str(response.get("Error", {}).get("Code", ""))
            if re.fullmatch(r"\d{3}|[A-Z][A-Za-z]{2,39}", code):
                return code
            return str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", "no answer that makes sense"))
        cause = cause.__cause__
    if isinstance(error, asyncio.TimeoutError | TimeoutError):
        return "no answer in time"
    return type(error).__name__


def _public_address(bucket: str, prefix: str, endpoint: str, region: str) -> str:
    """Return the address at which clients that may read the bucket find it."""
    if endpoint:
        base = f"{endpoint}/{bucket}"
    else:
        base = f"https://{bucket}.s3.{region}.amazonaws.com" if region else f"https://{bucket}.s3.amazonaws.com"
    return f"{base}/{quote(prefix)}" if prefix else base
