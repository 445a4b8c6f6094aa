"""Puts the parts of the daemon together, runs them, and ends them in order."""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from alfwatchd import control_socket, server, store, systemd
from alfwatchd.core.messages import Reload, Stop
from alfwatchd.desk import Desk
from alfwatchd.engine import Engine, Parts
from alfwatchd.errors import AlfwatchdError
from alfwatchd.flusher import Flusher
from alfwatchd.hash_queue import HashQueue
from alfwatchd.hashing import Hasher
from alfwatchd.inbox import Inbox
from alfwatchd.lock import hold_out_dir
from alfwatchd.mounts import WATCHABLE, find_place
from alfwatchd.report import make_status, status_line
from alfwatchd.settings import Settings
from alfwatchd.startup import Start, prepare
from alfwatchd.state import State
from alfwatchd.store import Store
from alfwatchd.watcher import Watcher

_log = logging.getLogger(__name__)

_STATUS_SECONDS = 2.0
# Changing one of these needs another process: they decide where the daemon lives and what threads it has.
_FIXED = ("root", "out_dir", "state_dir", "socket", "namespace", "hash_files", "hash_threads", "watch", "control")


def run(settings: Settings, reload: Callable[[], Settings]) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Parameters
    ----------
    settings : Settings
    reload : callable
        Reads the settings again, on SIGHUP.

    Raises
    ------
    Locked
        Another process writes these tables, or serves this socket.
    AlfwatchdError
        The daemon cannot start.
    """
    store.check_out_dir(settings.out_dir)
    with ExitStack() as stack:
        stack.enter_context(hold_out_dir(settings.out_dir))
        listening = stack.enter_context(_listen(settings))
        state = State(settings.state_dir)
        stack.callback(state.close)
        inbox = Inbox()

        def new_watcher() -> Watcher:
            return Watcher(inbox.post, settings.state_dir / "cookies")

        start = prepare(settings, state, new_watcher if _is_watchable(settings) else None)
        stack.callback(start.indexer.guard.close)
        engine = _assemble(settings, start, state, inbox, reload, stack)
        api = server.Server(server.create_app(Desk(inbox.post, lambda: engine.settings)), listening)
        stack.callback(api.close)
        stack.callback(inbox.close)
        _catch_signals(inbox)
        _log.info("daemon started root=%s out_dir=%s socket=%s", settings.root, settings.out_dir, settings.socket)
        _loop(engine, inbox, api)
        systemd.stopping()
        engine.close()
    if engine.flushes.error:
        raise AlfwatchdError(f"the last flush failed, the tables lack the last changes: {engine.flushes.error}")
    _log.info("daemon stopped generation=%d", engine.flushes.generation)


def _assemble(
    settings: Settings, start: Start, state: State, inbox: Inbox, reload: Callable[[], Settings], stack: ExitStack
) -> Engine:
    flusher = Flusher(Store(settings.out_dir, str(settings.root)), inbox.post)
    stack.callback(flusher.close)
    hashes = None
    if settings.hash_files:
        hasher = Hasher(str(settings.root), state, settings.hash_threads, inbox.post)
        stack.callback(hasher.close)
        hashes = HashQueue(hasher, state, start.encoding, start.tables_written)

    def read_again() -> Settings:
        new = reload()
        for key in _FIXED:
            if getattr(new, key) != getattr(settings, key):
                _log.warning("setting needs a restart to change key=%s", key)
        return new.model_copy(update={key: getattr(settings, key) for key in _FIXED})

    parts = Parts(
        indexer=start.indexer,
        flusher=flusher,
        inbox=inbox,
        hashes=hashes,
        first_pass_done=lambda: _finish_first_pass(start),
        reload=read_again,
        wall_clock=lambda: datetime.now(UTC),
    )
    return Engine(settings, start.encoding, parts)


def _loop(engine: Engine, inbox: Inbox, api: server.Server) -> None:
    """Step the engine; the watchdog of systemd is fed here, by the loop that does the work."""
    interval = systemd.watchdog_interval()
    last_ping = last_status = 0.0
    n_reloads = engine.n_reloads
    systemd.ready("starting")
    while not engine.is_done:
        now = time.monotonic()
        sleep = engine.step(now)
        if interval is not None and now - last_ping >= interval / 2:
            systemd.watchdog()
            last_ping = now
        if n_reloads != engine.n_reloads:
            n_reloads = engine.n_reloads
            systemd.reloading(time.monotonic_ns() // 1000)
            systemd.ready(status_line(make_status(engine, now)))
        elif now - last_status >= _STATUS_SECONDS:
            systemd.status(status_line(make_status(engine, now)))
            last_status = now
        if not api.is_alive:
            raise AlfwatchdError("the control server ended; see the log above")
        inbox.wait(min(sleep, interval / 2) if interval is not None else sleep)


def _finish_first_pass(start: Start) -> None:
    start.finish_first_pass()
    try:
        start.check_lab()
    except AlfwatchdError as error:
        # Not the end of a daemon: anyone who makes a folder could end it. The folder's own lab stands in the row.
        _log.error("%s", error)


def _is_watchable(settings: Settings) -> bool:
    """Tell whether inotify sees what happens at the root; a root that is not there yet may turn out to be."""
    if settings.watch != "auto":
        return settings.watch == "inotify"
    try:
        return find_place(str(settings.root)).fs_type in WATCHABLE
    except OSError:
        return True


@contextmanager
def _listen(settings: Settings) -> Iterator[socket.socket]:
    """Take the socket that systemd passed, or make one and remove it at the end."""
    passed = systemd.listen_fds()
    if passed:
        yield socket.socket(fileno=passed[0])
        return
    with control_socket.listen(settings.socket, settings.control.group) as listening:
        yield listening


def _catch_signals(inbox: Inbox) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: inbox.post(Stop()))
    signal.signal(signal.SIGHUP, lambda *_: inbox.post(Reload()))
