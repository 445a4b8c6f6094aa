"""`alfwatchd serve` as a process, and the stock client of ONE against it."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from one.api import ONE, OneAlyx

from kit.program import PROGRAM, WAIT_SECONDS, Program
from kit.site import Answer, ask


class Served:
    """A process that serves the tables of a program."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.process = process
        self._log_file = log_file

    @property
    def log(self) -> str:
        return self._log_file.read_text()

    @property
    def port(self) -> int:
        found = re.search(r" serving address=http://\S+:(\d+) ", self.log)
        assert found, self.log
        return int(found[1])

    @property
    def address(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def n_new(self) -> int:
        """How many new versions of the tables it has published."""
        return len(re.findall(" tables published tag=.* new=yes ", self.log))

    def requests(self) -> list[str]:
        """Return method and path of all requests so far."""
        return re.findall(r" request client=\S+ method=(\S+ path=\S+) status=", self.log)

    def downloads(self) -> list[str]:
        return [each for each in self.requests() if each.endswith(".zip")]

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Answer:
        return ask(self.port, method, path, body, **headers)

    def wait(self, text: str, count: int = 1) -> None:
        """Wait until the log has a text so many times."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self.log.count(text) < count:
            assert self.process.poll() is None, f"it ended\n{self.log}"
            assert time.monotonic() < deadline, f"{text!r} did not come\n{self.log}"
            time.sleep(0.01)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        assert self.process.wait(WAIT_SECONDS) == 0, self.log


@contextmanager
def served(program: Program, *flags: str, wait: bool = True, **credentials: str) -> Iterator[Served]:
    """Serve on a free port; by default, yield when there are tables to get."""
    named = {f"ALFWATCHD_CREDENTIAL_{name.upper()}": value for name, value in credentials.items()}
    log_file = program.home / f"serve-{time.monotonic_ns()}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, "serve", *program.places, "--port=0", "--log-level=debug", *flags],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=program.environment() | named,
        )  # fmt: skip
    try:
        made = Served(process, log_file)
        made.wait(" serving address=")
        if wait:
            made.wait(" tables published ")
        yield made
    finally:
        process.kill()
        process.wait()


def connect(served: Served, tables_dir: Path, password: str | None = "any", **options: object) -> OneAlyx:  # noqa: S107
    """Return a client as a user makes it; HOME must be a folder of the test's own, as ONE writes into it."""
    tables_dir.mkdir(exist_ok=True)
    ONE.cache_clear()  # else it would be the one that was made last
    made = {"base_url": served.address, "mode": "local", "silent": True, "username": "me", "tables_dir": tables_dir}
    return ONE(**{"cache_dir": tables_dir} | made | options, password=password)
