"""A bucket in S3 as a target.

Each write has a condition that the server checks: ``If-None-Match: *`` or ``If-Match: ETag``. A server that makes no
conditional writes is noticed before the first write; there, the condition is checked just before each write.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from alfwatchd.alf.file_names import TABLES, ZIP
from alfwatchd.errors import TargetChanged, TargetError
from alfwatchd.publish.s3_reasons import CHANGED, MISSING, Reason
from alfwatchd.publish.s3_server import S3Failure, S3Server
from alfwatchd.publish.target import Token

CONNECT_SECONDS, READ_SECONDS, REQUEST_SECONDS = 10.0, 60.0, 900.0
"""Time-outs in seconds, for connecting, between two bytes, and for a whole request: a dead server ends an attempt."""
PROBE = ".publishing.probe"
"""Key of the write that tells whether a server knows conditions; where it does, no such object is ever made."""
MOST_BYTES = 5 << 30
"""What S3 takes in one request."""
_NO_ETAG = '"00000000000000000000000000000000"'
_KINDS = {".zip": "application/zip", ".json": "application/json"}
_log = logging.getLogger(__name__)


class S3Target:
    """Objects in a bucket. Connects at the first request.

    Parameters
    ----------
    target : str
        ``s3://bucket`` or ``s3://bucket/prefix``.
    tag : str
        Prefix below that for all objects; empty for none.
    endpoint : str
        Address of the server; empty for the one in the environment or in ``~/.aws``, else Amazon's.
    region : str
        Region of the bucket, as the server calls it; empty likewise, else ``us-east-1``.
    connect_seconds, read_seconds : float
        Time-outs in seconds, for connecting, and for the pause between two pieces of an answer.
    request_seconds : float
        Time-out in seconds for a whole request with all its tries.

    Attributes
    ----------
    address : str
        The target with its tag, for messages.
    location : str
        Address at which clients that may read the bucket find it.

    Raises
    ------
    ConfigError
        botocore is not installed, or a credential cannot be read.
    TargetError
        The settings, those in ``~/.aws`` included, make no sense.
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
        bucket, _, path = target.partition("://")[2].partition("/")
        prefix = path.strip("/")
        self._prefix = "".join(f"{part}/" for part in (prefix, tag) if part)
        self.address = target + (f"/{tag}" if tag else "")
        try:
            self._server = S3Server(
                bucket, endpoint, region,
                connect_seconds=connect_seconds, read_seconds=read_seconds, request_seconds=request_seconds,
            )  # fmt: skip
        except S3Failure as failure:
            raise TargetError(f"{self.address}: {failure}") from None
        self.location = _public_address(bucket, self._prefix.rstrip("/"), self._server.address)
        self._has_conditions: bool | None = None
        self._is_bare = False  # the server wants conditions without quotation marks

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
                size = int(self._head(key, "ContentLength"))
                yield _Tail(lambda start: self._ask("get_object", key, Range=f"bytes={start}-")["Body"], size)
            else:
                yield BytesIO(self._ask("get_object", key)["Body"])
        except _Missing as error:
            raise TargetChanged(f"{self.address}/{key}: it was removed just now; try again") from error

    def create(self, key: str, content: BinaryIO) -> None:
        """See `Target`."""
        self._put(key, content, None)

    def replace(self, key: str, content: BinaryIO, token: Token | None) -> None:
        """See `Target`."""
        self._put(key, content, token)

    def generations(self) -> set[str]:
        """See `Target`."""
        # Not the common prefixes: some servers keep empty folders, which would be removed again and again.
        above = f"{self._prefix}{TABLES}/"
        zips = re.compile(re.escape(above) + r"([^/]+)/" + re.escape(ZIP))
        found: set[str] = set()
        more: dict[str, str] = {}
        while True:
            with self._failures(TABLES):
                answer = self._server.ask("list_objects_v2", Prefix=above, **more)
            matches = (zips.fullmatch(each["Key"]) for each in answer.get("Contents", ()))
            found |= {match[1] for match in matches if match}
            if not answer.get("NextContinuationToken"):
                return found
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def remove(self, generation: str) -> None:
        """See `Target`."""
        with suppress(_Missing):
            self._ask("delete_object", f"{TABLES}/{generation}/{ZIP}")

    def close(self) -> None:
        """See `Target`."""
        self._server.close()

    def _head(self, key: str, field: str) -> Any:
        with self._failures(key):
            about = self._server.head(self._prefix + key)
        if field not in about:
            raise TargetError(f"{self.address}/{key}: the S3 server sent no {field}; is it an S3 server, or a proxy?")
        return about[field]

    def _put(self, key: str, content: BinaryIO, token: Token | None) -> None:
        if content.seek(0, os.SEEK_END) > MOST_BYTES:
            raise TargetError(f"{self.address}/{key}: S3 takes 5 GB in one request; publish smaller sub-tables")
        if self._has_conditions is None:
            self._has_conditions = self._try_conditions()
        if not self._has_conditions and self.token(key) != token:
            raise self._changed(key)
        try:
            self._write(key, content, token.strip('"') if token and self._is_bare else token)
        except TargetChanged:
            if token is None or self._is_bare or self.token(key) != token:
                raise
        else:
            return
        # The file is unchanged: this server, as Ceph does, compares with the ETag without its quotation marks.
        try:
            self._write(key, content, token.strip('"'))
        except TargetChanged:
            if self.token(key) != token:
                raise
            raise TargetError(
                f"{self.address}/{key}: the S3 server says that it was changed, and shows it unchanged; "
                "its conditional writes do not work"
            ) from None
        self._is_bare = True

    def _write(self, key: str, content: BinaryIO, token: Token | None) -> None:
        condition: dict[str, str] = {}
        if self._has_conditions:
            condition = {"IfNoneMatch": "*"} if token is None else {"IfMatch": token}
        is_immutable = key.startswith(f"{TABLES}/")
        about = {
            "ContentType": _KINDS[key[key.rindex(".") :]],
            "CacheControl": "public, max-age=31536000, immutable" if is_immutable else "no-cache",
        }
        content.seek(0)
        try:
            self._ask("put_object", key, Body=content.read(), **about, **condition)
        except _Missing:  # a server may say so of a condition on a file that was removed
            raise self._changed(key) from None

    def _try_conditions(self) -> bool:
        """Write on a condition that is not met, and return whether the server says so."""
        try:
            self._ask("put_object", PROBE, Body=b"", IfMatch=_NO_ETAG)
        except (TargetChanged, _Missing):
            return True
        except _Refused:
            # If something else is wrong with the request, this fails, too, and says what.
            self._ask("put_object", PROBE, Body=b"")
        with suppress(TargetError):
            self._ask("delete_object", PROBE)
        _log.warning(
            "the S3 server makes no conditional writes: two publishers can overwrite each other's files; "
            "let only one daemon publish there target=%s",
            self.address,
        )
        return False

    def _ask(self, operation: str, key: str, **arguments: Any) -> Mapping[str, Any]:
        if "Body" in arguments:
            # A bucket that keeps each object for a set time (Object Lock) takes no write without this old checksum.
            md5 = hashlib.md5(arguments["Body"], usedforsecurity=False).digest()
            arguments["ContentMD5"] = b64encode(md5).decode()
        with self._failures(key):
            return self._server.ask(operation, Key=self._prefix + key, **arguments)

    @contextmanager
    def _failures(self, key: str) -> Iterator[None]:
        """Turn failures of the server into errors of the target."""
        try:
            yield
        except S3Failure as failure:
            reason = failure.reason
        else:
            return
        if reason.code in CHANGED:
            raise self._changed(key)
        if reason.code in MISSING and key == TABLES:
            raise TargetError(f"{self.address}: {Reason('NoSuchBucket')}")
        kind = _Missing if reason.code in MISSING else _Refused if reason.is_refusal else TargetError
        raise kind(f"{self.address}/{key}: {reason}")

    def _changed(self, key: str) -> TargetChanged:
        return TargetChanged(f"{self.address}/{key}: another publisher has written it meanwhile; try again")


class _Missing(TargetError):
    """There is no such object."""


class _Refused(TargetError):
    """The server does not know what the request asks for."""


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


def _public_address(bucket: str, prefix: str, server: str) -> str:
    """Return the address at which clients that may read the bucket find it."""
    host = urlsplit(server).netloc
    is_amazon = re.fullmatch(r"s3[\w.-]*\.amazonaws\.com(\.cn)?", host)
    base = f"https://{bucket}.{host}" if is_amazon and "." not in bucket else f"{server}/{bucket}"
    return f"{base}/{quote(prefix)}" if prefix else base
