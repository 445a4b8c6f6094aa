"""A journal that is told of changes as a writer of tables tells it, and clients that read it over a real socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from alfwatchd.journal.journal import Bounds, Journal
from alfwatchd.tree.session_changes import Kind, SessionChange
from kit.control import Box, control_box

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def change(number: int, kind: Kind = "added", lab: str = "lab", subject: str = "s", **more: Any) -> SessionChange:
    """Return a change of one of the sessions of a subject."""
    path = f"{lab}/Subjects/{subject}/2020-01-01/{number:03d}" if lab else f"{subject}/2020-01-01/{number:03d}"
    return SessionChange(path, kind, n_bytes=10, bytes_after=10, eid=f"eid-{number}", **more)


class JournalWriter:
    """Writes generations 1, 2, ... of a journal."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.generation = 0
        self.open()

    def open(self) -> None:
        """Open the journal as the next process does."""
        self.journal = Journal(self.state_dir, Bounds(), NOON.timestamp)

    def add(self, *changes: SessionChange) -> int:
        """Record what changed in the next generation, and return that; without changes at the first call it begins."""
        self.journal.follow(self.journal.id, self.generation)
        self.generation += 1
        self.journal.record(self.generation, NOON, changes)
        return self.generation

    def begin_again(self) -> None:
        """Record that it is not known what changed."""
        self.generation += 1
        self.journal.record(self.generation, NOON, None)


class FeedBox:
    """A server with a journal behind it."""

    def __init__(self, box: Box, writer: JournalWriter) -> None:
        self.box = box
        self.writer = writer
        self.add = writer.add

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
def feed_box(*, begun: bool = True, served: bool = True, **flags: Any) -> Iterator[FeedBox]:
    """Serve a journal that has begun with generation 1."""
    with control_box(**flags) as box:
        yield serve_journal(box, box.settings.state_dir, begun=begun, served=served)


def serve_journal(box: Box, folder: Path, *, begun: bool = True, served: bool = True) -> FeedBox:
    """Have a server answer from a new journal in a folder."""
    writer = JournalWriter(folder)
    if begun:
        writer.add()
    if served:
        box.changes.serve(writer.journal.feed)
    return FeedBox(box, writer)
