"""An engine made of real parts, stepped by hand: the clock is a number that only the test changes.

The tree, inotify with its reader thread, the flusher with its thread, the tables and the state are real. The box waits
for messages of other threads (`EngineBox.hear`, `EngineBox.step`) and never sleeps, so each run has the same order.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from alfwatchd.api import Status, StatusRequest, SyncReply, SyncRequest
from alfwatchd.engine.engine import Engine
from alfwatchd.engine.inbox import Inbox
from alfwatchd.engine.messages import Message
from alfwatchd.engine.model import EngineModel
from alfwatchd.engine.pending_changes import PendingChanges
from alfwatchd.errors import WatchError
from alfwatchd.index.hash_queue import HashQueue
from alfwatchd.index.state_db import StateDb
from alfwatchd.index.worker_pool import Crawled
from alfwatchd.scan.hasher import Hasher
from alfwatchd.scan.mounts import WATCHABLE
from alfwatchd.service.startup import make_journal, prepare
from alfwatchd.settings import Settings
from alfwatchd.store.flusher import Flushed, Flusher, FlushFailed
from alfwatchd.store.writer import TableWriter
from alfwatchd.tree.packed import Signature, digest_of, unpack_signature
from alfwatchd.tree.sessions import Snapshot
from alfwatchd.watch.events import EventsLost, EventsRead, PathsChanged
from alfwatchd.watch.watcher import Watcher
from kit.ambush import POINTS, AmbushedWatcher, ambush
from kit.fresh import View, index_afresh, make_view

PATIENCE = 120.0
"""Seconds of real time after which a test fails because a message did not come."""
_FAST = Path("/dev/shm")


def _shown(value: bytes) -> Signature:
    """Return a signature without its change time: if a file has several names, only one of them gets an event."""
    return unpack_signature(value)._replace(ctime_ns=0)


def _describe(snapshot: Snapshot) -> dict[str, Any]:
    """Return path -> content of a snapshot, so that a failing comparison shows the difference."""
    found: dict[str, Any] = {}
    for path, session in snapshot.sessions.items():
        found[path] = session.is_link
        found |= {f"{path}/{rel_path}": _shown(value) for rel_path, value in session.datasets()}
    return found


class EngineBox:
    """A daemon without its server and its loop.

    Parameters
    ----------
    root : Path
        Made if missing. All other files are in a folder of their own, which `close` removes.
    with_digests : bool
        Whether files are hashed, in real time. See `digests`; the tables do not have the column.
    one_look_per_step : bool
        Whether each step looks at one folder only, as on a very slow disk.
    watchable : frozenset of str
        Types of file systems on which events tell of every change.
    with_workers : bool
        Whether worker processes take part in full scans. The engine gets in a step what they read since the last.
    settings
        Those that differ from the default.
    """

    def __init__(
        self,
        root: Path,
        *,
        with_workers: bool = False,
        with_digests: bool = False,
        one_look_per_step: bool = False,
        watchable: frozenset[str] = WATCHABLE,
        **settings: Any,
    ) -> None:
        self.root = root
        self.root.mkdir(exist_ok=True)
        self.home = Path(tempfile.mkdtemp(prefix="box", dir=_FAST if _FAST.is_dir() else None))
        self.out_dir, self.state_dir = self.home / "out", self.home / "state"
        self.out_dir.mkdir()
        self.new_settings = settings
        self.with_workers, self.with_digests = with_workers, with_digests
        self.hashes: HashQueue | None = None
        self.now = 1000.0
        self.refuse: Callable[[int], WatchError | None] = lambda fd: None
        """Returns the error of a new watch on an open folder; None to let the kernel add it."""
        clicks = itertools.count()
        self.stopwatch: Callable[[], float] = (lambda: next(clicks)) if one_look_per_step else lambda: 0.0
        """Measures how long a step takes, in seconds; by default it takes no time."""
        self.watchable = watchable
        self.no_watcher: WatchError | None = None
        """Why no watcher can be made."""
        self.drop: Callable[[Message], bool] = lambda message: False
        """Tells whether a message of the watcher gets lost."""
        self.gate = threading.Event()
        """While this is not set, the reader of events waits, and the kernel's queue fills."""
        self.gate.set()
        self.ambushes: dict[str, list[Callable[[str], object]]]
        self.call_off_ambushes()
        self.n_flushes = 0
        self._news = threading.Condition()
        self._cookies_heard: set[str] = set()
        self._n_flushes_told = 0
        self._n_heard = 0
        self._kills_reader = False
        self._dying: threading.Thread | None = None
        """Reader of events that dies of an exception."""
        self.read: list[Crawled] = []
        """Messages of worker processes that the engine did not get yet."""
        self.holds_read = False
        """Whether to keep them back."""
        self.start()

    # Life.

    def settings(self) -> Settings:
        defaults = {
            "root": self.root, "out_dir": self.out_dir, "state_dir": self.state_dir, "socket": self.home / "socket",
        }  # fmt: skip
        return Settings(**(defaults | self.new_settings))

    def start(self) -> None:
        """Start, with the files that an earlier run left, if any."""
        settings = self.settings()
        self.inbox = Inbox()
        self.state = StateDb(settings.state_dir)
        self.watchers: list[Watcher] = []
        new_watcher = self._new_watcher if settings.watch != "poll" else None
        started = prepare(settings, self.state, new_watcher, self._post if self.with_workers else None)
        self.indexer = ambush(started.indexer, self)
        if self.with_digests:
            make = partial(Hasher, str(settings.root), self.state, 1, self.inbox.post, settle_seconds=0.02)
            self.hasher, self.rechecks = make(), make()
            self.hashes = HashQueue(self.hasher, self.state, self.rechecks)
        self.journal = make_journal(settings)
        writer = TableWriter(settings.out_dir, str(settings.root), notes=started.notes, journal=self.journal)
        self.flusher = Flusher(writer, self._post)
        self.n_flushes = self._n_flushes_told = 0
        self.engine = Engine(
            EngineModel(
                settings=settings,
                rules=started.rules,
                indexer=self.indexer,
                flusher=self.flusher,
                inbox=self.inbox,
                hashes=self.hashes,
                first_scan_done=started.finish_first_scan,
                reload=lambda: self.settings(),
                wall_clock=lambda: datetime.fromtimestamp(self.now, UTC),
                stopwatch=lambda: self.stopwatch(),
                pending=PendingChanges(self.journal.feed.pending, lambda: self.stopwatch()),
                first_seen=started.first_seen,
                earlier_generation=started.earlier_generation,
                watchable=self.watchable,
            ),
        )

    def stop(self) -> None:
        """End as a killed daemon does: changes that are not on disk are lost."""
        self.gate.set()
        self.engine.close()
        if self.hashes is not None:
            self.hasher.close()
            self.rechecks.close()
        self.flusher.close()
        self.indexer.guard.close()
        self.state.close()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.home)

    # Time.

    def step(self, seconds: float = 0.0) -> float:
        """Let the clock go on, step once, and let the flusher finish what it was given."""
        self.now += seconds
        while self.read and not self.holds_read:
            self.inbox.post(self.read.pop(0))
        sleep = self.engine.step(self.now)
        self._wait_for_flush()
        self._wait_for_workers()
        return sleep

    def run(self, seconds: float = 0.0) -> float:
        """Let the clock go on and step until nothing more is to be done then; return how long to sleep after that."""
        self.now += seconds
        n_idle, sleep = 0, 0.0
        while n_idle < 2 and not self.engine.is_done:  # one step may drop a cookie, which the next one takes
            self.hear()
            sleep = self.step()
            n_idle = n_idle + 1 if sleep > 0 and not self.inbox.has_messages and not self.read else 0
        return sleep

    def live(self, seconds: float) -> None:
        """Let time pass as the daemon's loop does: work, sleep as long as there is nothing to do, work again."""
        end = self.now + seconds
        while (sleep := self.run()) and self.now < end:
            self.now = min(end, self.now + sleep)

    def run_to_the_end(self) -> None:
        """Let time pass until the engine is done."""
        while not self.engine.is_done:
            self.now += self.run()

    def count_looks(self, looks: list[str]) -> None:
        """Note the path of each folder that is looked at from now on."""

        def note(path: str) -> None:
            looks.append(path)
            self.ambushes["after listing"].append(note)

        self.ambushes["after listing"].append(note)

    def hear(self) -> None:
        """Wait until the inbox has all events of what happened before; nothing is done about them."""
        watcher = self.watcher
        if watcher is None or not watcher.is_alive or not self.gate.is_set():
            return
        arrived = False
        for _ in range(int(PATIENCE)):  # an overflow of the kernel's queue takes cookies, too
            self._n_heard += 1
            name = f"heard{self._n_heard}"
            try:
                watcher.drop_cookie(name)
            except WatchError:
                return
            with self._news:
                arrived = self._news.wait_for(
                    lambda name=name: name in self._cookies_heard or not watcher.is_alive, 1.0
                )
            if arrived:
                break
        assert arrived, "the watcher tells nothing any more"

    def ask(self, make_request: Callable[..., Any], **fields: Any) -> Future[Any]:
        """Send a request."""
        reply: Future[Any] = Future()
        self.inbox.post(make_request(reply, **fields))
        return reply

    def answer(self, reply: Future[Any]) -> Any:
        """Step, letting time pass where the engine wants to sleep, until a request is answered."""
        for _ in range(1000):
            sleep = self.run()
            if reply.done():
                return reply.result()
            self.now += sleep
        raise AssertionError("never answered")

    def sync(self) -> SyncReply:
        """Ask for a sync and wait for it."""
        found: SyncReply = self.answer(self.ask(SyncRequest))
        return found

    def status(self) -> Status:
        """Ask for the status; the engine does nothing else but to drain its inbox and what is due now."""
        reply = self.ask(StatusRequest)
        self.step()
        found: Status = reply.result(0)
        return found

    # What is and what should be.

    @property
    def watcher(self) -> Watcher | None:
        """The watcher in use."""
        return self.watchers[-1] if self.watchers and self.indexer.watch.is_on else None

    def rows(self) -> View:
        """Return the tables in memory."""
        return make_view(self.indexer.tables.snapshot(), self.engine.model.rules)

    def digests(self, *, all_of_them: bool) -> dict[str, bytes]:
        """Return path -> md5 of the datasets in memory whose digest is known; that of all after a while.

        All of them are confirmed.
        """
        assert self.hashes is not None
        deadline = time.monotonic() + PATIENCE
        while self.hashes.n_unconfirmed or self.inbox.has_messages or (all_of_them and self.hashes.n_pending):
            assert time.monotonic() < deadline, "the hasher does not answer"
            time.sleep(0.01)
            self.run(1.0)
        sessions = self.indexer.tables.snapshot().sessions.values()
        values = {f"{each.path}/{rel_path}": value for each in sessions for rel_path, value in each.datasets()}
        return {path: digest_of(value) for path, value in values.items() if digest_of(value)}

    def paths(self) -> list[str]:
        """Return the paths of all datasets in memory, as they are on disk."""
        sessions = self.indexer.tables.snapshot().sessions
        return [f"{path}/{rel_path}" for path, session in sessions.items() for rel_path, _ in session.datasets()]

    def stored(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the rows of both tables on disk."""
        import pyarrow.parquet as pq

        return tuple(
            pq.ParquetFile(self.out_dir / name).read().to_pylist() for name in ("sessions.pqt", "datasets.pqt")
        )

    def truth(self) -> View:
        """Return what a fresh index of the same root finds."""
        self.fresh, found = index_afresh(self.engine.model.settings, self.home / "empty")
        return found

    def assert_equal(self) -> None:
        """Compare the tables, in memory and on disk, with a fresh index, and the watches with the kernel's."""
        found, expected = self.rows(), self.truth()
        assert _describe(found.snapshot) == _describe(expected.snapshot)
        assert (found.sessions, found.datasets) == (expected.sessions, expected.datasets)
        assert self.indexer.tables.counts == self.fresh.tables.counts
        assert self.indexer.tables.labs == self.fresh.tables.labs
        assert self.indexer.tables.problems() == self.fresh.tables.problems()
        assert self.stored() == (expected.sessions, expected.datasets)
        assert self.indexer.watch.audit() == []

    # The watcher, spied on.

    def _new_watcher(self) -> Watcher:
        if self.no_watcher is not None:
            raise self.no_watcher
        watcher = AmbushedWatcher(self._post, self.state_dir / "cookies")
        watcher.box = self
        self.watchers.append(watcher)
        return watcher

    def _post(self, message: Message | EventsRead) -> None:
        if isinstance(message, EventsRead | EventsLost):
            self.gate.wait(PATIENCE)
        if isinstance(message, Crawled):
            with self._news:
                self.read.append(message)
                self._news.notify_all()
            return
        told = message.parse(message.buffer) if isinstance(message, EventsRead) else [message]
        if not any(map(self.drop, told)):
            self.inbox.post(message)
        with self._news:
            for each in told:
                if isinstance(each, PathsChanged):
                    self._cookies_heard.update(each.cookies)
            if isinstance(message, Flushed | FlushFailed):
                self._n_flushes_told += 1
            if isinstance(message, EventsRead) and self._kills_reader:
                self._kills_reader, self._dying = False, threading.current_thread()
            self._news.notify_all()
        if threading.current_thread() is self._dying and isinstance(message, EventsRead):
            raise RuntimeError("killed by a test")

    def _wait_for_flush(self) -> None:
        if self.engine.model.flushes.submitted is None:
            return
        with self._news:
            arrived = self._news.wait_for(lambda: self._n_flushes_told > self.n_flushes, PATIENCE)
        assert arrived, "the flusher does not answer"
        self.n_flushes = self._n_flushes_told

    def _wait_for_workers(self) -> None:
        """Wait until the worker processes have read all that they were given: what they read is then of now."""
        workers = self.indexer.workers
        if workers is None:
            return
        n_batches = workers.n_unanswered

        def have_answered() -> bool:
            ended = {message.worker for message in self.read if message.answer is None}
            answered = Counter(message.worker for message in self.read)
            return all(number in ended or answered[number] >= n for number, n in n_batches.items())

        with self._news:
            assert self._news.wait_for(have_answered, PATIENCE), "the worker processes do not answer"

    def kill_reader(self) -> None:
        """Let the reader of events die of an exception, as a bug or an error of the kernel would."""
        watcher = self.watcher
        if watcher is None or not watcher.is_alive:
            return

        self._kills_reader = True
        watcher.drop_cookie("last")
        with self._news:
            assert self._news.wait_for(lambda: self._dying is not None, PATIENCE), "the reader has read nothing"
            dying, self._dying = self._dying, None
        assert dying is not None
        dying.join(PATIENCE)
        assert not watcher.is_alive

    def call_off_ambushes(self) -> None:
        self.ambushes = {point: [] for point in POINTS}

    def spring(self, point: str, path: str) -> None:
        """Run what waits for this moment of a look at a folder."""
        waiting, self.ambushes[point] = self.ambushes[point], []
        for action in waiting:
            action(path)
