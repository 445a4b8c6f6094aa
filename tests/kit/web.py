"""A small web server on loopback that serves files, answers conditional requests, and misbehaves if a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def etag(content: bytes) -> dict[str, str]:
    return {"ETag": f'"{hash(content)}"'}


@dataclass
class Web:
    """What a server serves, and which requests it got.

    Parameters
    ----------
    files : dict
        Path, with the slash -> content; a number is a status to answer, a text is where to redirect.
    """

    files: dict[str, bytes | int | str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and ``Authorization`` of each request."""
    sent: list[int] = field(default_factory=list)
    """Status of each answer."""
    validators: Callable[[bytes], dict[str, str]] = field(default=etag)
    heeds_conditions: bool = True
    cut_short: int = 0
    """Number of bytes that are missing at the end of each answer."""
    salt: str = ""
    """Change it to make all files look new although their content is the same."""
    before: Callable[[str], None] | None = None
    """Called with the path before each answer."""
    address: str = ""


def _handler(web: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            web.asked.append((path, self.headers.get("Authorization")))
            if web.before is not None:
                web.before(path)
            match web.files.get(path, 404):
                case int(status):
                    self._answer(status, {"Content-Length": "0"})
                case str(elsewhere):
                    self._answer(302, {"Location": elsewhere, "Content-Length": "0"})
                case content:
                    self._give(content)

        def _give(self, content: bytes) -> None:
            about = web.validators(content + web.salt.encode())
            wants = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
            is_same = about and all(self.headers.get(wants[name]) == value for name, value in about.items())
            if web.heeds_conditions and is_same:
                self._answer(304, about)
                return
            self._answer(200, {**about, "Content-Length": str(len(content))})
            self.wfile.write(content[: len(content) - web.cut_short])
            self.close_connection = True

        def _answer(self, status: int, headers: dict[str, str]) -> None:
            web.sent.append(status)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def web_server(files: dict[str, bytes | int | str] | None = None) -> Iterator[Web]:
    """Serve files until the context ends."""
    web = Web(files or {})
    with listening(_handler(web)) as web.address:
        yield web


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Have a handler answer at a free port of this machine until the context ends; yield the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
