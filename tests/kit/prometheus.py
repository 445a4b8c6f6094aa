"""Prometheus, its tool and node_exporter, as Debian packages them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kit.control import wait
from kit.program import WAIT_SECONDS

REPOSITORY = Path(__file__).parents[2]
ALERTS = REPOSITORY / "monitoring/alerts.yml"
DASHBOARD = REPOSITORY / "monitoring/dashboard.json"
PROGRAMS = ("prometheus", "promtool", "prometheus-node-exporter")

needs_prometheus = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)), reason="prometheus or prometheus-node-exporter is not installed"
)


def free_port() -> int:
    """Return a port that nobody listens at; these programs do not tell which one they chose."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(log_file: Path, port: int, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the context; yield when it listens."""
    with log_file.open("wb") as log:
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            assert process.poll() is None, log_file.read_text()
            assert time.monotonic() < deadline, log_file.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait()


class Prometheus:
    """A server that can be asked."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of the HTTP API; an error in an expression fails the test."""
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=WAIT_SECONDS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def is_ready(self) -> bool:
        """Tell whether it has read its data, and answers."""
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=WAIT_SECONDS).close()
        except OSError:
            return False
        return True

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression now."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def firing(self) -> set[tuple[str, str]]:
        """Return name and instance of each alert that fires."""
        alerts = self.ask("alerts")["alerts"]
        return {
            (each["labels"]["alertname"], each["labels"].get("instance", ""))
            for each in alerts
            if each["state"] == "firing"
        }

    def wait(self, is_so: Callable[[], object], what: object) -> None:
        """Wait for what a later scrape brings."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_so():
            assert time.monotonic() < deadline, f"{what}\n{json.dumps(self.ask('targets')['activeTargets'], indent=1)}"
            time.sleep(0.2)


@contextmanager
def prometheus(folder: Path, rules: str, jobs: list[dict[str, Any]]) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes each second, and yield when it listens."""
    (folder / "rules.yml").write_text(rules)
    settings = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    port = free_port()
    command = [
        "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with running(folder / "prometheus.log", port, *command):
        made = Prometheus(port)
        wait(made.is_ready, "Prometheus does not become ready")
        yield made


@contextmanager
def node_exporter(folder: Path, textfiles: Path) -> Iterator[int]:
    """Run a node_exporter that reads a folder of text files, and yield its port."""
    port = free_port()
    command = [
        "prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
        f"--collector.textfile.directory={textfiles}", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with running(folder / "node_exporter.log", port, *command):
        yield port


def expressions() -> list[str]:
    """Return the expressions of all panels of the dashboard, as Grafana sends them for all instances."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel["targets"]]
    return [text.replace("$instance", ".*").replace("$__rate_interval", "1m") for text in texts]
