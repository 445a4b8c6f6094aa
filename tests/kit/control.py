"""A control server on a real socket, with a small engine behind it whose answers the test sets."""

from __future__ import annotations

import http.client
import json
import os
import queue
import select
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alfwatchd import api
from alfwatchd.api import (
    FlushRequest,
    Request,
    RescanRequest,
    RootCheckRequest,
    SnapshotRequest,
    StatusRequest,
    SyncRequest,
    refuse,
)
from alfwatchd.engine.inbox import Inbox
from alfwatchd.engine.messages import Message
from alfwatchd.service.configuration import load
from alfwatchd.settings import Settings
from alfwatchd.tree.sessions import Snapshot, TablesView
from alfwatchd.web.change_feed import ChangeFeed
from alfwatchd.web.client import Client
from alfwatchd.web.control_api import create_app
from alfwatchd.web.control_connections import control_protocol
from alfwatchd.web.control_service import ControlService
from alfwatchd.web.control_socket import listen
from alfwatchd.web.http_server import Server
from alfwatchd.web.root_header import HEADER, encode_root
from kit.journal import JournalBox

WAIT_SECONDS = 120.0
GET_STATUS = b"GET /v1/status HTTP/1.1\r\nHost: d\r\n\r\n"
"""The shortest request that is answered."""
HOLD = object()
"""As an answer: the engine puts the message into `Engine.held` and does not answer it."""

STATUS = api.Status(
    state="live", since="2024-01-01T00:00:00+00:00", detail="every change is seen at once",
    root="/data", out_dir="/out", pid=7, version="1", generation=3, n_sessions=1, n_datasets=2, n_bytes=30, n_ignored=4,
    saved=False, last_flush=None, last_flush_seconds=None, last_flush_error="disk full",
    oldest_unflushed_seconds=1.5, events_lost=1,
    rescans=[api.RescanNote("start", "2024-01-01T00:00:00+00:00", None)],
    watches=5, watches_limit=None, unwatched=6, hashes_pending=7, hashes_unconfirmed=8,
    problems=[api.ProblemReply("twin", "s/2020-01-01/1", "merge it")], n_problems=1,
)  # fmt: skip
ANSWERS: dict[type, object] = {
    StatusRequest: STATUS,
    SyncRequest: api.SyncReply(3, "exact", 0.25),
    FlushRequest: api.FlushReply(3, 0.5),
    RescanRequest: api.RescanReply(4, 1, 2, 3, 0.75),
    SnapshotRequest: TablesView(Snapshot(3, {}), ()),
    RootCheckRequest: 0,
}


class Engine:
    """Answers messages in its own thread.

    `answers` maps the class of a message to an answer, an exception, `HOLD`, or a function of the message that returns
    one of these.
    """

    def __init__(self, answers: dict[type, object]) -> None:
        self.answers = ANSWERS | answers
        self.inbox = Inbox()
        self.taken: list[Message] = []
        self.held: queue.Queue[Any] = queue.Queue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """End as the daemon's engine does."""
        self.stop_taking()
        self.inbox.close()

    def stop_taking(self) -> None:
        """Take no more messages, but leave the inbox open, as an engine does just before its end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.inbox.wait(0.02)
            for message in self.inbox.drain():
                self.taken.append(message)
                answer = self.answers.get(type(message))
                answer = answer(message) if callable(answer) else answer
                if answer is HOLD:
                    self.held.put(message)
                elif isinstance(message, Request):
                    give(message, answer)


def give(message: Request, value: object) -> None:
    """Answer a message, held or not; an exception is raised where the answer is waited for."""
    if isinstance(value, Exception):
        refuse(message.reply, value)
    else:
        api.answer(message.reply, value)


class Box:
    """A running server, and ways to talk to it."""

    def __init__(self, path: Path, engine: Engine, server: Server, settings: Settings, journal: JournalBox) -> None:
        self.path = path
        self.journal = journal
        self.engine = engine
        self.server = server
        self.settings = settings
        self.client = Client(path, timeout=WAIT_SECONDS, root=settings.root)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(self.path))
        connection.settimeout(WAIT_SECONDS)
        return connection

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Send a request and return status and JSON of the answer; a body that is no text is sent as JSON.

        The answer is None where it is no JSON: an answer may be text, or a stream that does not end.

        It names the root unless `headers` do.
        """
        headers = {HEADER: encode_root(os.fsencode(self.settings.root))} | headers
        with self.connect() as connection:
            http_connection = http.client.HTTPConnection("localhost")
            http_connection.sock = connection
            text = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
            http_connection.request(method, path, text, headers)
            response = http_connection.getresponse()
            if not response.headers["content-type"].startswith("application/json"):
                return response.status, None
            return response.status, json.loads(response.read())

    def exchange(self, *parts: bytes, half_close: bool = False) -> bytes:
        """Send bytes and return all that comes back until the server closes."""
        with self.connect() as connection:
            for part in parts:
                connection.sendall(part)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

    def is_alive(self) -> bool:
        return self.ask("GET", "/v1/status")[0] == 200


@contextmanager
def control_box(
    answers: dict[type, object] | None = None, group: str = "", *, for_all: bool = False, **flags: object
) -> Iterator[Box]:
    """Serve on a socket with a short path; fail if a descriptor is left open at the end."""
    before = open_files()
    folder = Path(tempfile.mkdtemp(prefix="alfwatchd-", dir="/tmp"))
    folder.chmod(0o711)
    settings = load({"root": str(folder / "root"), "state_dir": str(folder), **flags}, environ={}).settings
    engine = Engine(answers or {})
    try:
        with listen(folder / "s", group, for_all=for_all) as listening:
            journal = JournalBox(settings.state_dir)
            changes = ChangeFeed(journal.journal.feed, lambda: settings)
            service = ControlService(engine.inbox.post, lambda: settings)
            server = Server(create_app(service, changes), listening, control_protocol(service.rights))
            wait(lambda: server.is_listening)  # before that, its own descriptors would look like those of a client
            try:
                yield Box(folder / "s", engine, server, settings, journal)
            finally:
                engine.stop()
                server.close()
    finally:
        shutil.rmtree(folder)
    assert not server.is_alive
    wait(lambda: open_files().items() <= before.items(), "a descriptor was left open")


def open_files() -> dict[int, str]:
    found = {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # that of the listing itself
            continue
    return found


def read_all(connection: socket.socket) -> bytes:
    """Read until the server closes; a reset counts as closed."""
    received = b""
    try:
        while part := connection.recv(1 << 16):
            received += part
    except ConnectionResetError:
        pass
    return received


def flood(connection: socket.socket, head: bytes, piece: bytes) -> tuple[bytes, int]:
    """Send without end; return the answer, and how many bytes the server accepted."""
    n_sent = 0
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(head)
        while n_sent < 100_000_000 and not select.select([connection], [], [], 0)[0]:
            n_sent += connection.send(piece)
    return read_all(connection), n_sent


def wait(is_so: Callable[[], object], what: str = "it did not happen in time") -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)
