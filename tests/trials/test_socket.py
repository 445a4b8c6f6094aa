"""Attacks on the control socket of a real daemon: after each it lives, has gone on working, and has lost nothing."""

import json
import os
import random
import resource
import select
import shutil
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from alfwatchd import Client, make_parquet_db
from alfwatchd.errors import AlfwatchdError, Busy
from alfwatchd.web.root_header import HEADER
from kit.program import Program, listed, make_small_tree, program, walk

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

SESSION = "lab/Subjects/s1/2020-01-01/001"
DESCRIPTORS = 1024  # as a shell gives them to a daemon
PATIENCE = 120  # seconds that a client waits for any answer
MOST_MEMORY = 150 << 20
SLOWEST = 60.0  # seconds for status: no more than a busy machine explains
KNOWN = {"UsageError", "WrongRoot", "NotAllowed", "PruneRefused", "Busy", "RequestFailed"}


@dataclass
class Target:
    """A daemon under attack, and one of its users, who notices nothing."""

    daemon: Program
    lists_little: Path
    """A folder of reference tables that know of no file."""
    rest: tuple[int, int] = (0, 0)
    memory: int = 0
    slowest: float = 0.0
    n_written: int = 0
    n_busy: int = 0
    troubles: list[str] = field(default_factory=list)

    def connect(self):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(self.daemon.socket))
        connection.settimeout(PATIENCE)
        return connection

    def send(self, sent, *, half_close=False):
        """Send bytes, as far as they are taken; return all that comes back."""
        with self.connect() as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(sent)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

    def ask(self, path, body, method="POST"):
        return self.send(self.request(path, body, method))

    def request(self, path, body, method="POST"):
        """Return a request that names the root."""
        return request(path, body, method, self.daemon.root)

    def usage(self):
        about = psutil.Process(self.daemon.pid)
        return about.num_fds(), about.num_threads()

    @contextmanager
    def user(self):
        """Write a file again and again, sync, and find it in the tables; ask for status."""
        over = threading.Event()

        def work():
            client = Client(self.daemon.socket, timeout=120)
            while not over.wait(0.1):
                try:
                    self.n_written += 1
                    name = f"n{self.n_written % 50}.times.npy"
                    (self.daemon.root / SESSION / name).write_bytes(b"x" * (self.n_written % 1000))
                    began = time.monotonic()
                    client.status()
                    self.slowest = max(self.slowest, time.monotonic() - began)
                    client.sync()
                except Busy:  # says itself to come again
                    self.n_busy += 1
                except (AlfwatchdError, OSError) as error:
                    self.troubles.append(repr(error))

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("the tests themselves may not open 4096 files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    root = make_small_tree(tmp_path_factory.mktemp("attacked") / "root")
    many = root / "lab/Subjects/many/2020-01-01/001"
    many.mkdir(parents=True)
    for number in range(4000):
        (many / f"a.number{number}.npy").touch()
    lists_little = tmp_path_factory.mktemp("reference")
    one = next(each.relative_to(root) for each in root.rglob("*.npy") if each.parent != many)
    (lists_little / "root" / one.parent).mkdir(parents=True)
    shutil.copy(root / one, lists_little / "root" / one)
    make_parquet_db(lists_little / "root", lists_little)
    config = tmp_path_factory.mktemp("config") / "config.toml"
    config.write_text("[prune]\nenabled = true\nmax_fraction = 1\n")
    with program(root, prefix=["prlimit", f"--nofile={DESCRIPTORS}"]) as daemon:
        daemon.start(f"--config={config}")
        target = Target(daemon, lists_little)
        daemon.client.plan_prune(str(lists_little))
        target.ask("/v1/prune/apply", {"plan_id": "x"})
        with target.user():  # flushes start the last of the threads there are
            daemon.wait(lambda: target.n_written > 5)
        target.memory = psutil.Process(daemon.pid).memory_info().rss
        yield target
        daemon.stop()
        assert daemon.log.count("Traceback") == 0
        assert len(daemon.log) < 2_000_000, "an attack fills the log"
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def target(running):
    """Let a user work during the attack; afterwards, look whether it did any harm."""
    running.daemon.client.sync()
    running.daemon.wait(lambda: running.usage()[0] < 40)
    running.slowest, running.n_busy, running.troubles = 0.0, 0, []
    before, n_written = running.usage(), running.n_written
    with running.user():
        yield running
        running.daemon.wait(lambda: running.n_written > n_written + running.n_busy + 2)
    running.daemon.wait(lambda: all(now <= then for now, then in zip(running.usage(), before, strict=True)))
    assert running.troubles == []
    assert running.slowest < SLOWEST
    running.daemon.client.sync()
    assert listed(running.daemon.root, running.daemon.root) == walk(running.daemon.root)
    assert psutil.Process(running.daemon.pid).memory_info().rss < running.memory + MOST_MEMORY


def request(path, body=None, method="POST", root=None):
    text = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    named = f"{HEADER}: {root}\r\n" if root else ""
    return f"{method} {path} HTTP/1.1\r\nHost: d\r\n{named}Content-Length: {len(text)}\r\n\r\n".encode() + text


def read_all(connection):
    """Read until the server closes, in one way or the other."""
    received = b""
    with suppress(ConnectionResetError, BrokenPipeError):
        while part := connection.recv(1 << 16):
            received += part
    return received


def status_of(answer):
    """Return the status of a whole answer, after a look at what it says; 0 if there is none."""
    if not answer:
        return 0
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    said = json.loads(body)
    if status != 200:
        assert 400 <= status < 500 or said["error"] == "Busy", answer
        assert said["error"] in KNOWN, answer
        assert len(said["message"]) > 20, answer
    return status


REQUESTS = [
    request("/v1/status", method="GET"),
    request("/v1/sync"),
    request("/v1/rescan", {"path": SESSION, "accept_root": False}),
    request("/v1/prune/plan", {"reference": "/nowhere", "max_fraction": 0.5}, root="/nowhere"),
    request("/v1/prune/apply", {"plan_id": "0123456789abcdef"}, root="/tmp"),
    request("/v1/rescan", {"path": "lab"})
    .replace(b"Content-Length: 15", b"Transfer-Encoding: chunked")
    .replace(b'{"path": "lab"}', b'5\r\n{"pat\r\na\r\nh": "lab"}\r\n0\r\n\r\n'),
]
ODD = [
    b"\0",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b":",
    b"%00",
    b"../",
    b"\xff",
    b"\xc3\xa9",
    b"{",
    b"[",
    b'"',
    b"9" * 400,
    b"-",
]


def mutated(rng):
    """Return a request with some bytes changed, taken out, repeated or put in."""
    sent = bytearray(rng.choice(REQUESTS))
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(len(sent) + 1)
        match rng.randrange(5):
            case 0:
                sent[at:at] = rng.choice(ODD)
            case 1:
                del sent[at : at + rng.choice([1, 2, 10, 50])]
            case 2:
                sent[at : at + 1] = bytes([rng.randrange(256)])
            case 3:
                sent[at:at] = sent[at : at + rng.randrange(40)] * rng.choice([1, 2, 100])
            case 4:
                del sent[at:]
    return bytes(sent)


def test_damaged_requests(target, scale, tally):
    """What comes back is right, a clear refusal, or nothing, where the request had no end."""
    rng = random.Random(1)
    n_refused = 0
    for _ in range(scale(400, 20_000)):
        status = status_of(target.send(mutated(rng), half_close=True))
        n_refused += status >= 400
        tally["requests"] += 1
    assert n_refused > tally["requests"] / 4


def test_requests_cut_off_anywhere(target, tally):
    """Clients that go in the middle, and such that only say that no more will come."""
    for sent in REQUESTS:
        for length in range(len(sent)):
            with target.connect() as connection:
                connection.sendall(sent[:length])
            tally["requests"] += 1
        for length in range(0, len(sent), 7):
            assert status_of(target.send(sent[:length], half_close=True)) in (0, 400)
            tally["requests"] += 1


WRONG_BODIES = [
    b"null", b"[]", b"0", b'"x"', b"[" * 60000, b'{"a":' * 12000, b'{"path": 1, "path": 2}', b'{"path": NaN}',
    b'{"path": "' + b"x" * 5000 + b'"}', b'{"path": "\\ud800"}', b'{"path": "\xff\xfe"}', b"\xff\xfe{\0}\0",
    b"{" + b" " * 65000, b"{'path': 'x'}", b"{} {}", b"path=lab",
    b'{"max_fraction": ' + b"1" * 60000 + b"}", b'{"max_fraction": 1e99999}', b'{"max_fraction": -0.1}',
    b'{"plan_id": "' + b"p" * 64 + b'"}', b'{"plan_id": {"plan_id": {"plan_id": 1}}}',
    json.dumps({f"key{number}": number for number in range(3000)}).encode(),
]  # fmt: skip


def test_wrong_bodies(target, tally):
    for path in ("/v1/rescan", "/v1/prune/plan", "/v1/prune/apply"):
        for body in WRONG_BODIES:
            status = status_of(target.ask(path, body))
            assert status in (400, 422) or (status == 200 and body == b"null")
            tally["requests"] += 1


ODD_PATHS = [
    "..", "../..", "/etc", "lab/../..", "lab/Subjects/../../..", "a\0b", "lab\nlab", "\x1b[2J", "x" * 4096, "é" * 4096,
    "/" * 4096, "./" * 2048, "\U0001f600" * 4096, SESSION + "/a.b.c", "~", "$(reboot)", "%2e%2e", "lab\\..",
]  # fmt: skip


ODD_ADDRESSES = [
    "/../../etc/passwd", "//", "*", "/v1/%00", "/v1/%ff%fe", "http://d/v1/status", "/v1/status/..", "/" + "v" * 10000,
]  # fmt: skip


def test_odd_paths(target, tally):
    """They name nothing that is indexed, or a folder of the root."""
    for odd in ODD_PATHS:
        assert status_of(target.ask("/v1/rescan", {"path": odd})) == (
            200 if not odd.strip("./") and ".." not in odd else 400
        ), odd
        assert status_of(target.ask("/v1/prune/plan", {"reference": odd})) in (400, 409), odd
        assert status_of(target.ask("/v1/prune/plan", {"reference": f"/{odd}"[:4096]})) in (400, 409), odd
        tally["requests"] += 3
    for name in ("/v1/rescan", "/v1/prune/plan"):  # a megabyte
        for key in ("path", "reference"):
            assert status_of(target.ask(name, {key: "x" * 1_000_000})) == 413
            tally["requests"] += 1
    for address in (
        "/../../etc/passwd",
        "//",
        "*",
        "/v1/%00",
        "/v1/%ff%fe",
        "http://d/v1/status",
        "/v1/status/..",
        "/" + "v" * 10000,
    ):
        for method in ("GET", "POST", "OPTIONS", "TRACE", "CONNECT", "BREW"):
            assert status_of(target.send(request(address, None, method))) in (400, 404, 405), (address, method)
            tally["requests"] += 1


def test_odd_references(target, tmp_path, tally):
    """Pipes, devices, sockets, folders and huge files instead of tables; and files instead of folders."""
    makers = {
        "pipes": os.mkfifo,
        "devices": lambda path: path.symlink_to("/dev/zero"),
        "terminals": lambda path: path.symlink_to("/dev/tty"),
        "folders": Path.mkdir,
        "loops": lambda path: path.symlink_to(path),
        "processes": lambda path: path.symlink_to("/proc/self/mem"),
        "huge": lambda path: (path.touch(), os.truncate(path, 1 << 42)),
        "empty": Path.touch,
        "text": lambda path: path.write_text("PAR1" * 1000),
    }
    for name, make in makers.items():
        (tmp_path / name).mkdir()
        for table in ("sessions.pqt", "datasets.pqt"):
            make(tmp_path / name / table)
    folders = [
        *(str(tmp_path / name) for name in makers),
        "/dev",
        "/proc/self",
        "/proc/self/fd",
        "/proc/1/root",
        "/sys",
    ]
    for folder in folders * 3:
        answer = target.ask("/v1/prune/plan", {"reference": folder})
        assert status_of(answer) == 409, (folder, answer)
        tally["requests"] += 1


def flood(target, head, piece):
    """Send without end; return what came back, and how many bytes were taken."""
    n_taken = 0
    with target.connect() as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(head)
            while n_taken < 50_000_000 and not select.select([connection], [], [], 0)[0]:
                n_taken += connection.send(piece)
        return read_all(connection), n_taken


FLOODS = [
    (b"GET /", b"x" * 65536),
    (b"GET / HTTP/1.1\r\nHost: d\r\nx: ", b"x" * 65536),
    (b"GET / HTTP/1.1\r\nHost: d\r\n", b"x: y\r\n" * 10000),
    (b"POST /v1/rescan HTTP/1.1\r\nHost: d\r\nContent-Length: 99999999999\r\n\r\n", b" " * 65536),
    (b"POST /v1/sync HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10000),
    (b"POST /v1/sync HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n", b"f" * 65536),
    (b"POST /v1/sync HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 10000),
    (b"", b"\0" * 65536),
    (b"", b"\r\n" * 30000),
]


def test_requests_without_end(target, scale, tally):
    for _ in range(scale(1, 50)):
        for head, piece in FLOODS:
            received, n_taken = flood(target, head, piece)
            assert status_of(received) in (400, 408, 413), head
            assert n_taken < 10_000_000
            tally["requests"] += 1


def test_more_requests_than_one_on_a_connection(target, scale, tally):
    """The first is answered; nothing is done for the others."""
    for _ in range(scale(5, 200)):
        received = target.send(REQUESTS[0] + b"".join(REQUESTS) * 50)
        assert received.count(b"HTTP/1.1 ") == 1
        tally["requests"] += 1


def test_a_thousand_connections(target, scale, tally):
    """More connections than descriptors: the data manager still gets through, and each client that waits is served."""
    rng = random.Random(2)
    for _ in range(scale(1, 20)):
        with ExitStack() as stack:
            silent = []
            for number in range(1500):
                silent.append(stack.enter_context(target.connect()))
                if number % 3:
                    with suppress(BrokenPipeError, ConnectionResetError):
                        silent[-1].sendall(rng.choice(REQUESTS)[: rng.randrange(1, 30)])
                    tally["requests"] += 1
            began = time.monotonic()
            target.daemon.client.sync()
            assert target.daemon.client.status().state == "live"
            assert time.monotonic() - began < SLOWEST
            assert target.usage()[0] < DESCRIPTORS / 2 + 60


def test_a_thousand_requests_at_once(target, scale, tally):
    """All are answered: by what they asked for, or, where there is no room, by the advice to come again."""
    for _ in range(scale(1, 20)):
        with ExitStack() as stack:
            asked = []
            for number in range(1000):
                asked.append(stack.enter_context(target.connect()))
                with suppress(BrokenPipeError, ConnectionResetError):
                    asked[-1].sendall(REQUESTS[number % 3])
                tally["requests"] += 1
            statuses = [status_of(read_all(each)) for each in asked]
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) > 400


def test_clients_that_ask_and_leave(target, scale, tally):
    """With and without a word, before the answer and while it is on its way."""
    kinds = [REQUESTS[1], REQUESTS[2], target.request("/v1/prune/plan", {"reference": str(target.lists_little)})]
    for number in range(scale(150, 4000)):
        with target.connect() as connection:
            connection.sendall(kinds[number % 3] + (REQUESTS[0] if number % 2 else b""))
            if number % 5 == 0:
                connection.shutdown(socket.SHUT_WR)
            if number % 7 == 0:
                connection.recv(1)
        tally["requests"] += 1
    target.daemon.wait(lambda: target.usage()[0] < 40)


@pytest.mark.long
def test_slow_writers(target, tally):
    """A byte now and then: they are cut off, and others do not notice."""
    with ExitStack() as stack:
        slow = [(stack.enter_context(target.connect()), REQUESTS[number % 6]) for number in range(400)]
        answered = set()
        for at in range(25):
            for number, (connection, sent) in enumerate(slow):
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(sent[at : at + 1])
                if select.select([connection], [], [], 0)[0]:
                    answered.add(number)
            time.sleep(0.6)
        assert len(answered) == 400
        for connection, _ in slow:
            assert status_of(read_all(connection)) in (0, 400, 408)
            tally["requests"] += 1


@pytest.mark.long
def test_answers_that_no_client_reads(target, tally):
    """Each larger than what a socket takes: after a minute the daemon gives up, and keeps nothing of them."""
    before, _ = target.usage()
    with ExitStack() as stack:
        for _ in range(60):
            connection = stack.enter_context(target.connect())
            connection.sendall(target.request("/v1/prune/plan", {"reference": str(target.lists_little)}))
            assert select.select([connection], [], [], PATIENCE)[0]
            tally["requests"] += 1
        assert target.usage()[0] > before + 50
        target.daemon.wait(lambda: target.usage()[0] < before + 5, seconds=120)


def test_the_end_of_an_attacked_daemon(tmp_path, scale, tally):
    """Silent, slow, waiting and unreading clients delay neither the last flush nor the end."""
    root = make_small_tree(tmp_path / "root")
    for number in range(4000):
        (root / SESSION / f"a.number{number}.npy").touch()
    with program(root) as daemon, ExitStack() as stack:
        daemon.break_it("from alfwatchd.web import connections\nconnections.REQUEST_SECONDS = 1e4\n")
        for _ in range(scale(1, 20)):
            daemon.start()
            target = Target(daemon, tmp_path)
            slow = [stack.enter_context(target.connect()) for _ in range(200)]
            for number, connection in enumerate(slow):
                connection.sendall(REQUESTS[number % 6][: number % 40])
            for number in range(50):
                stack.enter_context(target.connect()).sendall(REQUESTS[number % 3])
            shutil.copytree(root / "lab/Subjects/s1", root / f"lab/Subjects/late{tally['restarts']}")
            daemon.stop()
            assert listed(root, root) == walk(root)
            stack.close()
            tally["requests"] += 250
            tally["restarts"] += 1
        assert "Traceback" not in daemon.log
