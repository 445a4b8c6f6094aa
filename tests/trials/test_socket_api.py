"""schemathesis reads the API's own description, and asks a real daemon through its socket all that it can think of."""

import select
import socket
import socketserver
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from kit.program import listed, make_small_tree, program, walk

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
PARALLEL = 1
"""hypothesis parses source, which threads of Python 3.11 cannot do at a time ("recursion depth mismatch")."""
# What is right by the description may be wrong all the same: a folder that is not there, a plan that was not made.
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = ["2XX", "400", "409"]
# A body may be wrong and too long, too.
negative_data_rejection.expected-statuses = ["400", "404", "405", "409", "413", "415", "422", "428", "429"]

[parameters]
# Nothing changes meanwhile: each of these would take its time.
"query.wait" = 0
"""


class Forwarder(socketserver.BaseRequestHandler):
    """Hands one connection on."""

    def handle(self):
        self.server.n_connections += 1
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
            daemon.connect(self.server.path)
            open_ends = {self.request: daemon, daemon: self.request}
            while daemon in open_ends:
                for source in select.select(list(open_ends), [], [])[0]:
                    part = source.recv(1 << 16)
                    if part:
                        open_ends[source].sendall(part)
                    else:
                        open_ends.pop(source).shutdown(socket.SHUT_WR)


class Bridge(socketserver.ThreadingTCPServer):
    """Lets a program that knows no Unix sockets talk to one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path):
        super().__init__(("127.0.0.1", 0), Forwarder)
        self.path = str(path)
        self.n_connections = 0

    def handle_error(self, *_):
        """Either end may break off."""


@contextmanager
def bridge(path):
    with Bridge(path) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield made, f"http://127.0.0.1:{made.server_address[1]}"
        finally:
            made.shutdown()
            thread.join()


@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="schemathesis is not installed")
def test_every_request_gets_the_answer_that_is_described(tmp_path, scale, tally):
    """All checks: no 5xx; described statuses, types and bodies; wrong data and methods refused, right data taken."""
    root = make_small_tree(tmp_path / "root")
    (tmp_path / "daemon.toml").write_text("[prune]\nenabled = true\n")
    (tmp_path / "checks.toml").write_text(CONFIG)
    with program(root) as daemon:
        daemon.start(f"--config={tmp_path / 'daemon.toml'}")
        with bridge(daemon.socket) as (made, url):
            done = subprocess.run(
                [
                    SCHEMATHESIS, f"--config-file={tmp_path / 'checks.toml'}", "run", f"{url}/openapi.json",
                    f"--url={url}", "--checks=all", f"--workers={PARALLEL}", "--no-color",
                    "--phases=examples,coverage,fuzzing", f"--max-examples={scale(10, 2000)}", "--warnings=off",
                    "--suppress-health-check=all",
                    "--exclude-path=/v1/changes/stream",  # it has no end: tests/web/test_change_feed.py
                ],
                cwd=tmp_path, capture_output=True, text=True, timeout=1700, check=False,
            )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        tally["requests"] += made.n_connections
        assert made.n_connections > 100
        daemon.client.sync()
        assert listed(root, root) == walk(root)
        daemon.stop()
        assert "Traceback" not in daemon.log
