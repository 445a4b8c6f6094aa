"""The Python client of the control API.

If one of these fails, a script gets a wrong answer or an unclear error, or waits for ever.
"""

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

import alfwatchd
from alfwatchd import api, errors
from alfwatchd.api import FlushRequest, RescanRequest, StatusRequest, SyncRequest
from alfwatchd.errors import AlfwatchdError, NoDaemon, NotAllowed, RequestFailed, TooOften
from alfwatchd.web import client, connecting
from alfwatchd.web.client import Client
from kit.control import ANSWERS, HOLD, STATUS, WAIT_SECONDS, control_box, give, open_files, wait


@pytest.fixture(scope="module")
def shared_box():
    with control_box() as box:
        yield box


@pytest.fixture
def box(shared_box):
    shared_box.engine.taken.clear()
    before = open_files()
    yield shared_box
    wait(lambda: open_files().items() <= before.items(), "a connection was left open")


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="alfwatchd-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


CALLS = [
    ("status", (), {}, StatusRequest, {}),
    ("sync", (), {}, SyncRequest, {}),
    ("flush", (), {}, FlushRequest, {}),
    ("rescan", (), {}, RescanRequest, {"path": "", "accept_root": False}),
    ("rescan", ("lab/é",), {"accept_root": True}, RescanRequest, {"path": "lab/é", "accept_root": True}),
]


@pytest.mark.parametrize(("name", "positional", "named", "kind", "asked"), CALLS)
def test_calls(box, name, positional, named, kind, asked):
    reply = getattr(box.client, name)(*positional, **named)
    assert reply == ANSWERS[kind]  # also the values inside of lists
    assert type(reply) is type(ANSWERS[kind])
    (message,) = box.engine.taken
    assert type(message) is kind
    assert {key: getattr(message, key) for key in asked} == asked


def test_the_client_is_public():
    assert alfwatchd.Client is Client


def test_all_errors_keep_their_class():
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, AlfwatchdError)]
    assert len(kinds) > 10
    with control_box() as box:
        for kind in kinds:
            box.engine.answers[FlushRequest] = kind("what, where, what to do")
            with pytest.raises(AlfwatchdError, match="what, where, what to do") as caught:
                box.client.flush()
            assert type(caught.value) is kind
            assert caught.value.exit_code == kind.exit_code


def test_a_bug_in_the_daemon():
    with control_box({SyncRequest: ZeroDivisionError("oh")}) as box:
        with pytest.raises(RequestFailed, match="unexpected ZeroDivisionError in the daemon"):
            box.client.sync()
        assert box.client.status() == STATUS


# Where no daemon answers.


def bind(path, *, backlog):
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    if backlog is not None:
        listening.listen(backlog)
    return listening


def test_no_daemon(folder):
    (folder / "file").write_text("")
    with bind(folder / "left behind", backlog=None):
        pass
    for name in ("nothing", "file", "file/below", "left behind"):
        with pytest.raises(NoDaemon, match="no daemon answers here; start `alfwatchd`") as caught:
            Client(folder / name).status()
        assert str(caught.value).startswith(f"{folder / name}: ")


def test_a_path_that_is_too_long(folder):
    with pytest.raises(RequestFailed, match="cannot connect"):
        Client(folder / ("x" * 108)).status()


@pytest.mark.skipif(os.getuid() != 0, reason="root may connect to any socket, and only root can become nobody")
def test_a_socket_of_another_user(folder):
    folder.chmod(0o755)
    with bind(folder / "s", backlog=5):
        (folder / "s").chmod(0o600)
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
        try:
            with pytest.raises(NotAllowed, match=r"no group is set \(control\.group\): an administrator can write"):
                Client(folder / "s").status()
        finally:
            os.seteuid(0)


def test_a_daemon_that_is_too_busy_to_accept(folder, monkeypatch):
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 1)
    with bind(folder / "s", backlog=0), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first:
        first.connect(str(folder / "s"))  # the one connection that may wait to be accepted
        with pytest.raises(RequestFailed, match="accepted no connection within 1 seconds"):
            Client(folder / "s").status()


def test_a_client_waits_while_others_are_accepted(folder):
    with bind(folder / "s", backlog=0) as listening:
        first = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        first.connect(str(folder / "s"))
        with ThreadPoolExecutor() as pool, first:
            status = pool.submit(Client(folder / "s", timeout=WAIT_SECONDS).status)
            assert not futures.wait([status], timeout=0.3).done
            listening.accept()[0].close()
            answer(listening, json.dumps(asdict(STATUS)))
            assert status.result() == STATUS


def answer(listening, body, head="HTTP/1.1 200 OK\r\n"):
    connection, _ = listening.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())


def test_200_clients_at_once(box):
    with ThreadPoolExecutor(200) as pool:
        found = list(pool.map(lambda _: box.client.status(), range(200)))
    assert found == [STATUS] * 200


def test_no_answer_in_time():
    with control_box({SyncRequest: HOLD}) as box:
        with pytest.raises(RequestFailed, match=r"no answer within 0\.1 seconds"):
            Client(box.path, timeout=0.1).sync()
        give(box.engine.held.get(timeout=WAIT_SECONDS), api.SyncReply(1, "exact", 0.0))
        assert box.client.status() == STATUS


def test_a_client_that_syncs_too_often_waits_as_long_as_it_is_told(monkeypatch):
    slept, told = [], []
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append))
    answers = iter([TooOften("soon", 7.2), TooOften("now", 0.0), ANSWERS[SyncRequest], TooOften("later", 130.0)])
    with control_box({SyncRequest: lambda _: next(answers)}) as box:
        assert box.client.sync(told.append) == ANSWERS[SyncRequest]
        assert [str(error) for error in told] == ["soon", "now"]
        assert slept == [8, 1]
        with pytest.raises(TooOften, match="later") as caught:  # later than the timeout of this client
            box.client.sync(told.append)
    assert (caught.value.wait_seconds, len(slept)) == (130, 2)


def test_without_a_timeout_the_client_waits():
    with control_box({SyncRequest: HOLD}) as box, ThreadPoolExecutor() as pool:
        waiting = pool.submit(Client(box.path).sync)
        give(box.engine.held.get(timeout=WAIT_SECONDS), api.SyncReply(1, "exact", 0.0))
        assert waiting.result(WAIT_SECONDS) == api.SyncReply(1, "exact", 0.0)


def test_a_daemon_that_stops_before_it_answers():
    with control_box({SyncRequest: HOLD}) as box, ThreadPoolExecutor() as pool:
        waiting = pool.submit(box.client.sync)
        box.engine.held.get(timeout=WAIT_SECONDS).reply.set_exception(AlfwatchdError("the daemon is stopping"))
        with pytest.raises(AlfwatchdError, match="the daemon is stopping"):
            waiting.result(WAIT_SECONDS)


# Answers of something else, and of other versions.


@contextmanager
def answering(folder, body, head="HTTP/1.1 200 OK\r\n"):
    with bind(folder / "s", backlog=5) as listening:
        thread = threading.Thread(target=answer, args=(listening, body, head))
        thread.start()
        yield Client(folder / "s", timeout=WAIT_SECONDS)
        thread.join()


STRANGE = [
    ("not JSON", "HTTP/1.1 200 OK\r\n", "the daemon ended the connection"),
    ("[1, 2]", "HTTP/1.1 200 OK\r\n", "this is not an answer of an alfwatchd daemon"),
    ("{}", "SSH-2.0-OpenSSH_9.2\r\n", "the daemon ended the connection"),
    ("{}", "HTTP/1.1 200 OK\r\n", "the daemon's answer lacks fields"),
    ('{"generation": 1}', "HTTP/1.1 200 OK\r\n", "the daemon's answer lacks fields"),
    ('{"error": "Busy", "message": "try again"}', "HTTP/1.1 409 Conflict\r\n", "^try again$"),
    ('{"error": "NewError", "message": "of a newer daemon"}', "HTTP/1.1 500 Oops\r\n", "^of a newer daemon$"),
    ('{"error": "__doc__", "message": "no class"}', "HTTP/1.1 500 Oops\r\n", "^no class$"),
    ('{"detail": "of another program"}', "HTTP/1.1 404 Not Found\r\n", "of another program"),
]


@pytest.mark.parametrize(("body", "head", "text"), STRANGE)
def test_strange_answers(folder, body, head, text):
    with answering(folder, body, head) as client, pytest.raises(AlfwatchdError, match=text) as caught:
        client.sync()
    assert type(caught.value) is (errors.Busy if "Busy" in body else RequestFailed)


def test_a_connection_that_is_closed_at_once(folder):
    with bind(folder / "s", backlog=5) as listening, ThreadPoolExecutor() as pool:
        status = pool.submit(Client(folder / "s", timeout=WAIT_SECONDS).status)
        listening.accept()[0].close()
        with pytest.raises(RequestFailed, match="the daemon ended the connection"):
            status.result()


def test_a_newer_daemon_may_say_more(folder):
    more = asdict(STATUS) | {"mood": "good"}
    more["rescans"][0]["mood"] = "good"
    with answering(folder, json.dumps(more)) as client:
        assert client.status() == STATUS


def test_the_client_needs_neither_pandas_nor_pyarrow_nor_the_server():
    program = "import sys, alfwatchd.web.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "alfwatchd.web.client" in loaded
    assert not {"numpy", "pandas", "pyarrow", "pydantic", "fastapi", "asyncio"} & set(loaded)
