"""Index and flush without a daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from alfwatchd import store
from alfwatchd.core.messages import Hashed, Message, TablesView
from alfwatchd.core.rows import Problem
from alfwatchd.errors import RootOffline
from alfwatchd.hash_queue import HashQueue
from alfwatchd.hashing import Hasher
from alfwatchd.inbox import Inbox
from alfwatchd.settings import Settings
from alfwatchd.startup import Start, lab_problems, prepare
from alfwatchd.state import State
from alfwatchd.store import Store

Progress = Callable[[int, int], None]
"""Gets the numbers of sessions and datasets found so far."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What one run found and wrote.

    Parameters
    ----------
    n_sessions, n_datasets : int
    n_bytes : int
        Sum of the file sizes.
    added, changed, removed : int
        Dataset rows, against the tables that were there before.
    problems : tuple of Problem
    seconds : float
    """

    n_sessions: int
    n_datasets: int
    n_bytes: int
    added: int
    changed: int
    removed: int
    problems: tuple[Problem, ...]
    seconds: float


def run_once(settings: Settings, *, accept_root: bool = False, progress: Progress | None = None) -> Summary:
    """Bring the tables in the output folder up to date. The caller holds the lock on the folder.

    Raises
    ------
    RootOffline
        The root is not what it was; the tables stay as they are.
    LabConflict
        The `lab` setting differs from a lab folder.
    OutDirError, TablesError
        The tables cannot be written.
    """
    started = time.monotonic()
    store.check_out_dir(settings.out_dir)
    state = State(settings.state_dir)
    try:
        start = prepare(settings, state)
        index(start, accept_root=accept_root, progress=progress)
        start.check_lab()
        if settings.hash_files:
            run_hashing(settings, state, start)
        tables, old = start.indexer.tables, store.read_ids_and_sizes(settings.out_dir)
        Store(settings.out_dir, str(settings.root)).write(tables.snapshot(), start.encoding)
        changes = store.compare(old, store.read_ids_and_sizes(settings.out_dir))
    finally:
        state.close()
    counts = tables.counts
    problems = (*lab_problems(settings.lab, tables.snapshot()), *start.indexer.problems())
    seconds = time.monotonic() - started
    return Summary(
        counts.n_sessions, counts.n_datasets, counts.n_bytes,
        changes.added, changes.changed, changes.removed, problems, seconds,
    )  # fmt: skip


def look_once(settings: Settings) -> TablesView:
    """Index the root and write nothing: what `prune` needs where no daemon runs.

    Raises
    ------
    RootOffline
        The root is missing, or not what an earlier run recorded.
    """
    state = State(settings.state_dir)
    try:
        start = prepare(settings, state)
        index(start)
    finally:
        state.close()
    indexer = start.indexer
    unsure = [folder.path for folder in indexer.unreadable] + list(indexer.guard.missing)
    return TablesView(indexer.tables.snapshot(), tuple(unsure))


def index(start: Start, *, accept_root: bool = False, progress: Progress | None = None) -> None:
    """Scan the whole root.

    Raises
    ------
    RootOffline
        The root is not what it was; says how to accept it.
    """
    indexer = start.indexer
    try:
        indexer.open_root(accept=accept_root)
        indexer.start_pass("once", 0.0)
        while indexer.work.is_waiting:
            indexer.scan(0.0)
            indexer.committed.clear()
            if progress is not None:
                progress(indexer.tables.counts.n_sessions, indexer.tables.counts.n_datasets)
    except RootOffline as error:
        raise RootOffline(
            f"{error}; the tables were left as they are. If the root is meant to be like this, "
            "run once more with --accept-root"
        ) from error
    finally:
        indexer.guard.close()
    start.finish_first_pass()


def run_hashing(settings: Settings, state: State, start: Start) -> None:
    """Hash all files that have no recorded digest, and wait for it."""
    inbox = Inbox()
    hasher = Hasher(str(settings.root), state, settings.hash_threads, inbox.post, settle_seconds=0.0)
    hashes = HashQueue(hasher, state, start.encoding, start.tables_written)
    try:
        start.indexer.committed.extend(start.indexer.tables.snapshot().sessions.values())
        hashes.submit(start.indexer)
        while hasher.n_pending or inbox.has_messages:
            inbox.wait(0.1)
            for message in inbox.drain():
                _take(message, hashes, start)
    finally:
        hasher.close()
    for message in inbox.drain():
        _take(message, hashes, start)
    start.indexer.scan(0.0)


def _take(message: Message, hashes: HashQueue, start: Start) -> None:
    if isinstance(message, Hashed):
        hashes.take(message, start.indexer)
