"""The time before there is an engine: clients are answered while the daemon reads the tables of earlier runs.

With a million ids to carry over, reading takes seconds. A thread reads, while the main thread answers `status` and
metrics, and keeps all other messages for the engine.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from alfwatchd import threads
from alfwatchd.addresses import shown
from alfwatchd.alf.printable import printable
from alfwatchd.api import AdoptStatus, Status, StatusRequest, answer
from alfwatchd.engine.inbox import Inbox
from alfwatchd.engine.messages import Message, Stop
from alfwatchd.figures import Figures, FiguresRequest
from alfwatchd.settings import Settings
from alfwatchd.version import find_version

_ROUND_SECONDS = 0.05

T = TypeVar("T")


def wait_for(make: Callable[[], T], inbox: Inbox, settings: Settings, ping: Callable[[float], object]) -> T | None:
    """Call a function in a thread, and answer clients until it returns. Main thread only.

    Parameters
    ----------
    make : callable
        The function.
    inbox : Inbox
        `StatusRequest` and `FiguresRequest` are answered here. All other messages stay in the inbox, in their order.
    settings : Settings
    ping : callable
        Feeds systemd's watchdog; gets the monotonic clock.

    Returns
    -------
    object or None
        What `make` returned. None if the daemon was told to stop: the thread may still run then, so do not wait for it.

    Raises
    ------
    Exception
        What `make` raised.
    """
    done: Future[T] = Future()
    since = datetime.now(UTC)
    was_collecting = gc.isenabled()
    # `make` creates millions of objects that stay. Looking for garbage among them stops all threads for seconds.
    gc.disable()
    kept: list[Message] = []
    try:
        threads.start(partial(_run, make, done), "startup")
        while not done.done():
            kept += _answer(inbox.drain(), settings, since)
            if any(isinstance(message, Stop) for message in kept):
                return None
            ping(time.monotonic())
            inbox.wait(_ROUND_SECONDS)
    finally:
        if was_collecting:
            gc.freeze()
            gc.enable()
        inbox.put_back(kept)
    return done.result()


def _run(make: Callable[[], T], done: Future[T]) -> None:
    try:
        result = make()
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        done.set_exception(error)
    else:
        done.set_result(result)


def _answer(messages: list[Message], settings: Settings, since: datetime) -> list[Message]:
    """Answer each request for status or figures, and return all other messages."""
    left: list[Message] = []
    for message in messages:
        if isinstance(message, StatusRequest):
            answer(message.reply, make_status(settings, since))
        elif isinstance(message, FiguresRequest):
            answer(message.reply, Figures(make_status(settings, since)))
        else:
            left.append(message)
    return left


def make_status(settings: Settings, since: datetime) -> Status:
    """Return the status before there is an engine."""
    source = settings.adopt.source
    return Status(
        state="starting",
        since=since.isoformat(timespec="seconds"),
        detail="the tables of earlier runs are being read, if there are any",
        root=printable(str(settings.root)),
        out_dir=printable(str(settings.out_dir)),
        pid=os.getpid(),
        version=find_version(),
        generation=0,
        n_sessions=0,
        n_datasets=0,
        n_bytes=0,
        n_ignored=0,
        saved=True,
        last_flush=None,
        last_flush_seconds=None,
        last_flush_error=None,
        oldest_unflushed_seconds=None,
        events_lost=0,
        adopt=AdoptStatus(shown(source), None, None, None, None, None, None) if source else None,
    )
