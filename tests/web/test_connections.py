"""Bytes that are not HTTP, heads without end, slow clients, and more clients than there is room for.

If one of these fails, one client can keep all others from being answered, or fill the memory.
"""

import gc
import json
import resource
import select
import socket
import sys
import types
from contextlib import suppress
from dataclasses import replace

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from alfwatchd import api, errors
from alfwatchd.api import (
    StatusRequest,
    SyncRequest,
)
from alfwatchd.web import (
    connections,
)
from kit.control import (
    GET_STATUS,
    HOLD,
    STATUS,
    WAIT_SECONDS,
    Box,
    control_box,
    flood,
    give,
    open_files,
    read_all,
    wait,
)

pytestmark = pytest.mark.usefixtures("no_readers")


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


def test_a_request_that_ends_early_does_not_reach_the_engine(box: Box):
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
def test_a_head_that_is_too_long_is_refused_also_in_one_piece(box: Box, line, size):
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


def test_trailers_that_are_too_long_are_refused_also_in_one_piece(box: Box):
    head = b"POST /v1/sync HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    assert not box.exchange(head + b"X: " + b"x" * 60_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_one_implementation_of_http_is_used_whatever_is_installed(monkeypatch):
    """uvicorn takes httptools where it is there; the limits here are those of h11."""
    assert issubclass(connections.Protocol, H11Protocol)
    monkeypatch.setitem(sys.modules, "httptools", types.ModuleType("httptools"))
    with control_box() as box:
        with box.connect():
            wait(lambda: box.server.connections)
            assert all(isinstance(each, connections.Protocol) for each in box.server.connections)
        assert box.exchange(make_head(b"X: %s\r\n", MOST_HEAD_BYTES + 1)).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_sends_nothing_is_dropped(impatient):
    with control_box() as box:
        assert box.exchange() == b""


def test_a_client_that_closed_its_sending_side_is_answered():
    # As `printf ... | nc -U` does: it closes its sending side, then reads.
    with control_box({SyncRequest: HOLD}) as box, box.connect() as connection:
        connection.sendall(GET_STATUS.replace(b"GET /v1/status", b"POST /v1/sync"))
        connection.shutdown(socket.SHUT_WR)
        give(box.engine.held.get(timeout=WAIT_SECONDS), api.SyncReply(1, "exact", 0.0))
        assert b'"generation":1' in read_all(connection)


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


def test_200_idle_clients_do_not_delay_others(impatient):
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
        wait(lambda: not box.server.connections)
        gc.collect()
        assert sum(isinstance(each, connections.Protocol) for each in gc.get_objects()) <= 2


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


def test_a_silent_client_is_dropped_to_make_room_for_one_that_asks(room_for_eight):
    with control_box() as box:
        silent = [box.connect() for _ in range(8)]
        assert box.is_alive()
        assert select.select(silent, [], [], WAIT_SECONDS)[0] == silent[:1]  # the first that came
        assert read_all(silent[0]) == b""
        for each in silent:
            each.close()


def test_requests_that_wait_are_kept_and_further_clients_are_refused(room_for_eight):
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


def test_a_client_that_does_not_read_is_dropped(impatient, monkeypatch, long_answer):
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.4)
    with control_box(long_answer) as box:
        before = open_files()
        with ask_without_reading(box) as connection:
            wait(lambda: len(open_files()) == len(before) + 2)  # both ends
            wait(lambda: len(open_files()) == len(before) + 1, "a client that does not read is kept for ever")
            assert len(read_all(connection)) < 4_000_000
        assert len(box.client.status().detail) == 4_000_000


def test_answers_that_are_not_read_do_not_fill_the_memory(monkeypatch, long_answer):
    monkeypatch.setattr(connections, "MOST_UNREAD_BYTES", 10_000_000)
    with control_box(long_answer) as box:
        asked = []
        for _ in range(5):
            asked.append(ask_without_reading(box))
            wait(lambda: len(box.engine.taken) == len(asked))
        assert [len(read_all(each)) > 4_000_000 for each in asked] == [False, False, False, True, True]
        for each in asked:
            each.close()
