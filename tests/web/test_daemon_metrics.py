"""The metrics that the site gives. If one of these fails, Prometheus sees a daemon that is not the one that runs.

Or many clients on a network keep the daemon from its work.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from alfwatchd.errors import NoDaemon, RequestFailed
from alfwatchd.web import daemon_metrics
from alfwatchd.web.daemon_metrics import DaemonMetrics
from alfwatchd.web.metrics import OPENMETRICS, TEXT
from alfwatchd.web.tables_site import Site
from kit.control import wait
from kit.site import site_box

TOKEN = "correct-horse-battery"  # noqa: S105 - nobody else's


class Daemon:
    """What stands for the control socket: tells what it was asked for, and may be slow or down."""

    def __init__(self):
        self.asked = []
        self.error = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, content_type):
        self.asked.append(content_type)
        self.gate.wait(60)
        if self.error is not None:
            raise self.error
        return f"answer {len(self.asked)} as {content_type}".encode()


@pytest.fixture
def daemon():
    return Daemon()


@pytest.fixture
def at_once(monkeypatch):
    """Keep no answer."""
    monkeypatch.setattr(daemon_metrics, "KEEP_SECONDS", 0.0)


def test_the_answer_is_the_daemons_in_the_format_that_is_wanted(tmp_path, daemon):
    with site_box(Site(tmp_path, metrics=DaemonMetrics(daemon))) as box:
        answer = box.ask("GET", "/metrics")
        assert (answer.status, answer.headers["content-type"]) == (200, TEXT)
        assert answer.body == f"answer 1 as {TEXT}".encode()
        answer = box.ask("GET", "/metrics", accept="application/openmetrics-text; version=1.0.0, */*;q=0.1")
        assert (answer.headers["content-type"], answer.body) == (OPENMETRICS, f"answer 2 as {OPENMETRICS}".encode())
        assert answer.headers["cache-control"] == "no-store"
        answer = box.ask("HEAD", "/metrics")
        assert (answer.status, answer.body) == (200, b"")
        assert box.ask("POST", "/metrics").status == 405


def test_it_needs_the_token_as_the_tables_do(tmp_path, daemon):
    with site_box(Site(tmp_path, token=TOKEN, metrics=DaemonMetrics(daemon))) as box:
        assert box.ask("GET", "/metrics").status == 403
        assert box.ask("GET", "/metrics", authorization="Token wrong").status == 403
        assert daemon.asked == []
        assert box.ask("GET", "/metrics", authorization=f"Token {TOKEN}").status == 200


def test_a_daemon_that_is_down_is_told_as_such_and_logged_once(tmp_path, daemon, at_once, caplog):
    """The scrape itself succeeds: `alfwatchd_up` is what an alert is about. The log says why."""
    daemon.error = NoDaemon("/run/s: no daemon answers here")
    with site_box(Site(tmp_path, metrics=DaemonMetrics(daemon))) as box:
        for _ in range(3):
            answer = box.ask("GET", "/metrics")
            assert (answer.status, answer.body.splitlines()[-1]) == (200, b"alfwatchd_up 0.0")
        daemon.error = RequestFailed("/run/s: no answer within 8 seconds")
        assert b"alfwatchd_up 0.0\n" in box.ask("GET", "/metrics").body
        daemon.error = None
        assert box.ask("GET", "/metrics").body.startswith(b"answer 5")
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"the daemon gives no metrics error=/run/s: no {why}" for why in
                    ("daemon answers here", "answer within 8 seconds")]  # fmt: skip


def test_many_clients_at_a_time_cost_the_daemon_one_answer(tmp_path, daemon):
    """Any client that reaches the site may ask all the time; the daemon has other work."""
    daemon.gate.clear()
    with site_box(Site(tmp_path, metrics=DaemonMetrics(daemon))) as box, ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(box.ask, "GET", "/metrics") for _ in range(8)]
        wait(lambda: len(box.connections) == 8 and daemon.asked)
        daemon.gate.set()
        assert {each.result().body for each in answers} == {f"answer 1 as {TEXT}".encode()}
    assert daemon.asked == [TEXT]


def test_an_answer_is_kept_for_a_moment_only(tmp_path, daemon, monkeypatch):
    monkeypatch.setattr(daemon_metrics, "KEEP_SECONDS", 1000.0)
    with site_box(Site(tmp_path, metrics=DaemonMetrics(daemon))) as box:
        assert box.ask("GET", "/metrics").body == box.ask("GET", "/metrics").body
        monkeypatch.setattr(daemon_metrics, "KEEP_SECONDS", 0.0)
        assert box.ask("GET", "/metrics").body.startswith(b"answer 2")


def test_a_client_that_leaves_takes_the_answer_from_no_other(tmp_path, daemon):
    daemon.gate.clear()
    with site_box(Site(tmp_path, metrics=DaemonMetrics(daemon))) as box, ThreadPoolExecutor(1) as clients:
        with box.connect() as leaving:
            leaving.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait(lambda: daemon.asked)
            answer = clients.submit(box.ask, "GET", "/metrics")
            wait(lambda: len(box.connections) == 2)
        daemon.gate.set()
        assert answer.result().status == 200


def test_a_site_without_a_daemon_has_no_metrics(tmp_path):
    with site_box(Site(tmp_path)) as box:
        assert box.ask("GET", "/metrics").status == 404
