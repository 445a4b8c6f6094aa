"""A served folder of tables on a real TCP socket, and ways to talk to it."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alfwatchd.web.http_server import Server
from alfwatchd.web.tables_site import PublicProtocol, Site
from kit.control import WAIT_SECONDS, open_files, read_all, wait

LOCALHOST = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """Status, headers by lower-case name, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


def ask(port: int, method: str, path: str, body: str | bytes | None = None, **headers: str) -> Answer:
    """Send a request; an underscore in the name of a header stands for a hyphen."""
    connection = http.client.HTTPConnection(LOCALHOST, port, timeout=WAIT_SECONDS)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
    finally:
        connection.close()


class SiteBox:
    """A running site."""

    def __init__(self, site: Site, server: Server, port: int) -> None:
        self.site, self.server, self.port = site, server, port
        self.folder = site.folder

    @property
    def address(self) -> str:
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def connections(self) -> frozenset[PublicProtocol]:
        return self.server.connections  # type: ignore[return-value]

    def ask(self, method: str, path: str, body: str | bytes | None = None, **headers: str) -> Answer:
        return ask(self.port, method, path, body, **headers)

    def connect(self, receive_bytes: int = 0) -> socket.socket:
        connection = socket.socket()
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(WAIT_SECONDS)
        connection.connect((LOCALHOST, self.port))
        return connection

    def exchange(self, *parts: bytes) -> bytes:
        """Send bytes and return all that comes back until the server closes."""
        with self.connect() as connection:
            for part in parts:
                connection.sendall(part)
            return read_all(connection)


@contextmanager
def site_box(site: Site, room: int | None = None) -> Iterator[SiteBox]:
    """Serve on a free port; fail if a descriptor is left open at the end."""
    before = open_files()
    with socket.socket() as listening:
        listening.bind((LOCALHOST, 0))
        server = Server(site, listening, PublicProtocol, room)
        wait(lambda: server.is_listening)
        try:
            yield SiteBox(site, server, listening.getsockname()[1])
        finally:
            server.close()
    assert not server.is_alive
    wait(lambda: open_files().items() <= before.items(), "a descriptor was left open")


def make_zip(content: bytes) -> bytes:
    """Return a zip archive to serve in the place of tables."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("sessions.pqt"), content)
    return packed.getvalue()


def put_tables(folder: Path, content: bytes, generation: str, tag: str = "", base: str = "https://elsewhere") -> None:
    """Publish by hand, as a folder target does: first the archives, then the file that names them."""
    below = folder / tag
    info = {"date_created": f"2024-01-01 00:{len(generation):02d}", "origin": "here"}
    if tag:
        info["database_tags"] = [tag]
    info["location"] = "/".join(filter(None, (base, tag, "tables", generation, "cache.zip")))
    for name, made in (
        (f"tables/{generation}/cache.zip", content),
        ("cache.zip", content),
        ("cache_info.json", json.dumps(info).encode()),
    ):
        place = below / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_suffix(".new").write_bytes(made)
        os.replace(place.with_suffix(".new"), place)
