"""Runs once: indexes the root and writes the tables, or only looks, without a daemon."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from alfwatchd.api import RecomputeReply, SetReply
from alfwatchd.database.adopter import make_id_recorder
from alfwatchd.database.look import NOTHING_READ, Reading, find_problems, look
from alfwatchd.engine.changes_log import log_at_once
from alfwatchd.engine.inbox import Inbox
from alfwatchd.engine.messages import Message
from alfwatchd.errors import RootOffline
from alfwatchd.index.hash_queue import HashQueue
from alfwatchd.index.indexer import Committed, Indexer
from alfwatchd.index.lab import lab_problems
from alfwatchd.index.state_db import StateDb
from alfwatchd.index.worker_pool import Crawled
from alfwatchd.scan.hasher import Hashed, Hasher
from alfwatchd.service import surroundings
from alfwatchd.service.startup import Start, make_journal, prepare
from alfwatchd.settings import Settings
from alfwatchd.store import earlier_tables, reader
from alfwatchd.store.id_history import IdsChanged
from alfwatchd.store.layout import LAYOUT
from alfwatchd.store.other_files import OtherFiles
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables import set_columns as tables_set
from alfwatchd.tables.mismatches import Mismatches
from alfwatchd.tables.rules import TableRules
from alfwatchd.tables.set_columns import NewColumns
from alfwatchd.tree.folder import Changes
from alfwatchd.tree.rows import Problem
from alfwatchd.tree.session_changes import ChangedSessions, all_new
from alfwatchd.tree.sessions import Snapshot, TablesView

_PATIENCE_SECONDS = 1.0
_RENEWED_SECONDS = 3600.0
"""How long tables of equal rows stay as they are. Older ones are written again, because prune asks how old they are."""

Progress = Callable[[int, int], None]
"""Given the numbers of sessions and datasets found so far."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What one run found and wrote.

    Parameters
    ----------
    n_sessions, n_datasets : int
        Rows in the tables.
    n_bytes : int
        Sum of the file sizes.
    added, changed, removed : int
        Number of dataset rows that differ from the tables that were there before. A row with another id counts as
        changed.
    adopted : IdsChanged or None
        Which ids changed, and why; None if none did.
    problems : tuple of Problem
    seconds : float
        Duration of the run.
    held : str
        Why rows of sessions that are gone are held; empty if none are.
    source_error : str
        Why the database could not be read; empty if it was, or if there is none.
    """

    n_sessions: int
    n_datasets: int
    n_bytes: int
    added: int
    changed: int
    removed: int
    adopted: IdsChanged | None
    problems: tuple[Problem, ...]
    seconds: float
    held: str = ""
    source_error: str = ""


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Switch the search for garbage off: it takes a fifth of a full index, which makes a million objects that stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@no_garbage_collection()
def run_once(
    settings: Settings,
    *,
    accept_root: bool = False,
    recompute_ids: bool = False,
    change: Callable[[TableRules, Snapshot], TableRules] | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Bring the tables in the output folder up to date. The caller holds the lock on the folder.

    Parameters
    ----------
    settings : Settings
    accept_root : bool
        See `Indexer.open_root`.
    recompute_ids : bool
        Whether to make all ids from the paths again, even if earlier tables hold other ones.
    change : callable or None
        Changes how rows become columns; it gets the rules and what is here.
    progress : callable or None
        See `Progress`.

    Raises
    ------
    RootOffline
        The root is missing, or another disk or folder than before; the tables stay as they are.
    LabConflict
        The `lab` setting differs from a lab folder.
    ConfigError, TablesError
        The output folder holds the tables of another root, or the tables cannot be written.
    """
    started, written_at = time.monotonic(), datetime.now(UTC)
    surroundings.require()
    if not accept_root:
        earlier_tables.require_same_root(settings.out_dir, settings.root)
    state = StateDb(settings.state_dir)
    try:
        inbox = Inbox()
        start = prepare(settings, state, None, inbox.post)  # first: it reads the earlier tables
        with ThreadPoolExecutor(1) as beside:  # most of the time worker processes scan, and Arrow reads without the GIL
            reading = beside.submit(look, settings.adopt, settings.state_dir) if settings.adopt.source else None
            index(start, inbox, accept_root=accept_root, progress=progress)
            start.check_lab()
            start.first_seen.note(start.indexer, time.time())
            found = reading.result() if reading is not None else NOTHING_READ
        if recompute_ids:
            start = replace(start, rules=start.rules.without_earlier_ids())
        if found.adoption is not None:
            start = replace(start, rules=start.rules.adopt(found.adoption))
        if change is not None:
            start = replace(start, rules=change(start.rules, start.indexer.tables.snapshot()))
        if settings.hash_files:
            run_hashing(settings, state, start)
        changes, ids_changed = _write(settings, start, written_at)
    finally:
        state.close()
    return _summarize(settings, start, found, changes, ids_changed, started)


def _summarize(
    settings: Settings, start: Start, found: Reading, changes: Changes, ids_changed: IdsChanged | None, started: float
) -> Summary:
    tables = start.indexer.tables
    counts, snapshot = tables.counts, tables.snapshot()
    mismatches = Mismatches(found.adoption) if found.adoption is not None else None
    problems = (
        *lab_problems(settings.lab, snapshot),
        *start.indexer.problems(),
        *OtherFiles(settings.root, settings.out_dir).problems(),
        *find_problems(found.error, mismatches, snapshot, settings.lab),
    )
    seconds = time.monotonic() - started
    return Summary(
        counts.n_sessions, counts.n_datasets, counts.n_bytes,
        changes.added, changes.changed, changes.removed, ids_changed, problems, seconds,
        start.indexer.absences.why_held, found.error,
    )  # fmt: skip


def recompute_ids(settings: Settings) -> RecomputeReply:
    """Make all ids from the paths again. The caller holds the lock on the folder; raises as `run_once`."""
    summary = run_once(settings, recompute_ids=True)
    generation, _ = reader.read_generation(settings.out_dir)
    return RecomputeReply(generation, summary.adopted.n_changes if summary.adopted else 0, summary.seconds)


def set_columns(settings: Settings, session: str, new: NewColumns) -> SetReply:
    """Set columns of a session; see `tables.set_columns`. The caller holds the lock; raises as `run_once`, too."""
    path = reader.find_path(settings.out_dir, session)
    done: list[tuple[str, int]] = []

    def change(rules: TableRules, snapshot: Snapshot) -> TableRules:
        rules, own_path, n_datasets = tables_set.set_columns(rules, snapshot, path, new)
        done.append((own_path, n_datasets))
        return rules

    summary = run_once(settings, change=change)
    generation, _ = reader.read_generation(settings.out_dir)
    return SetReply(*done[0], generation, summary.seconds)


@no_garbage_collection()
def look_once(settings: Settings) -> TablesView:
    """Index the root and write nothing, for a `prune` where no daemon runs.

    Raises
    ------
    RootOffline
        The root is missing, or another disk or folder than an earlier run recorded.
    """
    surroundings.require()
    state = StateDb(settings.state_dir)
    try:
        start = index_with_workers(settings, state)
        start.first_seen.note(start.indexer, time.time())
    finally:
        state.close()
    return replace(start.indexer.view(), first_seen=start.first_seen.times)


def index_with_workers(
    settings: Settings, state: StateDb, *, accept_root: bool = False, progress: Progress | None = None
) -> Start:
    """Scan the whole root with as many processes as the settings say; parameters and errors as for `index`."""
    inbox = Inbox()
    start = prepare(settings, state, None, inbox.post)
    index(start, inbox, accept_root=accept_root, progress=progress)
    return start


def index(
    start: Start, inbox: Inbox | None = None, *, accept_root: bool = False, progress: Progress | None = None
) -> None:
    """Scan the whole root.

    Parameters
    ----------
    start : Start
    inbox : Inbox or None
        Receives what worker processes have read; None if there are none.
    accept_root : bool
        See `Indexer.open_root`.
    progress : callable or None
        See `Progress`.

    Raises
    ------
    RootOffline
        The root is missing, or another disk or folder than before; the message says how to accept it.
    """
    indexer = start.indexer
    try:
        indexer.open_root(accept=accept_root)
        indexer.start_scan("once", 0.0)
        while indexer.queue.is_waiting:
            if inbox is not None:
                _hear(inbox, indexer)
            indexer.scan(0.0)
            indexer.take_committed()  # what is hashed later is all of it
            if progress is not None:
                progress(indexer.tables.counts.n_sessions, indexer.tables.counts.n_datasets)
    except RootOffline as error:
        raise RootOffline(
            f"{error}; the tables were left as they are. If the root is meant to be like this, "
            "run once more with --accept-root"
        ) from error
    finally:
        indexer.close()
        indexer.guard.close()
    start.finish_first_scan()


def _write(settings: Settings, start: Start, written_at: datetime) -> tuple[Changes, IdsChanged | None]:
    """Write the tables, and log which sessions changed. Return how many rows did, and which ids."""
    told: list[Message] = []
    record_ids = make_id_recorder(settings.adopt.source, settings.state_dir, told.append)
    layout = settings.state_dir / LAYOUT
    snapshot, journal = start.indexer.snapshot(), make_journal(settings)
    writer = TableWriter(settings.out_dir, str(settings.root), layout, record_ids, start.notes, journal=journal)
    with closing(writer):
        written = writer.write(snapshot, start.rules, written_at, renewed_seconds=_RENEWED_SECONDS)
    found = list(written.changes if written.changes is not None else all_new(snapshot.sessions.values()))
    log_at_once(ChangedSessions.of(found))
    changes = Changes(*(sum(getattr(each, name) for each in found) for name in ("added", "changed", "removed")))
    return changes, next((each for each in told if isinstance(each, IdsChanged)), None)


def _hear(inbox: Inbox, indexer: Indexer) -> None:
    """Take what worker processes have read; wait for it if nothing else is left to do."""
    if not indexer.queue.is_ready:
        inbox.wait(_PATIENCE_SECONDS)
    for message in inbox.drain():
        if isinstance(message, Crawled):
            indexer.receive(message)


def run_hashing(settings: Settings, state: StateDb, start: Start) -> None:
    """Hash all files without a recorded digest, and wait until that is done."""
    inbox = Inbox()
    hasher = Hasher(str(settings.root), state, settings.hash_threads, inbox.post, settle_seconds=0.0)
    hashes = HashQueue(hasher, state, hasher if settings.hash_recheck == "now" else None)
    try:
        sessions = list(start.indexer.tables.snapshot().sessions.values())
        hashes.submit(Committed(sessions, [], []), start.indexer)
        while hasher.n_pending or inbox.has_messages:
            inbox.wait(0.1)
            for message in inbox.drain():
                _accept(message, hashes, start)
    finally:
        hasher.close()
    for message in inbox.drain():
        _accept(message, hashes, start)
    hashes.end(start.indexer)
    start.indexer.scan(0.0)


def _accept(message: Message, hashes: HashQueue, start: Start) -> None:
    if isinstance(message, Hashed):
        hashes.accept(message, start.indexer)
