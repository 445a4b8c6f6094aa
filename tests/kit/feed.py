"""Clients that read the change feed over a real socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from kit.control import Box, control_box


class FeedBox:
    """A server whose journal begins again, so that clients are told nothing of before."""

    def __init__(self, box: Box, *, begins: bool = True) -> None:
        self.box = box
        self.begun = box.journal.begin_again() if begins else 0
        self.add = box.journal.add
        self.journal_id = box.journal.journal.id

    def get(self, **query: Any) -> dict[str, Any]:
        """Ask for a page."""
        status, answer = self.box.ask("GET", f"/v1/changes?{urlencode(query)}" if query else "/v1/changes")
        assert status == 200, answer
        return answer

    @contextmanager
    def stream(self, *, last_event_id: str = "", **query: Any) -> Iterator[EventReader]:
        """Open a stream."""
        with self.box.connect() as connection:
            target = f"/v1/changes/stream?{urlencode(query)}" if query else "/v1/changes/stream"
            more = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
            connection.sendall(f"GET {target} HTTP/1.0\r\nHost: d\r\n{more}\r\n".encode())
            reader = EventReader(connection)
            try:
                yield reader
            finally:
                reader.close()


class EventReader:
    """Reads server-sent events as a browser does."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._file = connection.makefile("rb")
        self.head = b""
        self.last_id = ""
        self.n_alive = 0
        while not self.head.endswith(b"\r\n\r\n"):
            part = self._file.readline()
            assert part, self.head
            self.head += part

    def next(self) -> tuple[str, Any] | None:
        """Return the name and the JSON of the next event; None at the end."""
        fields: dict[str, str] = {}
        while line := self._file.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if not name and value:
                self.n_alive += 1
            elif name:
                fields[name] = value
            else:
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    return fields["event"], json.loads(fields["data"])
                fields = {}
        return None

    def read_until(self, wanted: str) -> None:
        """Read lines until one is this, and count keep-alives."""
        while (line := self._file.readline().decode()) != wanted:
            assert line, "the stream ended"
            self.n_alive += line.startswith(": ")

    def close(self) -> None:
        """Close the file, which would keep the connection open."""
        self._file.close()


@contextmanager
def feed_box(**flags: Any) -> Iterator[FeedBox]:
    """Start a server of its own."""
    with control_box(**flags) as box:
        yield FeedBox(box)
