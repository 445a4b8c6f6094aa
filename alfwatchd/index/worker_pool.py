"""Worker processes that read units of a full scan: a second core, or more requests to a slow disk at once.

Threads would not help: reading is Python code, of which one thread runs at a time. Workers are started when a scan has
enough to share and end with it, so an idle daemon is one process.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from alfwatchd.index.look_queue import Look
from alfwatchd.index.scan_worker import restore
from alfwatchd.scan.subtree import Found
from alfwatchd.watch.events import EventsLost

_log = logging.getLogger(__name__)

ENOUGH_UNITS = 32
"""With fewer of them, starting workers takes longer than reading the units here."""
_LARGEST_BATCH = 16
_BATCHES_AHEAD = 2
"""For one worker at a time, so that it never waits for the next."""
SILENT_SECONDS = 30.0
"""Seconds without an answer after which workers count as stopped."""
FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 5.0, 86400.0
"""How long no workers are started after some have died. Each time it is four times as long, until some end normally: a
death may make the scan begin again, so the rest must become longer than a whole scan without workers."""
_DEAF = "a worker process ended, or the thread that waits for answers"
_PACKAGES = Path(__file__).parents[2]


@dataclass(slots=True)
class _Worker:
    pipe: Connection
    out: dict[int, Look] = field(default_factory=dict)
    """Units that it has not answered, by number."""
    n_batches: int = 0


@dataclass(frozen=True, slots=True)
class ScanUnit:
    """What came of a unit: the folders that were read, or None if the caller must look at it."""

    look: Look
    found: list[Found] | None


@dataclass(frozen=True, slots=True)
class Crawled:
    """What a worker process read: for `WorkerPool.receive`; None if the process ended."""

    worker: int
    answer: bytes | None


class WorkerPool:
    """Hands units to worker processes. Engine's thread only; one thread of its own waits for answers.

    Parameters
    ----------
    root : str
        Absolute path, links resolved.
    patterns : sequence of str
        What to exclude; see `alf.exclude`.
    n_workers : int
    post : callable
        Gets a `Crawled` whenever there is something to `take`, in a thread of its own.
    """

    thread_name = "scan-workers"
    """Name of the thread that waits for answers."""

    def __init__(
        self, root: str, patterns: Sequence[str], n_workers: int, post: Callable[[Crawled | EventsLost], None]
    ) -> None:
        self.root = root
        self._patterns = patterns
        self.n_workers = n_workers
        self.problem = ""
        """Why no workers are used for a while; empty if all is well."""
        self._post = post
        self._waiting: deque[Look] = deque()
        self._done: list[ScanUnit] = []
        self._workers: dict[int, _Worker] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._n_started = 0
        self._n_units = 0
        self._is_watching = False
        self._hearer: threading.Thread | None = None
        self._n_deaths = 0
        """How often workers died since some ended in order."""
        self._rests_until = 0.0
        self._heard = 0.0
        """When a worker last answered or was asked for the first time, on the monotonic clock."""

    @property
    def process_group(self) -> int | None:
        """Process group of the workers, for signals; None while none run."""
        return self._process.pid if self._process is not None else None

    @property
    def are_running(self) -> bool:
        """Whether units may be read somewhere."""
        return bool(self._workers)

    @property
    def n_unanswered(self) -> dict[int, int]:
        """Number of each worker -> batches of units that it has not answered yet."""
        return {number: worker.n_batches for number, worker in self._workers.items()}

    def exclude(self, patterns: Sequence[str]) -> None:
        """Leave other paths out; workers that run already go on as they began, so that a scan must follow."""
        self._patterns = patterns

    def submit(self, look: Look) -> None:
        """Add a unit; nothing begins before there are enough of them."""
        self._waiting.append(look)

    def share(self, inotify_fd: int) -> None:
        """Give the workers something to do; start them if there is enough. Call this about every second.

        Parameters
        ----------
        inotify_fd : int
            Where they add watches; -1 for none.
        """
        if self.problem and time.monotonic() >= self._rests_until:
            self.problem = ""
        if self._workers:
            self._look_after()
            self._share()
        elif not self.problem and len(self._waiting) >= ENOUGH_UNITS:
            self._start(inotify_fd)

    def _start(self, inotify_fd: int) -> None:
        try:
            self._start_workers(inotify_fd)
        except OSError as error:
            self._give_up(f"worker processes cannot be started: {error}")
            return
        _log.debug("worker processes started n=%d", self.n_workers)
        self._is_watching = inotify_fd >= 0
        numbers = {worker.pipe: number for number, worker in self._workers.items()}
        self._hearer = threading.Thread(
            target=self._receive, args=(self._process, numbers), name=self.thread_name, daemon=True
        )
        self._hearer.start()
        self._heard = time.monotonic()
        self._share()

    def receive(self, message: Crawled) -> None:
        """Take note of what a worker answered."""
        worker = self._workers.get(message.worker)
        if worker is None:  # one that was ended
            return
        if message.answer is None:
            self._give_up(_DEAF)
            return
        self._heard = time.monotonic()
        worker.n_batches -= 1
        for number, folders in pickle.loads(message.answer):
            self._done.append(ScanUnit(worker.out.pop(number), [restore(folder) for folder in folders]))
        self._share()

    def _look_after(self) -> None:
        """Notice workers, or a thread, that would keep a scan from ever ending."""
        if self._hearer is not None and not self._hearer.is_alive():
            self._give_up(_DEAF)
            return
        silent = time.monotonic() - self._heard
        n_out = sum(len(worker.out) for worker in self._workers.values())
        if silent > SILENT_SECONDS and n_out and self._process is not None:
            # This wakes workers that were stopped (SIGSTOP), and changes nothing for those that wait for a disk.
            _log.warning("worker processes do not answer, perhaps the disk hangs seconds=%.0f units=%d", silent, n_out)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGCONT)
            self._heard = time.monotonic()

    def take(self, *, is_last: bool) -> list[ScanUnit]:
        """Return the units that came back; with `is_last`, also those that are too few to start workers for."""
        done, self._done = self._done, []
        if self._workers and not self._waiting and not any(worker.out for worker in self._workers.values()):
            self._stop()
            self._n_deaths = 0
        elif not self._workers and (is_last or self.problem):
            done += [ScanUnit(look, None) for look in self._waiting]
            self._waiting.clear()
        return done

    def stop(self) -> None:
        """End the workers. `take` returns all their units as unread: their listings must not be used any more."""
        out = [look for worker in self._workers.values() for look in worker.out.values()]
        self._done = [ScanUnit(look, None) for look in [*(unit.look for unit in self._done), *out]]
        self._stop()

    def forget(self) -> None:
        """Forget the units that no worker has yet; those that workers read still come back."""
        self._waiting.clear()

    def close(self) -> None:
        """End the workers and forget everything."""
        self._stop()
        self._waiting.clear()
        self._done.clear()

    def _share(self) -> None:
        """Give each worker something to do, in pieces that get smaller towards the end."""
        for _ in range(_BATCHES_AHEAD):
            for worker in self._workers.values():
                if self._waiting and worker.n_batches < _BATCHES_AHEAD:
                    self._send(worker)

    def _send(self, worker: _Worker) -> None:
        n_units = max(1, min(_LARGEST_BATCH, len(self._waiting) // (4 * self.n_workers)))
        units = [self._waiting.popleft() for _ in range(n_units)]
        numbers = range(self._n_units, self._n_units + n_units)
        self._n_units += n_units
        worker.out.update(zip(numbers, units, strict=True))
        worker.n_batches += 1
        try:
            worker.pipe.send_bytes(pickle.dumps(list(zip(numbers, [each.folder.path for each in units], strict=True))))
        except OSError:
            _log.debug("worker does not listen")  # the thread that waits for its answers will tell

    def _start_workers(self, inotify_fd: int) -> None:
        pipes = [Pipe() for _ in range(self.n_workers)]
        passed = [there.fileno() for _, there in pipes]
        try:
            self._process = subprocess.Popen(
                # -P: a module in the current folder is not ours.
                [sys.executable, "-P", "-m", "alfwatchd.index.scan_worker", str(inotify_fd), *map(str, passed)],
                pass_fds=[*passed, *([inotify_fd] if inotify_fd >= 0 else [])],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(_PACKAGES)},
                process_group=0,  # one signal ends all of them, and ^C is for us alone
            )
        finally:
            for _, there in pipes:
                there.close()
        for here, _ in pipes:
            self._n_started += 1
            self._workers[self._n_started] = _Worker(here)
            here.send_bytes(pickle.dumps((self.root, tuple(self._patterns))))

    def _receive(self, process: subprocess.Popen[bytes], numbers: dict[Connection, int]) -> None:
        """Post answers until all workers have ended. In a thread of its own, which is the one to close the pipes."""
        while numbers:
            for pipe in wait(list(numbers)):
                assert isinstance(pipe, Connection)
                try:
                    self._post(Crawled(numbers[pipe], pipe.recv_bytes()))
                except (EOFError, OSError):
                    self._post(Crawled(numbers.pop(pipe), None))
                    pipe.close()
        process.wait()

    def _give_up(self, problem: str) -> None:
        """Return all units as unread, to be read without workers, and start new workers after a while."""
        seconds = min(FIRST_REST_SECONDS * 4 ** min(self._n_deaths, 10), LONGEST_REST_SECONDS)
        _log.error("full scans go on without worker processes for seconds=%.0f error=%s", seconds, problem)
        self._n_deaths += 1
        self._rests_until = time.monotonic() + seconds
        self.problem = problem
        self.stop()
        if self._is_watching:  # they may have added watches that we do not know of
            self._post(EventsLost(problem, reader_alive=False))

    def _stop(self) -> None:
        self._workers = {}
        process, self._process = self._process, None
        if process is not None:
            # They hold no state. We do not wait for their end: a dead network mount can keep them for hours.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
