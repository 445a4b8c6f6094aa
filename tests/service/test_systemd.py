"""What systemd is told, and when: else it would kill a daemon that works, or keep one that hangs."""

import fcntl
import io
import math
import os
import select
import socket
import subprocess
import sys

import pytest

from alfwatchd.service import systemd


@pytest.fixture
def manager(tmp_path):
    """The service manager's end of the notification socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        yield receiver


@pytest.fixture
def environ(manager):
    return {"NOTIFY_SOCKET": manager.getsockname()}


MESSAGES = [
    (systemd.ready, ("watching 12 sessions",), "READY=1\nSTATUS=watching 12 sessions"),
    (systemd.status, ("scan 3 of 12",), "STATUS=scan 3 of 12"),
    (systemd.status, ("two\nlines\r\nof\u2028text",), "STATUS=two lines of text"),
    (systemd.status, ("añb\udcff",), "STATUS=añb?"),
    (systemd.reloading, (1234567,), "RELOADING=1\nMONOTONIC_USEC=1234567"),
    (systemd.stopping, (), "STOPPING=1\nSTATUS=last flush"),
    (systemd.watchdog, (), "WATCHDOG=1"),
]


@pytest.mark.parametrize(("function", "arguments", "expected"), MESSAGES)
def test_messages(manager, environ, function, arguments, expected):
    assert function(*arguments, environ=environ)
    assert manager.recv(4096).decode() == expected


def test_the_process_environment_is_the_default(manager, environ, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", environ["NOTIFY_SOCKET"])
    assert systemd.watchdog()
    assert manager.recv(4096) == b"WATCHDOG=1"


def test_abstract_socket():
    name = f"alfwatchd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name)
        receiver.settimeout(5)
        assert systemd.watchdog({"NOTIFY_SOCKET": "@" + name})
        assert receiver.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    "address",
    [
        None,
        "",
        "relative/path",
        "vsock:2:1234",
        "/nonexistent/notify",
        "@nobody-listens-here",
        "/" + "x" * 200,
    ],
)
def test_no_socket_is_no_error(address):
    environ = {} if address is None else {"NOTIFY_SOCKET": address}
    assert not systemd.ready("up", environ)


def test_a_manager_that_does_not_read_cannot_stop_the_loop(manager, environ):
    sent = [systemd.watchdog(environ) for _ in range(10_000)]  # a blocking send would hang here
    assert sent[0]
    assert not sent[-1]
    manager.recv(4096)
    assert systemd.watchdog(environ)


def test_a_status_too_long_for_a_datagram_is_no_error(manager, environ):
    assert not systemd.status("x" * 10_000_000, environ)


# What the loop tells, round by round.


def heard(manager):
    """All that was sent, one word per message."""
    words = []
    while select.select([manager], [], [], 0)[0]:
        words.append(manager.recv(4096).decode().replace("\n", " "))
    return words


def test_the_first_round_says_ready_and_later_ones_what_changes(manager, environ):
    service = systemd.Service(environ)
    assert [service.tell(now, "one") for now in (100.0, 100.1)] == [math.inf, math.inf]
    assert heard(manager) == ["READY=1 STATUS=one", "STATUS=one"]
    service.tell(100.9, "two")  # too soon after the last one
    service.tell(101.2, "three")
    service.tell(200.0, "three")
    assert heard(manager) == ["STATUS=three"]


def test_a_reload_is_announced_at_once_and_ends_with_ready(manager, environ):
    service = systemd.Service(environ)
    service.tell(100.0, "one")
    heard(manager)
    service.begin_reload(5)
    service.begin_reload(6)
    assert heard(manager) == ["RELOADING=1 MONOTONIC_USEC=5", "RELOADING=1 MONOTONIC_USEC=6"]
    service.tell(100.1, "two")
    assert heard(manager) == ["READY=1 STATUS=two"]


def test_nothing_but_pings_follows_stopping(manager, environ):
    service = systemd.Service({**environ, "WATCHDOG_USEC": "20000000"})
    service.tell(100.0, "one")
    heard(manager)
    for now in (101.0, 105.0, 110.0):
        service.tell(now, f"at {now}", is_stopping=True)
    assert heard(manager) == ["STOPPING=1 STATUS=last flush", "WATCHDOG=1"]


def test_the_watchdog_is_fed_at_half_of_its_limit(manager, environ):
    service = systemd.Service({**environ, "WATCHDOG_USEC": "20000000"})
    assert [service.ping(now) for now in (100.0, 104.0, 109.5, 110.0, 115.0)] == [10.0, 6.0, 0.5, 10.0, 5.0]
    assert heard(manager) == ["WATCHDOG=1"] * 2


def test_what_a_busy_manager_does_not_take_is_said_again_in_order(manager, environ):
    service = systemd.Service({**environ, "WATCHDOG_USEC": "20000000"})
    service.tell(100.0, "one")
    while systemd.watchdog(environ):
        pass  # the queue is full now
    service.begin_reload(7)
    assert service.tell(110.0, "two") == 1.0  # comes back soon, but does not spin
    heard(manager)
    service.tell(111.0, "three")
    assert heard(manager) == ["RELOADING=1 MONOTONIC_USEC=7", "READY=1 STATUS=three", "WATCHDOG=1"]
    while systemd.watchdog(environ):
        pass
    service.tell(112.0, "four", is_stopping=True)
    heard(manager)
    service.tell(113.0, "four", is_stopping=True)
    assert heard(manager) == ["STOPPING=1 STATUS=last flush"]


def test_without_systemd_a_round_costs_nothing():
    service = systemd.Service({})
    service.begin_reload(1)
    assert service.tell(1.0, "text") == service.tell(2.0, "text", is_stopping=True) == math.inf


ME = str(os.getpid())


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": ME}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_USEC": "1500000"}, 0.75),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
    ],
)
def test_watchdog_interval(environ, seconds):
    assert systemd.watchdog_interval(environ) == seconds


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "2"},
        {"LISTEN_FDS": "2", "LISTEN_PID": "1"},
        {"LISTEN_PID": ME},
        {"LISTEN_PID": ME, "LISTEN_FDS": "many"},
    ],
)
def test_no_passed_sockets(environ):
    assert systemd.listen_fds(environ) == []


PASSED = """
import os, socket, sys
from alfwatchd.service import systemd
for number, fd in enumerate(sys.argv[1:], start=3):
    os.dup2(int(fd), number)
fds = systemd.listen_fds({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"})
print(fds, [os.get_inheritable(fd) for fd in fds], [socket.socket(fileno=fd).getsockname() for fd in fds])
"""


def test_passed_sockets_are_found_and_not_passed_on():
    """In its own process, because the numbers 3 and 4 are fixed."""
    names = [f"\0alfwatchd-test-{os.getpid()}-{letter}" for letter in "ab"]
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for name, listener in zip(names, (first, second), strict=True):
            listener.bind(name)
        fds = [fcntl.fcntl(listener, fcntl.F_DUPFD, 10) for listener in (first, second)]
        command = [sys.executable, "-c", PASSED, *map(str, fds)]
        done = subprocess.run(command, pass_fds=fds, capture_output=True, text=True)
        for fd in fds:
            os.close(fd)
    expected = [name.encode() for name in names]
    assert done.stdout.strip() == f"[3, 4] [False, False] {expected}", done.stderr


def test_a_promised_socket_that_is_not_open_is_an_error():
    with pytest.raises(OSError, match="Bad file descriptor"):
        systemd.listen_fds({"LISTEN_PID": ME, "LISTEN_FDS": "99999"})


def test_journal_attached(tmp_path):
    with (tmp_path / "log").open("w") as stream:
        target = os.fstat(stream.fileno())
        here = f"{target.st_dev}:{target.st_ino}"
        assert systemd.journal_attached(stream, {"JOURNAL_STREAM": here})
        assert not systemd.journal_attached(stream, {"JOURNAL_STREAM": f"{target.st_dev}:{target.st_ino + 1}"})
        assert not systemd.journal_attached(stream, {})
    assert not systemd.journal_attached(stream, {"JOURNAL_STREAM": here})


def test_a_stream_without_a_file_is_not_the_journal():
    assert not systemd.journal_attached(io.StringIO(), {"JOURNAL_STREAM": "8:1"})
