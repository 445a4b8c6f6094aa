"""The server's thread: how it ends, and that it sleeps.

If one of these fails, a daemon does not end, ends without answering, or takes CPU time for nothing.
"""

import asyncio
import re
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

from alfwatchd import api
from alfwatchd.api import (
    SyncRequest,
)
from alfwatchd.errors import AlfwatchdError, RootOffline
from alfwatchd.journal.journal import Feed
from alfwatchd.service.configuration import load
from alfwatchd.web import (
    control_api,
    control_socket,
    http_server,
)
from alfwatchd.web.change_feed import ChangeFeed
from alfwatchd.web.control_service import ControlService
from kit.control import (
    GET_STATUS,
    HOLD,
    WAIT_SECONDS,
    control_box,
    give,
    read_all,
    wait,
)

pytestmark = pytest.mark.usefixtures("no_readers")


@pytest.mark.parametrize("n_rounds", range(8))
def test_connections_accepted_during_shutdown_are_closed_at_once(n_rounds, caplog):
    # asyncio accepts first and tells the server some rounds of its loop later, in which it may have begun to end.
    with control_box() as box:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

        def come() -> None:
            client.connect(str(box.path))
            go_on(n_rounds)

        def go_on(left: int) -> None:
            asyncio.get_running_loop().call_soon(go_on, left - 1) if left else box.server.end()

        box.server.call_soon(come)
        wait(lambda: not box.server.is_alive)
        client.close()
    assert "graceful" not in caplog.text


def test_a_shortage_of_descriptors_does_not_fill_the_log(caplog):
    with control_box() as box:
        what = "socket.accept() out of system resource"
        for number in range(50):
            context = {"message": what, "exception": OSError(24, f"n {number}")}
            box.server.call_soon(lambda told=context: asyncio.get_running_loop().call_exception_handler(told))
        assert box.is_alive()
    assert [record.getMessage() for record in caplog.records] == [
        "a client cannot be served error=[Errno 24] n 0 what=socket.accept() out of system resource"
    ]


def test_an_answer_that_comes_after_the_end_breaks_nothing(impatient):
    with control_box({SyncRequest: HOLD}) as box:
        with box.connect() as connection:
            connection.sendall(GET_STATUS.replace(b"GET /v1/status", b"POST /v1/sync"))
            held = box.engine.held.get(timeout=WAIT_SECONDS)
            box.server.close()  # it waits no longer than its grace, and cancels what is left
            assert b"the daemon is stopping" in read_all(connection)
        assert held.reply.cancelled()
        give(held, api.SyncReply(1, "exact", 0.0))
        give(held, AlfwatchdError("too late"))


def test_when_the_engine_ends_clients_are_told():
    with control_box() as box:
        box.engine.stop()  # from now on, requests are refused
        for method, path in (("GET", "/v1/status"), ("POST", "/v1/sync"), ("POST", "/v1/prune/plan")):
            assert box.ask(method, path) == (
                500,
                {"error": "AlfwatchdError", "message": "the daemon is stopping; ask again when it is back"},
            )


def test_requests_that_were_not_taken_are_refused_at_the_end():
    with control_box() as box:
        box.engine.stop_taking()
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
        wait(lambda: box.server.is_ending)
        give(held, RootOffline("gone"))
        assert read_all(connection).startswith(b"HTTP/1.1 503 ")
        closing.join()


def test_a_server_that_is_closed_at_once_ends():
    """Wherever its thread is by then: it waits for the end without looking around."""
    settings = load({"root": "/srv/alf"}, environ={}).settings
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        feed = ChangeFeed(Feed(Path(folder)), lambda: None)
        app = control_api.create_app(ControlService(lambda _: None, lambda: settings), feed)
        for _ in range(20):
            with control_socket.listen(Path(folder) / "s", "") as listening:
                closed = http_server.Server(app, listening)
                closed.close()
                assert not closed.is_alive


def test_an_idle_server_sleeps():
    """A daemon does nothing most of the time, and uvicorn alone would wake up ten times a second."""

    def times_asleep():
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[1])

    before = set(threading.enumerate())
    with control_box() as box:
        assert box.is_alive()
        (thread,) = (each for each in set(threading.enumerate()) - before if each.name == "server")
        for _ in range(20):  # the answer may take long to end
            before = times_asleep()
            time.sleep(0.5)
            if times_asleep() - before <= 1:
                return
    raise AssertionError("it never sleeps")
