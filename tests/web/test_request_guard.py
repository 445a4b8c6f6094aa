"""Bodies that are too long or too slow, and clients that disconnect while their answer is made.

If one of these fails, a client can fill the memory, or the engine works for clients that are gone.
"""

import json
import select
import socket
import time

import pytest

from alfwatchd import api
from alfwatchd.api import (
    SyncRequest,
)
from alfwatchd.web import (
    connections,
)
from kit.control import GET_STATUS, HOLD, WAIT_SECONDS, Box, control_box, flood, give, open_files, read_all, wait

pytestmark = pytest.mark.usefixtures("no_readers")


BODIES = [
    ("Content-Length: 100000000", b"x" * 65536),
    ("Content-Length: 65537", b"x" * 65536),
    ("Transfer-Encoding: chunked", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    ("Transfer-Encoding: chunked", b"1\r\nx\r\n" * 10000),
]


@pytest.mark.parametrize(("header", "piece"), BODIES)
@pytest.mark.parametrize("path", ["/v1/rescan", "/v1/sync", "/nope"])
def test_a_body_without_end_is_refused_unread(box: Box, monkeypatch, path, header, piece):
    monkeypatch.setattr(connections, "REQUEST_SECONDS", WAIT_SECONDS)  # on a busy machine, it takes long to send
    with box.connect() as connection:
        received, n_sent = flood(connection, f"POST {path} HTTP/1.1\r\nHost: d\r\n{header}\r\n\r\n".encode(), piece)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert "more than 65536 bytes" in json.loads(body)["message"]
    assert n_sent < 4_000_000  # the socket's own buffers
    assert box.engine.taken == []


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
def test_a_client_that_sends_too_slowly_is_refused(impatient, sent):
    with control_box() as box:
        head, _, body = box.exchange(sent).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert "the request did not come within" in json.loads(body)["message"]
        assert box.engine.taken == []


def test_an_engine_may_take_longer_than_a_client(impatient):
    with control_box({SyncRequest: HOLD}) as box, box.connect() as connection:
        connection.sendall(GET_STATUS.replace(b"GET /v1/status", b"POST /v1/sync"))
        held = box.engine.held.get(timeout=WAIT_SECONDS)
        assert select.select([connection], [], [], 3 * connections.REQUEST_SECONDS)[0] == []
        give(held, api.SyncReply(1, "exact", 0.0))
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_disconnects_cancels_its_request(impatient):
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
def test_a_client_that_disconnects_unnoticed_is_found_out(impatient, sent, half_close):
    with control_box({SyncRequest: HOLD}) as box:
        with box.connect() as connection:
            connection.sendall(GET_STATUS.replace(b"GET /v1/status", b"POST /v1/sync") + sent)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            held = box.engine.held.get(timeout=WAIT_SECONDS)
            time.sleep(2 * connections.REQUEST_SECONDS)
            assert not held.reply.cancelled()
        wait(held.reply.cancelled, "the engine is kept waiting")
        wait(lambda: not box.server.connections)
