import gc
import grp
import itertools
import json
import os
import pwd
import re
import resource
import select
import socket
import stat
import sys
import tempfile
import threading
import time
import types
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from alfwatchd import api, errors, make_parquet_db
from alfwatchd.api import (
    FlushRequest,
    PrunedNotice,
    RescanRequest,
    RootCheckRequest,
    SnapshotRequest,
    StatusRequest,
    SyncRequest,
    refuse,
)
from alfwatchd.errors import AlfwatchdError, RootOffline
from alfwatchd.service.once import look_once
from alfwatchd.web import connections, control_api, control_service, control_socket, http_server
from alfwatchd.web.client import Client
from alfwatchd.web.control_service import ControlService
from alfwatchd.web.wanted_root import HEADER, encode_root
from kit.control import HOLD, STATUS, WAIT_SECONDS, Box, control_box, give, open_files, read_all, wait

pytestmark = pytest.mark.usefixtures("no_readers")

GET_STATUS = b"GET /v1/status HTTP/1.1\r\nHost: d\r\n\r\n"


@pytest.fixture(scope="module")
def shared_box():
    with control_box() as box:
        yield box


@pytest.fixture
def box(shared_box):
    """One server for many tests: each begins with an engine that has taken nothing, and leaves the server alive."""
    shared_box.engine.taken.clear()
    yield shared_box
    assert shared_box.ask("GET", "/v1/status")[0] == 200


@pytest.fixture
def impatient(monkeypatch):
    """Give clients and shutdown much less time than usual."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(http_server, "_GRACE_SECONDS", 0)


# What is asked reaches the engine, and its answers come back.

ENDPOINTS = [
    ("GET", "/v1/status", None, StatusRequest, {}, asdict(STATUS)),
    ("POST", "/v1/sync", None, SyncRequest, {"flushed": True},
     {"generation": 3, "exactness": "exact", "seconds": 0.25}),
    ("POST", "/v1/flush", None, FlushRequest, {}, {"generation": 3, "seconds": 0.5}),
    ("POST", "/v1/rescan", None, RescanRequest, {"path": "", "accept_root": False},
     {"generation": 4, "added": 1, "changed": 2, "removed": 3, "seconds": 0.75}),
    ("POST", "/v1/rescan", {"path": "lab/é", "accept_root": True}, RescanRequest,
     {"path": "lab/é", "accept_root": True},
     {"generation": 4, "added": 1, "changed": 2, "removed": 3, "seconds": 0.75}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "kind", "asked", "answer"), ENDPOINTS)
def test_endpoints(box: Box, method, path, body, kind, asked, answer):
    assert box.ask(method, path, body) == (200, answer)
    (message,) = box.engine.taken
    assert type(message) is kind
    assert {field.name: getattr(message, field.name) for field in fields(message) if field.name != "reply"} == asked


def test_a_body_is_json_whatever_the_client_says(box: Box):
    # `curl -d` says that it sends a form.
    status, _ = box.ask("POST", "/v1/rescan", {"path": "lab"}, **{"Content-Type": "application/x-www-form-urlencoded"})
    assert (status, box.engine.taken[0].path) == (200, "lab")


ERRORS = [
    (errors.UsageError, 400),
    (errors.NotAllowed, 403),
    (errors.PruneRefused, 409),
    (errors.WrongRoot, 409),
    (errors.Busy, 409),
    (errors.RootOffline, 503),
    (errors.TablesError, 503),
    (errors.AlfwatchdError, 500),
]


@pytest.mark.parametrize(("kind", "status"), ERRORS, ids=lambda value: getattr(value, "__name__", value))
def test_errors_of_the_engine(kind, status):
    with control_box({SyncRequest: kind("what, where, what to do")}) as box:
        assert box.ask("POST", "/v1/sync") == (
            status,
            {"error": kind.__name__, "message": "what, where, what to do"},
        )


BAD_REQUESTS = [
    ("GET", "/", None, 404, "GET /: Not Found; GET /openapi.json lists what there is"),
    ("GET", "/v1/status/", None, 404, "Not Found"),
    ("GET", "/v2/status", None, 404, "Not Found"),
    ("GET", "/v1/%00status", None, 404, "Not Found"),
    ("GET", "/../../etc/passwd", None, 404, "Not Found"),
    ("GET", "/v1/sync", None, 405, "Method Not Allowed"),
    ("PUT", "/v1/rescan", {}, 405, "Method Not Allowed"),
    ("BREW", "/v1/status", None, 405, "Method Not Allowed"),
    ("POST", "/v1/rescan?path=lab", {}, 400, "parameters belong into the body"),
    ("POST", "/v1/rescan", "{path", 400, "the body should be a JSON object: Expecting property name"),
    ("POST", "/v1/sync", "now", 400, "the body should be a JSON object: Expecting value"),
    ("POST", "/v1/rescan", b'{"path": "\xff"}', 400, "the body should be a JSON object: 'utf-8' codec can't decode"),
    ("POST", "/v1/rescan", "[" * 60000, 400, "nested too deeply"),
    ("POST", "/v1/rescan", '{"path": "a", "path": "b"}', 400, "a name is given twice"),
    ("POST", "/v1/rescan", '{"path": {"a": 1, "a": 2}}', 400, "a name is given twice"),
    ("POST", "/v1/rescan", '{"path": ' + "9" * 60000 + "}", 400, "the body should be a JSON object: "),
    ("POST", "/v1/rescan", [], 422, "body: "),
    ("POST", "/v1/rescan", '"lab"', 422, "body: "),
    ("POST", "/v1/rescan", {"path": None}, 422, "body.path: "),
    ("POST", "/v1/rescan", {"accept_root": "no"}, 422, "body.accept_root: Input should be a valid boolean"),
    ("POST", "/v1/rescan", {"accept_root": 0}, 422, "body.accept_root: Input should be a valid boolean"),
    ("POST", "/v1/prune/plan", {"max_fraction": True}, 422, "body.max_fraction: Input should be a valid number"),
    ("POST", "/v1/prune/plan", {"max_fraction": "1"}, 422, "body.max_fraction: Input should be a valid number"),
    ("POST", "/v1/rescan", {"path": "lab", "deep": True}, 422, "body.deep: Extra inputs are not permitted"),
    ("POST", "/v1/rescan", '{"\\udcff": 1}', 422, "body: "),
    ("POST", "/v1/rescan", '{"path": "\\udcff"}', 422, "body.path: "),
    ("POST", "/v1/rescan", {"path": "x" * 4097}, 422, "body.path: String should have at most 4096 characters"),
    ("POST", "/v1/prune/plan", {"max_fraction": 1.5}, 422, "body.max_fraction: "),
    ("POST", "/v1/prune/plan", '{"max_fraction": NaN}', 400, "NaN is no number in JSON"),
    ("POST", "/v1/prune/plan", '{"max_fraction": -Infinity}', 400, "-Infinity is no number in JSON"),
    ("POST", "/v1/prune/plan", '{"max_fraction": 1e999}', 422, "body.max_fraction: "),
    ("POST", "/v1/prune/plan", {"reference": "tables"}, 400, "reference = 'tables': should be an absolute path"),
    ("POST", "/v1/prune/plan", {"reference": ""}, 400, "reference = '': should be an absolute path"),
    ("POST", "/v1/prune/plan", {"reference": "/data\0/x"}, 400, "should be an absolute path"),
    ("POST", "/v1/prune/undo", None, 422, "body: Field required"),
    ("POST", "/v1/prune/undo", {"plan_id": "x" * 65}, 422, "body.plan_id: "),
    ("POST", "/v1/prune/empty", {"plan_id": 1}, 422, "body.plan_id: "),
    ("POST", "/v1/prune/empty", {"all": True}, 422, "body.all: "),
    ("POST", "/v1/prune/apply", None, 422, "body: Field required"),
    ("POST", "/v1/prune/apply", {}, 422, "body.plan_id: Field required"),
    ("POST", "/v1/prune/apply", {"plan_id": "x" * 65}, 422, "body.plan_id: "),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "text"), BAD_REQUESTS)
def test_bad_requests(box: Box, method, path, body, status, text):
    found, answer = box.ask(method, path, body)
    assert (found, answer.keys(), answer["error"]) == (status, {"error", "message"}, "UsageError")
    assert text in answer["message"]
    assert box.engine.taken == []


def test_an_error_with_a_name_that_is_not_utf8():
    with control_box({SyncRequest: AlfwatchdError("caf\udce9: cannot be read")}) as box:
        assert box.ask("POST", "/v1/sync")[1]["message"] == "caf\\udce9: cannot be read"


BUGS = [ValueError("boom"), None, KeyError("x")]


@pytest.mark.parametrize("answer", BUGS, ids=repr)
def test_a_bug_is_answered_and_logged_and_the_server_goes_on(answer, caplog):
    with control_box({FlushRequest: answer}) as box:
        status, body = box.ask("POST", "/v1/flush")
        assert (status, body["error"]) == (500, "RequestFailed")
        assert "its log has the details" in body["message"]
        assert box.is_alive()
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


# Nonsense, floods and dawdling.

NONSENSE = [
    b"hello\r\n\r\n",
    b"\0" * 1000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,  # TLS
    b"GET /v1/status HTTP/1.1\r\n\r\n",  # no Host
    b"GET /v1/st\xc3\xa4tus HTTP/1.1\r\nHost: d\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: d\r\nHost: e\r\n\r\n",
    b"POST /v1/rescan HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/rescan HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"POST /v1/rescan HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"POST /v1/rescan HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: gzip\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("sent", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_answered_in_json(box: Box, sent):
    head, _, body = box.exchange(sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"] == "UsageError"
    assert box.engine.taken == []


def test_a_request_that_ends_early_reaches_nobody(box: Box):
    for length in (1, 20, len(GET_STATUS) - 1):
        box.exchange(GET_STATUS[:length], half_close=True)
    head = b"POST /v1/rescan HTTP/1.1\r\nHost: d\r\nContent-Length: 20\r\n\r\n"
    assert box.exchange(head, b'{"path": ', half_close=True) == b""
    assert box.engine.taken == []


def test_one_request_per_connection(box: Box):
    received = box.exchange(GET_STATUS * 50)
    assert received.count(b"HTTP/1.1 200 OK") == 1
    assert b"connection: close" in received
    assert len(box.engine.taken) == 1


def flood(connection, head, piece):
    """Send without end; return what came back, and how many bytes the server took."""
    n_sent = 0
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(head)
        while n_sent < 100_000_000 and not select.select([connection], [], [], 0)[0]:
            n_sent += connection.send(piece)
    return read_all(connection), n_sent


BODIES = [
    ("Content-Length: 100000000", b"x" * 65536),
    ("Content-Length: 65537", b"x" * 65536),
    ("Transfer-Encoding: chunked", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    ("Transfer-Encoding: chunked", b"1\r\nx\r\n" * 10000),
]


@pytest.mark.parametrize(("header", "piece"), BODIES)
@pytest.mark.parametrize("path", ["/v1/rescan", "/v1/sync", "/nope"])
def test_a_body_without_end_is_refused_unread(box: Box, path, header, piece):
    with box.connect() as connection:
        received, n_sent = flood(connection, f"POST {path} HTTP/1.1\r\nHost: d\r\n{header}\r\n\r\n".encode(), piece)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert "more than 65536 bytes" in json.loads(body)["message"]
    assert n_sent < 4_000_000  # the socket's own buffers
    assert box.engine.taken == []


@pytest.mark.parametrize("piece", [b"x" * 65536, b"x\r\ny: " * 10000])
def test_a_head_without_end_is_refused(box: Box, piece):
    with box.connect() as connection:
        received, n_sent = flood(connection, b"GET /v1/status HTTP/1.1\r\nHost: d\r\ny: ", piece)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert n_sent < 4_000_000
    assert box.engine.taken == []


MOST_HEAD_BYTES = 16384
HEADS = {
    "a long line": b"X: %s\r\n",
    "many lines": b"X: y\r\n" * 1000 + b"X: %s\r\n",
    "a long name": b"X%s: y\r\n",
}


def make_head(line, size, path=b"/v1/status"):
    start, end = b"GET " + path + b" HTTP/1.1\r\nHost: d\r\n", b"\r\n"
    return start + line % (b"x" * (size - len(start + line + end) + 2)) + end


@pytest.mark.parametrize("line", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("size", [MOST_HEAD_BYTES + 1, MOST_HEAD_BYTES + 5000, 100_000, 250_000])
def test_a_head_that_is_too_long_is_refused_though_it_comes_at_once(box: Box, line, size):
    sent = make_head(line, size)
    assert len(sent) == size
    with box.connect() as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(sent)
        received = b""
        with suppress(ConnectionResetError):
            received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert box.engine.taken == []


@pytest.mark.parametrize("line", HEADS.values(), ids=HEADS)
def test_the_longest_head_is_taken(box: Box, line):
    sent = make_head(line, MOST_HEAD_BYTES)
    assert box.exchange(sent).startswith(b"HTTP/1.1 200 ")
    assert box.exchange(sent[:9000], sent[9000:16383], sent[16383:]).startswith(b"HTTP/1.1 200 ")


def test_trailers_that_are_too_long_are_refused_though_they_come_at_once(box: Box):
    head = b"POST /v1/sync HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    assert not box.exchange(head + b"X: " + b"x" * 60_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_one_implementation_of_http_is_used_whatever_is_installed(monkeypatch):
    """uvicorn takes httptools where it is there; the limits here are those of h11."""
    assert issubclass(connections.Protocol, H11Protocol)
    monkeypatch.setitem(sys.modules, "httptools", types.ModuleType("httptools"))
    with control_box() as box:
        assert box.server._server.config.http_protocol_class is connections.Protocol
        assert box.exchange(make_head(b"X: %s\r\n", MOST_HEAD_BYTES + 1)).startswith(b"HTTP/1.1 400 ")


def test_the_longest_body_is_taken(box: Box):
    body = '{"path": "lab"}'
    assert box.ask("POST", "/v1/rescan", body + " " * (65536 - len(body)))[0] == 200


SLOW = [
    b"GET /v1/sta",
    b"GET /v1/status HTTP/1.1\r\nHost: d\r\nX: ",
    b'POST /v1/rescan HTTP/1.1\r\nHost: d\r\nContent-Length: 20\r\n\r\n{"path": ',
    b"POST /v1/rescan HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
]


@pytest.mark.parametrize("sent", SLOW)
def test_a_client_that_dawdles_is_dropped(impatient, sent):
    with control_box() as box:
        head, _, body = box.exchange(sent).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert "the request did not come within" in json.loads(body)["message"]
        assert box.engine.taken == []


def test_a_client_that_says_nothing_is_dropped(impatient):
    with control_box() as box:
        assert box.exchange() == b""


def test_an_engine_may_take_longer_than_a_client(impatient):
    with control_box({SyncRequest: HOLD}) as box, box.connect() as connection:
        connection.sendall(GET_STATUS.replace(b"GET /v1/status", b"POST /v1/sync"))
        held = box.engine.held.get(timeout=WAIT_SECONDS)
        assert select.select([connection], [], [], 3 * connections.REQUEST_SECONDS)[0] == []
        give(held, api.SyncReply(1, "exact", 0.0))
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_has_no_more_to_say_is_answered():
    # As `printf ... | nc -U` does: it closes its sending side, then reads.
    with control_box({SyncRequest: HOLD}) as box, box.connect() as connection:
        connection.sendall(GET_STATUS.replace(b"GET /v1/status", b"POST /v1/sync"))
        connection.shutdown(socket.SHUT_WR)
        give(box.engine.held.get(timeout=WAIT_SECONDS), api.SyncReply(1, "exact", 0.0))
        assert b'"generation":1' in read_all(connection)


@pytest.mark.parametrize("n_rounds", range(8))
def test_who_comes_at_the_very_end_is_not_waited_for(n_rounds, caplog):
    # asyncio accepts first and tells the server some rounds of its loop later, in which it may have begun to end.
    with control_box() as box:
        running, client = box.server._server, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

        def come() -> None:
            client.connect(str(box.path))
            go_on(n_rounds)

        def go_on(left: int) -> None:
            running._loop.call_soon(go_on, left - 1) if left else running.end()

        wait(lambda: running._ended is not None)
        running._loop.call_soon_threadsafe(come)
        box.server._thread.join(WAIT_SECONDS)
        client.close()
    assert "graceful" not in caplog.text


def test_200_clients_at_once(box: Box):
    before = open_files()
    connections = [box.connect() for _ in range(200)]
    for connection in connections:
        connection.sendall(GET_STATUS)
    answers = [read_all(connection) for connection in connections]
    assert all(answer.startswith(b"HTTP/1.1 200 OK") for answer in answers)
    for connection in connections:
        connection.close()
    wait(lambda: open_files().items() <= before.items())


def test_200_idle_clients_keep_nobody_waiting(impatient):
    with control_box() as box:
        before = open_files()
        connections = [box.connect() for _ in range(200)]
        assert box.is_alive()
        for connection in connections:
            assert read_all(connection) == b""
            connection.close()
        wait(lambda: open_files().items() <= before.items())


def test_nothing_is_kept_of_a_connection_that_is_over():
    with control_box() as box:
        for _ in range(20):
            assert box.is_alive()
        wait(lambda: not box.server._server.server_state.connections)
        gc.collect()
        assert sum(isinstance(each, connections.Protocol) for each in gc.get_objects()) <= 2


# More clients than there is room for, and answers that nobody reads.


@pytest.fixture
def room_for_eight(monkeypatch):
    monkeypatch.setattr(connections, "room", lambda: 8)


def test_room_is_half_of_the_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for descriptors, expected in ((600, 300), (4096, 1024), (hard, 1024)):
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
            assert connections.room() == expected
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_is_silent_makes_room_for_who_asks(room_for_eight):
    with control_box() as box:
        silent = [box.connect() for _ in range(8)]
        assert box.is_alive()
        assert select.select(silent, [], [], WAIT_SECONDS)[0] == silent[:1]  # the first that came
        assert read_all(silent[0]) == b""
        for each in silent:
            each.close()


def test_requests_that_wait_are_kept_and_others_told_so(room_for_eight):
    with control_box({SyncRequest: HOLD}) as box:
        waiting = [box.connect() for _ in range(8)]
        for each in waiting:
            each.sendall(GET_STATUS.replace(b"GET /v1/status", b"POST /v1/sync"))
        held = [box.engine.held.get(timeout=WAIT_SECONDS) for _ in waiting]
        for _ in range(20):
            with pytest.raises(errors.Busy, match="8 requests wait already; try again later"):
                box.client.status()
        for message in held:
            give(message, api.SyncReply(1, "exact", 0.0))
        assert all(read_all(each).startswith(b"HTTP/1.1 200 ") for each in waiting)
        assert box.is_alive()
        for each in waiting:
            each.close()


def ask_without_reading(box):
    connection = box.connect()
    connection.sendall(GET_STATUS)
    return connection


@pytest.fixture
def long_answer():
    """A status of four million bytes: more than a socket takes."""
    return {StatusRequest: replace(STATUS, detail="x" * 4_000_000)}


def test_who_does_not_read_is_dropped(impatient, monkeypatch, long_answer):
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.4)
    with control_box(long_answer) as box:
        before = open_files()
        with ask_without_reading(box) as connection:
            wait(lambda: len(open_files()) == len(before) + 2)  # both ends
            wait(lambda: len(open_files()) == len(before) + 1, "who does not read is kept for ever")
            assert len(read_all(connection)) < 4_000_000
        assert len(box.client.status().detail) == 4_000_000


def test_answers_that_nobody_reads_do_not_fill_the_memory(monkeypatch, long_answer):
    monkeypatch.setattr(connections, "_UNREAD_BYTES", 10_000_000)
    with control_box(long_answer) as box:
        asked = []
        for _ in range(5):
            asked.append(ask_without_reading(box))
            wait(lambda: len(box.engine.taken) == len(asked))
        assert [len(read_all(each)) > 4_000_000 for each in asked] == [False, False, False, True, True]
        for each in asked:
            each.close()


def test_a_shortage_of_descriptors_does_not_fill_the_log(caplog):
    with control_box() as box:
        loop = box.server._server._loop
        for number in range(50):
            context = {"message": "socket.accept() out of system resource", "exception": OSError(24, f"n {number}")}
            loop.call_soon_threadsafe(loop.call_exception_handler, context)
        assert box.is_alive()
    assert [record.getMessage() for record in caplog.records] == [
        "a client cannot be served error=[Errno 24] n 0 what=socket.accept() out of system resource"
    ]


# Clients that leave, daemons that stop.


def test_a_client_that_leaves_breaks_nothing(impatient):
    with control_box({SyncRequest: HOLD}) as box:
        before = open_files()
        for _ in range(20):
            with box.connect() as connection:
                connection.sendall(GET_STATUS.replace(b"GET /v1/status", b"POST /v1/sync"))
                held = box.engine.held.get(timeout=WAIT_SECONDS)
        wait(lambda: open_files().items() <= before.items(), "the server keeps connections of clients that left")
        wait(held.reply.cancelled, "the engine is kept waiting")
        give(held, api.SyncReply(1, "exact", 0.0))
        assert box.is_alive()


LEAVING = [  # after which nothing more is read from the socket, so that the kernel does not say that they left
    ("half closed", b"", True),
    ("more requests sent", GET_STATUS * 3, False),
]


@pytest.mark.parametrize(("sent", "half_close"), [each[1:] for each in LEAVING], ids=[each[0] for each in LEAVING])
def test_a_client_that_leaves_in_silence_is_found_out(impatient, sent, half_close):
    with control_box({SyncRequest: HOLD}) as box:
        with box.connect() as connection:
            connection.sendall(GET_STATUS.replace(b"GET /v1/status", b"POST /v1/sync") + sent)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            held = box.engine.held.get(timeout=WAIT_SECONDS)
            time.sleep(2 * connections.REQUEST_SECONDS)
            assert not held.reply.cancelled()
        wait(held.reply.cancelled, "the engine is kept waiting")
        wait(lambda: not box.server._server.server_state.connections)


def test_an_answer_that_nobody_waits_for_any_more_breaks_nothing(impatient):
    with control_box({SyncRequest: HOLD}) as box:
        with box.connect() as connection:
            connection.sendall(GET_STATUS.replace(b"GET /v1/status", b"POST /v1/sync"))
            held = box.engine.held.get(timeout=WAIT_SECONDS)
            box.server.close()  # it waits no longer than its grace, and cancels what is left
            assert b"the daemon is stopping" in read_all(connection)
        assert held.reply.cancelled()
        give(held, api.SyncReply(1, "exact", 0.0))
        give(held, AlfwatchdError("too late"))


def test_when_the_engine_ends_waiting_clients_hear_of_it():
    with control_box() as box:
        box.engine.stop()  # from now on nobody takes messages
        for method, path in (("GET", "/v1/status"), ("POST", "/v1/sync"), ("POST", "/v1/prune/plan")):
            assert box.ask(method, path) == (
                500,
                {"error": "AlfwatchdError", "message": "the daemon is stopping; ask again when it is back"},
            )


def test_requests_that_were_not_taken_are_refused_at_the_end():
    with control_box() as box:
        box.engine._stop.set()
        box.engine._thread.join()  # the engine has taken its last message
        with box.connect() as connection:
            connection.sendall(GET_STATUS)
            wait(lambda: box.engine.inbox.has_messages)
            box.engine.inbox.close()
            assert b"the daemon is stopping" in read_all(connection)


def test_close_waits_for_answers_that_come_soon():
    with control_box({SyncRequest: HOLD}) as box, box.connect() as connection:
        connection.sendall(GET_STATUS.replace(b"GET /v1/status", b"POST /v1/sync"))
        held = box.engine.held.get(timeout=WAIT_SECONDS)
        closing = threading.Thread(target=box.server.close)
        closing.start()
        wait(lambda: box.server._server.should_exit)
        give(held, RootOffline("gone"))
        assert read_all(connection).startswith(b"HTTP/1.1 503 ")
        closing.join()


def test_a_server_that_is_closed_at_once_ends():
    """Wherever its thread is by then: it waits for the end without looking around."""
    app = control_api.create_app(ControlService(lambda _: None, lambda: None))
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        for _ in range(20):
            with control_socket.listen(Path(folder) / "s", "") as listening:
                closed = http_server.Server(app, listening)
                closed.close()
                assert not closed.is_alive


def test_a_server_that_nobody_asks_sleeps():
    """A daemon does nothing most of the time, and uvicorn alone would wake up ten times a second."""

    def times_asleep():
        status = Path(f"/proc/self/task/{box.server._thread.native_id}/status").read_text()
        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[1])

    with control_box() as box:
        assert box.is_alive()
        for _ in range(20):  # the answer may take long to end
            before = times_asleep()
            time.sleep(0.5)
            if times_asleep() - before <= 1:
                return
    raise AssertionError("it never sleeps")


# Who asks.


def ask_as_nobody(box: Box, method, path, body):
    """Ask from a process of the user nobody; return the answer, or the name of the error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY.pw_gid)
            os.setuid(NOBODY.pw_uid)
            answer = box.ask(method, path, body)
        except BaseException as error:  # noqa: BLE001 - the child must not go on with the tests
            answer = type(error).__name__
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said)


NOBODY = pwd.getpwnam("nobody")
NOBODY_GROUP = grp.getgrgid(NOBODY.pw_gid).gr_name
PRUNE = {"prune.enabled": True}
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
# The child only talks to the socket.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@as_root
@forks
def test_who_is_in_no_group_of_the_socket_cannot_connect():
    with control_box() as box:
        assert stat.S_IMODE(box.path.stat().st_mode) == 0o600
        assert ask_as_nobody(box, "GET", "/v1/status", None) == "PermissionError"


@as_root
@forks
def test_another_user_may_ask_but_not_prune():
    with control_box(**PRUNE) as box:
        box.path.chmod(0o666)
        assert ask_as_nobody(box, "GET", "/v1/status", None)[0] == 200
        status, answer = ask_as_nobody(box, "POST", "/v1/prune/apply", {"plan_id": "x"})
        assert (status, answer["error"]) == (403, "NotAllowed")
        assert f"user=nobody uid={NOBODY.pw_uid} " in answer["message"]
        forged = {"X-Forwarded-For": "[1, 0, 0]", "Forwarded": "for=0"}
        assert box.ask("POST", "/v1/prune/apply", {"plan_id": "x"}, **forged)[0] == 400  # the test's own user may
        for what in ("undo", "empty"):
            status, answer = ask_as_nobody(box, "POST", f"/v1/prune/{what}", {"plan_id": "0" * 16})
            assert (status, answer["error"]) == (403, "NotAllowed")
        assert [type(message) for message in box.engine.taken] == [StatusRequest]


@as_root
@forks
def test_members_of_the_group_may_prune():
    with control_box(group=NOBODY_GROUP, **PRUNE, **{"control.group": NOBODY_GROUP}) as box:
        about = box.path.stat()
        assert (stat.S_IMODE(about.st_mode), about.st_gid) == (0o660, NOBODY.pw_gid)
        status, answer = ask_as_nobody(box, "POST", "/v1/prune/apply", {"plan_id": "x"})
        assert (status, "no such plan" in answer["message"]) == (400, True)


def test_nobody_may_prune_unless_it_is_enabled(box: Box):
    status, answer = box.ask("POST", "/v1/prune/apply", {"plan_id": "x"})
    assert (status, answer["error"]) == (403, "NotAllowed")
    assert "prune.enabled" in answer["message"]


# Which root is meant.


def naming(path):
    return {HEADER: encode_root(os.fsencode(path))}


def ask_bare(box, method, path, body=b"", *headers):
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: d", b"Content-Length: %d" % len(body), *headers]
    answer = box.exchange(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    head, _, found = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(found)


CHANGING = [
    ("/v1/prune/plan", b"{}"),
    ("/v1/prune/plan", b""),
    ("/v1/prune/apply", b'{"plan_id": "x"}'),
    ("/v1/prune/apply", b'{"nonsense": 1}'),
    ("/v1/rescan", b'{"accept_root": true}'),
]


@pytest.mark.parametrize(("path", "body"), CHANGING)
def test_what_may_lose_something_must_say_which_root_it_means(box: Box, path, body):
    status, answer = ask_bare(box, "POST", path, body)
    assert (status, answer["error"]) == (400, "UsageError")
    assert "curl -H 'Alfwatchd-Root: " in answer["message"]
    assert not box.engine.taken


def test_all_requests_below_prune_that_change_something_must_say_it(box: Box):
    paths = box.ask("GET", "/openapi.json")[1]["paths"]
    changing = {path for path, methods in paths.items() if path.startswith("/v1/prune/") and "post" in methods}
    assert changing >= {"/v1/prune/plan", "/v1/prune/apply"}
    for path in changing:
        status, answer = ask_bare(box, "POST", path, b"{}")
        assert (status, "which root is meant?" in answer["message"]) == (400, True), path


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/status"), ("POST", "/v1/sync"), ("POST", "/v1/flush"), ("POST", "/v1/rescan")]
)
def test_all_else_may_but_need_not(box: Box, tmp_path, method, path):
    assert ask_bare(box, method, path)[0] == 200
    assert box.ask(method, path, **naming(box.settings.root))[0] == 200
    box.engine.taken.clear()
    status, answer = box.ask(method, path, **naming(tmp_path))
    assert (status, answer["error"]) == (409, "WrongRoot")
    assert str(tmp_path) in answer["message"]
    assert str(box.settings.root) in answer["message"]
    assert not box.engine.taken


NO_ROOTS = [b"", b"data", b"%", b"~/data", b"%2e", b"/data%00", b'"/data"', b"file:///data"]


@pytest.mark.parametrize("value", NO_ROOTS)
def test_values_that_are_no_root(box: Box, value):
    status, answer = ask_bare(box, "GET", "/v1/status", b"", b"Alfwatchd-Root: " + value)
    assert (status, answer["error"], "percent-encoded" in answer["message"]) == (400, "UsageError", True)


def test_two_roots_are_one_too_many(box: Box):
    lines = [b"Alfwatchd-Root: " + encode_root(os.fsencode(box.settings.root)).encode(), b"alfwatchd-root: /B"]
    for headers in (lines, lines[::-1], lines[:1] * 2):
        status, answer = ask_bare(box, "GET", "/v1/status", b"", *headers)
        assert (status, "given twice" in answer["message"]) == (400, True)


def test_a_root_is_the_same_by_any_path_to_it(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "link").symlink_to(root)
    (tmp_path / "other").mkdir()
    (tmp_path / "file").write_text("")
    with control_box(root=str(root)) as box:
        for path in (root, f"{root}/", f"//{root}//", tmp_path / "link", f"{tmp_path}/other/../root"):
            assert box.ask("GET", "/v1/status", **naming(path))[0] == 200, path
        for path in ("/", tmp_path, tmp_path / "other", tmp_path / "gone", tmp_path / "file", root / "below"):
            assert box.ask("GET", "/v1/status", **naming(path))[0] == 409, path
        root.rename(tmp_path / "away")  # the daemon is offline, and says so to those who mean its root
        assert box.ask("GET", "/v1/status", **naming(root))[0] == 200
        assert box.ask("GET", "/v1/status", **naming(tmp_path / "link"))[0] == 200
        assert box.ask("GET", "/v1/status", **naming(tmp_path / "other"))[0] == 409


@pytest.mark.parametrize("name", [b"d\xc3\xa9", b"\xff\xfe", b"a%20b", b" ", b"a\nb", b"?&#:", b"x" * 255])
def test_roots_of_any_name(tmp_path, name):
    root = tmp_path / os.fsdecode(name)
    root.mkdir()
    with control_box(root=str(root)) as box:
        assert box.client.status() == STATUS
        assert Client(box.path).find_root() == root
        (tmp_path / "link").symlink_to(root)
        assert box.ask("GET", "/v1/status", **naming(tmp_path / "link"))[0] == 200
        with pytest.raises(errors.WrongRoot):
            Client(box.path, root=tmp_path).status()


def test_bytes_that_are_not_encoded_are_taken_as_they_are(tmp_path):
    root = tmp_path / "é"
    root.mkdir()
    with control_box(root=str(root)) as box:
        assert ask_bare(box, "GET", "/v1/status", b"", b"Alfwatchd-Root: " + os.fsencode(root))[0] == 200


def test_a_path_that_gives_no_answer_holds_up_nobody(box: Box, monkeypatch):
    """As on a network mount that is away."""
    monkeypatch.setattr(control_service, "_LOOK_SECONDS", 0.3)
    reached = threading.Event()
    monkeypatch.setattr(control_service.right_root, "check_root", lambda *_: reached.wait(WAIT_SECONDS))
    try:
        for _ in range(control_service._MAX_LOOKING):
            with pytest.raises(errors.WrongRoot, match=r"/net/away: .*gave no answer within"):
                Client(box.path, timeout=WAIT_SECONDS, root="/net/away").status()
        with pytest.raises(errors.Busy, match="are being looked at"):
            Client(box.path, timeout=WAIT_SECONDS, root="/net/away").status()
        assert box.client.status() == STATUS  # its own path needs no look
        assert not reached.is_set()
    finally:
        reached.set()
    wait(lambda: box.ask("GET", "/v1/status", **naming("/"))[0] == 200)


# Prunes, of real files.

SPIKES, TRIALS = "s/2020-01-01/001/alf/spikes.times.npy", "s/2020-01-02/001/alf/trials.choice.npy"
KEPT = "s/2020-01-03/001/alf/spikes.times.npy"


def root_of(box):
    return encode_root(os.fsencode(box.settings.root)).encode()


@pytest.fixture
def data(tmp_path):
    """A root with three datasets in three sessions, and reference tables that know of one."""
    root, reference = tmp_path / "root", tmp_path / "reference"
    (root / KEPT).parent.mkdir(parents=True)
    (root / KEPT).write_text("kept")
    reference.mkdir()
    make_parquet_db(root, reference)
    for path in (SPIKES, TRIALS):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text("spikes")
    return SimpleNamespace(root=root, reference=str(reference))


@contextmanager
def prune_box(data, answers=None, **flags):
    flags = {"root": str(data.root), "prune.enabled": True, "prune.max_fraction": 1.0, **flags}
    with control_box({SnapshotRequest: lambda _: look_once(box.settings), **(answers or {})}, **flags) as box:
        yield box


def test_a_prune_deletes_what_was_planned(data, caplog):
    caplog.set_level("INFO", "alfwatchd.web.control_service")
    with prune_box(data) as box:
        status, plan = box.ask("POST", "/v1/prune/plan", {"reference": data.reference, "newer": True})
        assert (status, plan["applied"], plan["n_datasets"], plan["n_bytes"]) == (200, False, 3, 12)
        assert [(item["path"], item["file_size"]) for item in plan["files"]] == [(SPIKES, 6), (TRIALS, 6)]
        assert (data.root / SPIKES).exists()
        status, done = box.ask("POST", "/v1/prune/apply", {"plan_id": plan["plan_id"]})
        assert (status, done.pop("freed_at") is not None, plan.pop("freed_at")) == (200, True, None)
        assert done == plan | {"applied": True}
        assert [path.name for path in data.root.rglob("*.npy")] == ["spikes.times.npy"]
        assert (data.root / KEPT).exists()
        again, answer = box.ask("POST", "/v1/prune/apply", {"plan_id": plan["plan_id"]})
        assert (again, answer["error"]) == (400, "UsageError")
        (notice,) = (message for message in box.engine.taken if isinstance(message, PrunedNotice))
    days = ("s/2020-01-01", "s/2020-01-02")
    assert set(notice.folders) == {"", "s", *(day + rest for day in days for rest in ("", "/001", "/001/alf"))}
    logged = [record.getMessage() for record in caplog.records]
    me = f"uid={os.getuid()} pid={os.getpid()}"
    assert any(line.startswith(f"dataset moved to trash path='{SPIKES}'") and me in line for line in logged)


def test_undo_and_empty_over_the_api(data):
    with prune_box(data) as box:
        plan_id = box.client.plan_prune(data.reference, newer=True).plan_id
        assert box.client.apply_prune(plan_id).freed_at
        (applied,) = box.client.list_plans().plans
        assert (applied.plan_id, applied.state, applied.n_files, applied.n_bytes) == (plan_id, "applied", 2, 12)
        undone = box.client.undo_prune(plan_id)
        assert (undone.action, undone.plans, undone.n_files, undone.complete) == ("undone", [plan_id], 2, True)
        assert (data.root / SPIKES).read_text() == "spikes"
        assert [plan.state for plan in box.client.list_plans().plans] == ["undone"]
        notices = [message for message in box.engine.taken if isinstance(message, PrunedNotice)]
        assert {"", "s", SPIKES.rpartition("/")[0]} <= set(notices[-1].folders)
        for what, body in (("undo", {"plan_id": plan_id}), ("empty", {"plan_id": plan_id})):
            status, answer = box.ask("POST", f"/v1/prune/{what}", body)
            assert (status, answer["error"], plan_id in answer["message"]) == (409, "PruneRefused", True)
        again = box.client.plan_prune(data.reference, newer=True).plan_id
        box.client.apply_prune(again)
        emptied = box.client.empty_trash()
        assert (emptied.action, emptied.plans, emptied.n_bytes, emptied.kept) == ("emptied", [again], 12, [])
        assert {plan.plan_id: plan.state for plan in box.client.list_plans().plans}[again] == "emptied"


def test_undo_and_empty_are_refused_while_the_root_is_offline(data):
    offline = RootOffline("the disk is away")
    with prune_box(data, {SnapshotRequest: offline, RootCheckRequest: offline}) as box:
        for what in ("undo", "empty"):
            assert box.ask("POST", f"/v1/prune/{what}", {"plan_id": "0" * 16})[1]["error"] == "RootOffline"


def test_a_plan_waits_for_changes_but_not_for_the_flush(data):
    with prune_box(data) as box:
        box.ask("POST", "/v1/prune/plan", {"reference": data.reference, "newer": True})
        first = box.engine.taken[0]
    assert (type(first), first.flushed) == (SyncRequest, False)


def test_the_last_eight_plans_are_known(data):
    with prune_box(data) as box:
        ids = []
        for number in range(9):
            (data.root / SPIKES).write_text("x" * number)
            ids.append(box.ask("POST", "/v1/prune/plan", {"reference": data.reference, "newer": True})[1]["plan_id"])
        assert len(set(ids)) == 9
        assert box.ask("POST", "/v1/prune/apply", {"plan_id": ids[0]})[0] == 400
        assert box.ask("POST", "/v1/prune/apply", {"plan_id": ids[1]})[0] == 200


def test_of_large_plans_fewer_are_known(data, monkeypatch):
    monkeypatch.setattr(control_service, "_MAX_PLANNED_FILES", 5)
    with prune_box(data) as box:
        ids = []
        for number in range(3):  # of two files each
            (data.root / SPIKES).write_text("x" * number)
            ids.append(box.client.plan_prune(data.reference, newer=True).plan_id)
        monkeypatch.setattr(control_service, "_MAX_PLANNED_FILES", 1)
        assert [box.ask("POST", "/v1/prune/apply", {"plan_id": each})[0] for each in ids] == [400, 200, 200]
        (data.root / SPIKES).parent.mkdir(parents=True)
        (data.root / SPIKES).write_text("one alone may be larger")
        (data.root / TRIALS).parent.mkdir(parents=True)
        (data.root / TRIALS).write_text("")
        plan = box.client.plan_prune(data.reference, newer=True)
        assert len(box.client.apply_prune(plan.plan_id).files) == 2


def test_what_changed_since_the_plan_is_left(data):
    with prune_box(data) as box:
        plan = box.client.plan_prune(data.reference, newer=True)
        (data.root / SPIKES).write_text("new spikes")
        done = box.client.apply_prune(plan.plan_id)
    assert [item.path for item in done.files] == [TRIALS]
    assert (done.kept[0].path, done.kept[0].reason) == (SPIKES, "has changed since the plan")
    assert (data.root / SPIKES).read_text() == "new spikes"


REFUSED = [
    ({"reference": "/nowhere"}, {}, "no reference tables"),
    ({"max_fraction": 0.5}, {}, "2 of 3 datasets"),
    ({}, {"prune.max_fraction": 0.1}, "2 of 3 datasets"),
]


@pytest.mark.parametrize(("body", "flags", "text"), REFUSED)
def test_refused_plans(data, body, flags, text):
    with prune_box(data, **flags) as box:
        status, answer = box.ask("POST", "/v1/prune/plan", {"reference": data.reference, "newer": True} | body)
        assert (status, answer["error"], text in answer["message"]) == (409, "PruneRefused", True)


def fifos(folder):
    for name in ("sessions.pqt", "datasets.pqt"):
        os.mkfifo(folder / name)


def endless(folder):
    for name in ("sessions.pqt", "datasets.pqt"):
        (folder / name).symlink_to("/dev/zero")


def folders(folder):
    for name in ("sessions.pqt", "datasets.pqt"):
        (folder / name).mkdir()


def huge(folder):
    for name in ("sessions.pqt", "datasets.pqt"):
        with open(folder / name, "wb") as file:
            file.truncate(1 << 40)


def huge_footer(folder):
    """Says that its last two gigabytes describe it."""
    for name in ("sessions.pqt", "datasets.pqt"):
        with open(folder / name, "wb") as file:
            file.seek((1 << 40) - 8)
            file.write((0x7FFFFFFF).to_bytes(4, "little") + b"PAR1")


def looping(folder):
    (folder / "sessions.pqt").symlink_to("sessions.pqt")


@pytest.mark.parametrize("make", [fifos, endless, folders, huge, huge_footer, looping], ids=lambda make: make.__name__)
def test_references_that_are_no_tables(data, tmp_path, make):
    folder = tmp_path / "odd"
    folder.mkdir()
    make(folder)
    with prune_box(data) as box:
        status, answer = box.ask("POST", "/v1/prune/plan", {"reference": str(folder)})
    assert (status, answer["error"]) == (409, "PruneRefused")
    assert str(folder) in answer["message"]


@pytest.mark.parametrize("folder", ["/dev", "/proc/self/fd/0", "/" + "x" * 300, "/a" * 2000, "/x\ny"])
def test_references_that_are_no_folders(data, folder):
    with prune_box(data) as box:
        status, answer = box.ask("POST", "/v1/prune/plan", {"reference": folder})
    assert (status, answer["error"]) == (409, "PruneRefused")


def test_reference_tables_that_cannot_be_reached_hold_up_nobody(data, monkeypatch):
    """As on a network mount that is away. Others are told so, and the daemon can end."""
    reached = threading.Event()
    monkeypatch.setattr(control_service.pruning, "plan_prune", lambda *_: reached.wait(WAIT_SECONDS))
    try:
        with prune_box(data) as box:
            asked = [box.connect() for _ in range(4)]
            for each in asked:
                each.sendall(b"POST /v1/prune/plan HTTP/1.1\r\nHost: d\r\nAlfwatchd-Root: %b\r\n\r\n" % root_of(box))
            wait(lambda: sum(thread.name == "prune" for thread in threading.enumerate()) == 4)
            with pytest.raises(errors.Busy, match="4 prunes are being planned already"):
                box.client.plan_prune(data.reference, newer=True)
            assert box.is_alive()
            for each in asked:
                each.close()
        assert not reached.is_set()  # the server has ended before
    finally:
        reached.set()


def test_nothing_is_planned_or_deleted_while_a_part_cannot_be_read(data):
    with prune_box(data) as box:
        plan = box.client.plan_prune(data.reference, newer=True)
        box.engine.answers[RootCheckRequest] = errors.PruneRefused("s/2020-01-05: cannot be read now")
        for path, body in (
            ("/v1/prune/plan", {"reference": data.reference, "newer": True}),
            ("/v1/prune/apply", {"plan_id": plan.plan_id}),
        ):
            status, answer = box.ask("POST", path, body)
            assert (status, answer["error"], "s/2020-01-05" in answer["message"]) == (409, "PruneRefused", True)
            assert f"root {data.root}, reference {data.reference}" in answer["message"]
        box.engine.answers[RootCheckRequest] = RootOffline("the root is gone")
        assert box.ask("POST", "/v1/prune/apply", {"plan_id": plan.plan_id})[0] == 503
    assert (data.root / SPIKES).exists()


@contextmanager
def apply_held(box, data):
    """Begin a prune that waits for the engine before its second session; yields the message, and the answer's list."""
    plan = box.client.plan_prune(data.reference, newer=True)
    n_asked = itertools.count(1)
    # once before the prune, then before each session
    box.engine.answers[RootCheckRequest] = lambda _: HOLD if next(n_asked) == 3 else 0
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(box.ask("POST", "/v1/prune/apply", {"plan_id": plan.plan_id})), daemon=True
    )
    asking.start()
    held = box.engine.held.get(timeout=WAIT_SECONDS)
    yield held, answers
    asking.join()


def stopped_half_way(data, answers, why):
    ((status, done),) = answers
    assert (status, [item["path"] for item in done["files"]]) == (200, [SPIKES])
    (note,) = done["notes"]
    assert note.startswith("stopped half way: ")
    assert why in note
    assert not (data.root / SPIKES).exists()
    assert (data.root / TRIALS).exists()
    return True


CHECKS = [
    (RootOffline("the root is gone"), "the root is gone"),
    (errors.PruneRefused("s/2020-01-05: cannot be read now"), "s/2020-01-05: cannot be read now"),
    (1, "mounts at or below the root have changed since the plan"),
]


@pytest.mark.parametrize(("answer", "why"), CHECKS)
def test_a_prune_stops_when_the_root_is_not_what_it_was(data, answer, why):
    with prune_box(data) as box:
        with apply_held(box, data) as (held, answers):
            give(held, answer)
        assert stopped_half_way(data, answers, why)


def test_a_prune_stops_when_the_daemon_does(data):
    with prune_box(data) as box:
        with apply_held(box, data) as (held, answers):
            box.engine._stop.set()
            box.engine._thread.join()
            refuse(held.reply, AlfwatchdError("the daemon is stopping"))  # as the inbox does for those untaken
            box.engine.inbox.close()
            box.server.close()
        assert stopped_half_way(data, answers, "the daemon is stopping")


def test_one_prune_at_a_time(data):
    with prune_box(data) as box:
        with apply_held(box, data) as (held, answers):
            other = box.client.plan_prune(data.reference, newer=True, keep_empty_sessions=True)
            status, answer = box.ask("POST", "/v1/prune/apply", {"plan_id": other.plan_id})
            assert (status, answer["error"]) == (409, "Busy")
            give(held, 0)
        ((status, done),) = answers
        assert (status, len(done["files"]), done["notes"]) == (200, 2, [])


def test_a_prune_stops_when_its_client_leaves(data, caplog):
    with prune_box(data) as box:
        plan = box.client.plan_prune(data.reference, newer=True)
        n_asked = itertools.count(1)
        box.engine.answers[RootCheckRequest] = lambda _: HOLD if next(n_asked) == 3 else 0
        body = json.dumps({"plan_id": plan.plan_id}).encode()
        head = b"POST /v1/prune/apply HTTP/1.1\r\nHost: d\r\nAlfwatchd-Root: %b\r\nContent-Length: %d\r\n\r\n"
        with box.connect() as connection:
            connection.sendall(head % (root_of(box), len(body)) + body)
            held = box.engine.held.get(timeout=WAIT_SECONDS)
        wait(lambda: not box.server._server.server_state.connections)
        give(held, 0)
        said = f"prune done plan={plan.plan_id} deleted=1 kept=0 bytes=6 "
        why = " stopped='the client that asked for the prune has gone' by "
        wait(lambda: any(line.startswith(said) and why in line for line in caplog.messages))
        assert not (data.root / SPIKES).exists()
        assert (data.root / TRIALS).exists()
        wait(lambda: any(isinstance(message, PrunedNotice) for message in box.engine.taken))
        assert box.ask("POST", "/v1/prune/apply", {"plan_id": plan.plan_id})[0] == 400  # it was used up
        again = box.client.plan_prune(data.reference, newer=True)
        assert [item.path for item in box.client.apply_prune(again.plan_id).files] == [TRIALS]


def test_a_client_that_only_has_no_more_to_say_has_not_left(data):
    with prune_box(data) as box:
        body = json.dumps({"plan_id": box.client.plan_prune(data.reference, newer=True).plan_id}).encode()
        head = b"POST /v1/prune/apply HTTP/1.1\r\nHost: d\r\nAlfwatchd-Root: %b\r\nContent-Length: %d\r\n\r\n"
        answer = box.exchange(head % (root_of(box), len(body)) + body, half_close=True)
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["files"]) == 2


def test_no_question_of_a_prune_copies_the_tables(data):
    with prune_box(data) as box:
        plan = box.client.plan_prune(data.reference, newer=True)
        box.client.apply_prune(plan.plan_id)
        kinds = [type(message) for message in box.engine.taken]
    assert kinds.count(SnapshotRequest) == 1  # from which the plan was made
    assert kinds.count(RootCheckRequest) == 1 + 2 + 1 + 2  # before each of the two sessions, and before all


def test_status_is_answered_while_a_prune_runs(data):
    with prune_box(data) as box, apply_held(box, data) as (held, _):
        assert box.is_alive()
        give(held, RootOffline("enough"))


# The description.


def test_the_description_names_all_replies(box: Box):
    status, described = box.ask("GET", "/openapi.json")
    assert status == 200
    assert described["openapi"].startswith("3.")
    assert {(method, path) for path, methods in described["paths"].items() for method in methods} == {
        *(("get", f"/v1/{name}") for name in ("status", "ids/{old}", "prune/plans")),
        *(("post", f"/v1/{name}") for name in ("sync", "flush", "rescan", "recompute_ids")),
        *(("post", f"/v1/prune/{name}") for name in ("plan", "apply", "undo", "empty")),
    }
    schemas = described["components"]["schemas"]
    for kind in (
        api.Status, api.SyncReply, api.FlushReply, api.RescanReply, api.PruneReply,
        api.PruneItem, api.IdsReply, api.IdStep, api.RecomputeReply, api.AdoptStatus,
        api.ProblemReply, api.RescanNote, control_api.ErrorReply,
        api.TrashReply, api.PlansReply, api.PlanRecord,
        control_service.RescanBody, control_service.PlanBody, control_service.ApplyBody,
        control_service.UndoBody, control_service.EmptyBody,
    ):  # fmt: skip
        names = kind.model_fields if hasattr(kind, "model_fields") else [field.name for field in fields(kind)]
        assert schemas[kind.__name__]["properties"].keys() == set(names)
    for reference in set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(described))):
        assert reference.removeprefix("#/components/schemas/") in schemas
    for operation in (each for methods in described["paths"].values() for each in methods.values()):
        assert operation["description"]
        for code, answer in operation["responses"].items():
            schema = answer["content"]["application/json"]["schema"]["$ref"]
            assert (schema == "#/components/schemas/ErrorReply") == (code != "200")
