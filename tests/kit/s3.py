"""A real S3 server on loopback, behind a proxy that tears, slows down and refuses what goes through it."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from alfwatchd.publish.s3 import S3Target

KEY, SECRET, TOKEN = "AKIA7EXAMPLE2KEY1234", "s3cr3tWithSlash/And+Plus0123456789abcdef", "tok3nOfASession0123456789"
_SECONDS = 10.0
_MOST_TRIES = 5


@dataclass(frozen=True)
class Request:
    """One request: its number since the proxy was made, method, path, and all of its bytes."""

    number: int
    method: str
    path: str
    head: bytes
    body: bytes


Fault = Callable[[Request], str]
"""What to do with a request: "" lets it through; "refuse" closes the connection; "busy" answers 503; "torn" cuts it off
in the middle of its body; "untold" lets it through and cuts the connection before the answer; "short" cuts the answer
off in the middle of its body; "hang" never answers; "drip" answers a byte at a time, and never ends; "echo" answers 403
with all that the request held; "bare" answers 200 and nothing else; "unconditional" lets it through without its
conditions; "501 NotImplemented" answers that, and "301 Moved location: http://a" with that header."""
FAULTS = ("refuse", "busy", "torn", "untold", "short", "hang")
"""Those that a server far away may have any day."""


class Proxy:
    """One thread per connection, one request per connection."""

    def __init__(self, port: int) -> None:
        self.fault: Fault = lambda request: ""
        self.requests: list[Request] = []
        self._server_port = port
        self._one_at_a_time = threading.Lock()  # as S3 does: a condition and its write are one
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.is_over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        self.is_over.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(_SECONDS)
            assert not thread.is_alive()

    def _start(self, function: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._start(self._serve, self._listening.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(_SECONDS)
            request = self._read(client)
            if request is not None:
                self._answer(client, request, self.fault(request))

    def _read(self, client: socket.socket) -> Request | None:
        file = client.makefile("rb")
        lines = [file.readline()]
        while lines[-1] not in (b"\r\n", b""):
            lines.append(file.readline())
        if lines[-1] == b"":
            return None
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])
        }
        if headers.get(b"expect", b"").lower() == b"100-continue":
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = file.read(int(headers.get(b"content-length", b"0")))
        method, path, _ = lines[0].decode().split(" ")
        head = b"".join(line for line in lines if not line.lower().startswith((b"expect:", b"connection:")))
        request = Request(
            len(self.requests), method, path, head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), body
        )
        self.requests.append(request)
        return request

    def _answer(self, client: socket.socket, request: Request, fault: str) -> None:
        if fault == "refuse":
            return
        if fault == "hang":
            self.is_over.wait(_SECONDS)
        elif fault == "drip":
            client.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
            while not self.is_over.wait(0.05):
                client.sendall(b"x")
        elif fault == "busy":
            _refuse(client, request, _xml(503, b"SlowDown", b""))
        elif fault == "echo":
            _refuse(client, request, _xml(403, b"AccessDenied", request.head + SECRET.encode()))
        elif fault[:1].isdigit():
            status, code, *header = fault.split(" ", 2)
            _refuse(client, request, _xml(int(status), code.encode(), b"", *(each.encode() for each in header)))
        elif fault == "bare":
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        elif fault == "torn":
            self._ask(request.head + request.body[: len(request.body) // 2])
        else:
            head = request.head
            if fault == "unconditional":
                head = b"".join(line for line in head.splitlines(keepends=True) if not line.lower().startswith(b"if-"))
            answer = self._ask(head + request.body)
            if fault == "short":
                head, _, body = answer.partition(b"\r\n\r\n")
                answer = head + b"\r\n\r\n" + body[: len(body) // 2]
            client.sendall(b"" if fault == "untold" else answer)

    def _ask(self, text: bytes) -> bytes:
        with self._one_at_a_time, socket.create_connection(("127.0.0.1", self._server_port), _SECONDS) as server:
            server.sendall(text)
            server.shutdown(socket.SHUT_WR)
            return server.makefile("rb").read()


def _refuse(client: socket.socket, request: Request, answer: bytes) -> None:
    head, empty, body = answer.partition(b"\r\n\r\n")
    client.sendall(head + empty + (b"" if request.method == "HEAD" else body))


def _xml(status: int, code: bytes, message: bytes, header: bytes = b"x-nothing: 1") -> bytes:
    escaped = message.replace(b"&", b"&amp;").replace(b"<", b"&lt;")
    body = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>%s</Message></Error>" % (code, escaped)
    head = b"HTTP/1.1 %d No\r\nContent-Type: application/xml\r\n%s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, header, len(body)) + body


@dataclass
class S3Box:
    """A bucket of its own, and the proxy in front of the server.

    `read` and `write` ask the server directly, as somebody without credentials would.
    """

    bucket: str
    server: str
    proxy: Proxy

    @property
    def target(self) -> str:
        return f"s3://{self.bucket}/one"

    def read(self, key: str, prefix: str = "one") -> bytes | None:
        """Return what an object holds, or None if there is none.

        moto now and then answers 500 to a reader while another thread replaces the object, so this asks again.
        """
        for n_left in reversed(range(_MOST_TRIES)):
            try:
                return _ask(f"{self.server}/{self.bucket}/{quote(prefix)}/{key}")
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 404:
                    return None
                if error.code != 500 or not n_left:
                    raise
        return None

    def write(self, key: str, content: bytes = b"") -> None:
        _ask(f"{self.server}/{self.bucket}/one/{key}", content)


def _ask(address: str, body: bytes | None = None) -> bytes:
    method = "GET" if body is None else "PUT"
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
        return answer.read()


@contextmanager
def s3_server() -> Iterator[str]:
    """Yield the address of a server; skips where there is none."""
    server_module = pytest.importorskip("moto.server", reason="moto's server is not installed")
    pytest.importorskip("botocore", reason="botocore is not installed")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def s3_box(server: str) -> Iterator[S3Box]:
    """Yield an empty bucket, which everyone may read."""
    bucket = f"box-{uuid.uuid4().hex[:12]}"
    policy = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", '
        '"Action": "s3:GetObject", "Resource": "arn:aws:s3:::%s/*"}]}'
    )
    for query, body in (("", ""), ("?policy", policy % bucket)):
        _ask(f"{server}/{bucket}{query}", body.encode())
    proxy = Proxy(int(server.rpartition(":")[2]))
    try:
        yield S3Box(bucket, server, proxy)
    finally:
        proxy.close()


@contextmanager
def s3_targets(box: S3Box) -> Iterator[Callable[..., S3Target]]:
    """Yield how to connect to a box through its proxy: with a tag, and time-outs."""
    with ExitStack() as stack:

        def connect(tag: str = "", **seconds: float) -> S3Target:
            target = S3Target(box.target, tag, box.proxy.url, "us-east-1", **({"read_seconds": 2.0} | seconds))
            stack.callback(target.close)
            return target

        yield connect
