"""A real daemon on a real tree, for the benchmarks that need one: live, memory, restart."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import measure

from alfwatchd.api import Status
from alfwatchd.errors import NoDaemon
from alfwatchd.web.client import Client

_PATIENCE_SECONDS = 600.0


class Box:
    """One daemon with its own output and state folders. `settings` are given in its environment.

    Parameters
    ----------
    root : Path
    home : Path
        Short path, on a disk: tables, state, socket and log are there.
    settings : object
        Values of keys of the settings.
    """

    def __init__(self, root: Path, home: Path, **settings: object) -> None:
        self.root, self.home = root, home
        self.client = Client(home / "s", timeout=_PATIENCE_SECONDS)
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        (home / "out").mkdir(exist_ok=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Start the daemon; return the seconds until it answered first."""
        places = {"ROOT": self.root, "OUT_DIR": self.home / "out", "STATE_DIR": self.home / "state"}
        places["SOCKET"] = self.home / "s"
        chosen = places | {key.upper(): value for key, value in self._settings.items()}
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ALFWATCHD_")}
        environment |= {f"ALFWATCHD_{key}": str(value) for key, value in chosen.items()}
        started = time.perf_counter()
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen([measure.ALFWATCHD], env=environment, stdout=log, stderr=log)
        self.wait(lambda: self.status_or_none() is not None, interval=0.005)
        return time.perf_counter() - started

    def stop(self) -> None:
        """End the daemon in order."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
            self._process = None

    def status(self) -> Status:
        """Ask for the state in memory: the engine answers at once, and waits for no flush."""
        return self.client.status()

    def status_or_none(self) -> Status | None:
        """Ask a daemon that may not serve its socket yet."""
        try:
            return self.status()
        except NoDaemon:
            return None

    def wait_until_live(self) -> None:
        """Wait until every file is verified; a tree of 1 M datasets may have more folders than the kernel watches."""
        self.wait(lambda: self.status().state in ("live", "polled"), interval=0.01)
        status = self.status()
        if status.state == "polled":
            raise SystemExit(f"{self.root} cannot be watched: {status.detail}")

    def wait_for_datasets(self, number: int, interval: float = 0.0) -> float:
        """Wait until the table in memory has this many rows, and return when that was seen (`time.perf_counter`)."""
        self.wait(lambda: self.status().n_datasets == number, interval)
        return time.perf_counter()

    def wait(self, is_so: Callable[[], bool], interval: float) -> None:
        """Ask again and again."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not is_so():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the daemon did not get there:\n{(self.home / 'log').read_text()[-2000:]}")
            time.sleep(interval)

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its threads, with the precision of the scheduler: clock_getcpuclockid(3)."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def memory(self) -> dict[str, float]:
        """Return resident and proportional size in MB (proc(5), smaps_rollup), children included."""
        sizes = [_memory(pid) for pid in _family(self.pid)]
        return {key: sum(size[key] for size in sizes) for key in ("Rss", "Pss")}


@contextmanager
def box(root: Path, **settings: object) -> Iterator[Box]:
    """Yield a box whose daemon has not been started; it ends here, and all that it wrote goes."""
    home = Path(tempfile.mkdtemp(prefix="alf-"))
    made = Box(root, home, **settings)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def live_box(root: Path, **settings: object) -> Iterator[Box]:
    """Yield a box whose daemon is live, and its tables on disk."""
    with box(root, **settings) as made:
        made.start()
        made.wait_until_live()
        made.client.sync()
        yield made


def _family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(each for child in children for each in _family(child))]


def _memory(pid: int) -> dict[str, float]:
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in lines if words[-1] == "kB"}
