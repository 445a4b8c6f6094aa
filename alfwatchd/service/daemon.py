"""Runs the daemon: puts its parts together, steps the engine, and ends the parts in order."""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from alfwatchd.alf.file_names import SESSIONS
from alfwatchd.database.adopter import Adopter, make_id_recorder
from alfwatchd.engine.engine import Engine
from alfwatchd.engine.inbox import Inbox
from alfwatchd.engine.messages import Message, Reload, Stop
from alfwatchd.engine.model import EngineModel
from alfwatchd.engine.pending_changes import PendingChanges
from alfwatchd.engine.status import status_line
from alfwatchd.engine.waiting import wait_for
from alfwatchd.errors import AlfwatchdError, OutDirError
from alfwatchd.index.hash_queue import HashQueue
from alfwatchd.index.state_db import StateDb, no_state, state_file
from alfwatchd.journal.journal import Journal
from alfwatchd.prune.trash_keeper import TrashKeeper
from alfwatchd.publish.publication import check_targets
from alfwatchd.publish.publisher import Publisher
from alfwatchd.scan.hasher import RECHECK_SHARE, Hasher
from alfwatchd.scan.mounts import WATCHABLE, find_place
from alfwatchd.service import cookies, file_limits, logs, surroundings, systemd
from alfwatchd.service.in_force import InForce
from alfwatchd.service.listening import Control
from alfwatchd.service.locks import Held, hold_out_dir, hold_state_dir
from alfwatchd.service.startup import Start, make_journal, prepare
from alfwatchd.settings import Settings
from alfwatchd.store import writer
from alfwatchd.store.earlier_tables import require_same_root
from alfwatchd.store.flusher import Flushed, Flusher
from alfwatchd.store.layout import LAYOUT
from alfwatchd.store.writer import TableWriter
from alfwatchd.watch.watcher import Watcher
from alfwatchd.web.change_feed import ChangeFeed
from alfwatchd.web.control_api import create_app
from alfwatchd.web.control_connections import control_protocol
from alfwatchd.web.control_service import ControlService
from alfwatchd.web.http_server import Server

_log = logging.getLogger(__name__)

_LOOK_AFTER_SECONDS = 2.0

# Number of new objects after which Python looks for garbage. With its default of 700, looking takes a fifth of a full
# scan, which makes a million objects that stay. Requests of clients leave little garbage.
_NEW_OBJECTS = 50_000


def run(settings: Settings, load: Callable[[], Settings]) -> None:
    """Run the daemon until SIGTERM or SIGINT. Main thread only.

    Parameters
    ----------
    settings : Settings
    load : callable
        Reads the settings again, on SIGHUP.

    Raises
    ------
    Locked
        Another process keeps these tables, uses this state folder or listens on this socket.
    AlfwatchdError
        The daemon cannot start, a thread has ended unexpectedly, or the last changes could not be saved.
    """
    surroundings.require()
    check_targets(settings.publish)
    file_limits.raise_limit()
    writer.use_system_memory()
    logs.log_uncaught()
    gc.set_threshold(_NEW_OBJECTS)
    inbox, service = Inbox(), systemd.Service()
    _catch_signals(inbox)
    in_force = InForce(settings, load, service)
    with ExitStack() as stack:
        held = stack.enter_context(ExitStack())
        locks: dict[str, Held] = {}
        trouble = _try_to_hold(held, settings, locks)
        control = Control(settings)
        stack.callback(control.close)
        # Before anything is opened: the state of another daemon that runs must not be repaired.
        locks["state_dir"] = stack.enter_context(_hold_state_dir(settings.state_dir))
        state, journal = StateDb(settings.state_dir), make_journal(settings)
        stack.callback(state.close)
        answering = ControlService(inbox.post, lambda: in_force.settings)
        changes = ChangeFeed(journal.feed, lambda: in_force.settings)
        app = create_app(answering, changes)
        api = Server(app, control.listening, control_protocol(answering.rights))
        stack.callback(api.close)
        stack.callback(inbox.close)
        _log.info("daemon started root=%s out_dir=%s socket=%s", settings.root, settings.out_dir, control.path)
        process = _Process(in_force, inbox, service, state, journal, api, locks, control)
        while _work(process, trouble):
            held.close()
            _hold_out_dir(held, settings, locks)
            trouble = None
            _log.info("root is there now, reading its earlier tables root=%s", settings.root)
    _log.info("daemon stopped")


@dataclass(frozen=True, slots=True)
class _Process:
    """The parts that live as long as the process."""

    in_force: InForce
    inbox: Inbox
    service: systemd.Service
    state: StateDb
    journal: Journal
    api: Server
    locks: dict[str, Held]
    control: Control

    def require_out_dir(self) -> None:
        """Raise, as `Held.require_folder`, if the output folder is no longer the one that is locked."""
        if "out_dir" in self.locks:
            self.locks["out_dir"].require_folder()


def _work(process: _Process, trouble: OutDirError | None) -> bool:
    """Keep the tables right until the daemon is told to stop.

    Parameters
    ----------
    process : _Process
    trouble : OutDirError or None
        Why the output folder is not locked; None if it is. Without a lock nothing is written: the folder lies in the
        root, which is offline.

    Returns
    -------
    bool
        Whether to start again instead of stopping: the root and the earlier tables in it were missing at the start, and
        are there now. If they were not read, the ids and columns in them would be lost.
    """
    settings = process.in_force.settings
    lacks_tables = _lies_in_root(settings) and not _has_tables(settings)
    with ExitStack() as stack:
        assembled = _assemble(process, stack)
        if assembled is None:
            return False
        engine, threads = assembled
        if trouble is not None or lacks_tables:
            engine.model.hold_flushes()
        was_offline = False
        if trouble is None:
            process.service.tell(time.monotonic(), status_line(engine.model, time.monotonic()))
        for _ in _rounds(process, engine, threads):
            if not (engine.model.may_flush or engine.model.offline or engine.is_stopping):
                if trouble or was_offline or _has_tables(settings):
                    process.state.save_places(engine.model.indexer.guard.places)
                    return True
                engine.model.allow_flushes()
            was_offline = was_offline or bool(engine.model.offline)
        if engine.unsaved:
            raise AlfwatchdError(f"the tables lack the last changes, and the next start scans: {engine.unsaved}")
    return False


Threads = Mapping[str, Callable[[], bool]]
"""Name of a thread that the daemon cannot do without -> function that tells whether it runs."""


def _assemble(process: _Process, stack: ExitStack) -> tuple[Engine, Threads] | None:
    """Return engine and threads; None if the daemon was told to stop before they were made."""
    settings, inbox, state = process.in_force.settings, process.inbox, process.state

    def new_watcher() -> Watcher:
        return Watcher(inbox.post, cookies.choose_folder(settings.state_dir))

    make = partial(prepare, settings, state, new_watcher if _is_watchable(settings) else None, inbox.post)
    start = wait_for(make, inbox, settings, process.service.ping)
    if start is None:
        return None
    stack.callback(start.indexer.guard.close)
    start.indexer.use_scanner(
        replace(start.indexer.scanner, on_progress=lambda: process.service.ping(time.monotonic()))
    )
    record_ids = make_id_recorder(settings.adopt.source, settings.state_dir, inbox.post)
    layout = settings.state_dir / LAYOUT
    written = TableWriter(
        settings.out_dir,
        str(settings.root),
        layout,
        record_ids,
        start.notes,
        process.require_out_dir,
        process.journal,
    )
    publisher = Publisher(settings.out_dir, settings.publish) if settings.publish else None
    if publisher is not None:
        stack.callback(publisher.close)
    flusher = Flusher(written, _waking(publisher, inbox.post))
    stack.callback(flusher.close)
    threads = {"flusher": lambda: flusher.is_alive, "server": lambda: process.api.is_alive}
    adopter = None
    if settings.adopt.source:
        adopter = Adopter(settings.adopt, settings.state_dir, start.rules.known.earlier, inbox.post)
        stack.callback(adopter.close)
        threads["adopter"] = lambda: adopter.is_alive
    model = EngineModel(
        settings=settings,
        rules=start.rules,
        indexer=start.indexer,
        flusher=flusher,
        inbox=inbox,
        hashes=_start_hashing(process, stack, threads) if settings.hash_files else None,
        adopter=adopter,
        publisher=publisher,
        first_scan_done=lambda: _finish_first_scan(start),
        reload=process.in_force.read_again,
        wall_clock=lambda: datetime.now(UTC),
        stopwatch=time.monotonic,
        trash=TrashKeeper(lambda: process.in_force.settings),
        pending=PendingChanges(process.journal.feed.pending, time.monotonic),
        first_seen=start.first_seen,
        earlier_generation=start.earlier_generation,
    )
    engine = Engine(model)
    stack.callback(engine.close)
    return engine, threads


def _start_hashing(process: _Process, stack: ExitStack, threads: dict[str, Callable[[], bool]]) -> HashQueue:
    settings, state, post = process.in_force.settings, process.state, process.inbox.post
    hasher = Hasher(str(settings.root), state, settings.hash_threads, post)
    stack.callback(hasher.close)
    rechecks = Hasher(str(settings.root), state, 1, post, share=RECHECK_SHARE)
    stack.callback(rechecks.close)
    threads["hasher"] = lambda: hasher.is_alive and rechecks.is_alive
    return HashQueue(hasher, state, rechecks)


def _waking(publisher: Publisher | None, post: Callable[[Message], None]) -> Callable[[Message], None]:
    """Return the `post` for the flusher: it also wakes the publisher, which need not wait for the engine."""
    if publisher is None:
        return post

    def post_and_wake(message: Message) -> None:
        if isinstance(message, Flushed):
            publisher.wake()
        post(message)

    return post_and_wake


def _rounds(process: _Process, engine: Engine, threads: Threads) -> Iterator[None]:
    """Step the engine until it is done, and feed systemd's watchdog: this loop does the work."""
    looked_after = time.monotonic()
    while not engine.is_done:
        sleep = engine.step(time.monotonic())
        yield
        for name, is_alive in threads.items():
            if not is_alive():
                raise AlfwatchdError(f"the {name} thread has ended unexpectedly; the log says why")
        if time.monotonic() - looked_after > _LOOK_AFTER_SECONDS:
            looked_after = time.monotonic()
            _look_after(process, engine)
        line = status_line(engine.model, time.monotonic())
        until_ping = process.service.tell(time.monotonic(), line, is_stopping=engine.is_stopping)
        process.inbox.wait(min(sleep, until_ping))


def _look_after(process: _Process, engine: Engine) -> None:
    """Take locks again whose files were removed, and make the file of the control socket again."""
    if not all(lock.is_in_place() for lock in process.locks.values()):
        engine.root.look(time.monotonic())  # the folders may lie in it, and something may be mounted over it
    for lock in process.locks.values() if not engine.model.offline else ():
        lock.keep()
    if process.api.is_listening:
        process.control.keep(process.api.replace)


def _finish_first_scan(start: Start) -> None:
    start.finish_first_scan()
    # The tree never becomes garbage. Looking through it took 320 ms with 100,000 datasets, again and again while files
    # were added; no other thread can run meanwhile, and the kernel's queue of events overflowed.
    gc.freeze()
    try:
        start.check_lab()
    except AlfwatchdError as error:
        # This must not end the daemon: any user who makes a folder could do so. The row gets the lab of its folder.
        _log.error("lab setting not kept error=%s", error)


def _is_watchable(settings: Settings) -> bool:
    """Tell whether inotify can watch the root. A root that is not there yet counts as one that it can."""
    if settings.watch != "auto":
        return settings.watch == "inotify"
    try:
        return find_place(str(settings.root)).fs_type in WATCHABLE
    except OSError:
        return True


# The output folder.


def _try_to_hold(stack: ExitStack, settings: Settings, locks: dict[str, Held]) -> OutDirError | None:
    """Lock the output folder. If it lies in the root, which may be offline, return the error instead of raising it."""
    try:
        _hold_out_dir(stack, settings, locks)
    except OutDirError as error:
        if not _lies_in_root(settings) or _is_first_start_on_data(settings):
            raise
        return error
    return None


def _hold_out_dir(stack: ExitStack, settings: Settings, locks: dict[str, Held]) -> None:
    locks["out_dir"] = stack.enter_context(hold_out_dir(settings.out_dir, settings.root, is_daemon=True))
    require_same_root(settings.out_dir, settings.root)


def _hold_state_dir(state_dir: Path) -> AbstractContextManager[Held]:
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as error:
        raise no_state(state_dir, error) from error
    return hold_state_dir(state_dir)


def _lies_in_root(settings: Settings) -> bool:
    return settings.out_dir.is_relative_to(settings.root)


def _is_first_start_on_data(settings: Settings) -> bool:
    """Tell whether the output folder is there, in a root that holds something, and no daemon has kept this root before.

    The place of a disk that is not mounted is empty. A root that is known may be another disk now: that is offline.
    """
    if not settings.out_dir.is_dir() or os.access(state_file(settings.state_dir), os.F_OK):
        return False
    try:
        with os.scandir(settings.root) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def _has_tables(settings: Settings) -> bool:
    return os.access(settings.out_dir / SESSIONS, os.F_OK)


# The world outside.


def _catch_signals(inbox: Inbox) -> None:
    """Turn signals into messages. A second Ctrl-C ends the process at once, without the last flush."""

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        inbox.post(Stop())

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, lambda *_: inbox.post(Reload()))
