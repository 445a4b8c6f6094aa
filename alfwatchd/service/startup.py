"""What a run begins with: an indexer for the settings, and what earlier tables and state know."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from alfwatchd.alf.exclude import compile_exclude
from alfwatchd.database import local_copy
from alfwatchd.database.look import recall
from alfwatchd.engine.messages import Message
from alfwatchd.errors import LabConflict, StateError
from alfwatchd.index.first_seen import FirstSeen
from alfwatchd.index.indexer import Indexer
from alfwatchd.index.intake import EarlierRow
from alfwatchd.index.lab import lab_problems
from alfwatchd.index.losses import Loss
from alfwatchd.index.record import Record
from alfwatchd.index.state_db import StateDb
from alfwatchd.index.worker_pool import WorkerPool
from alfwatchd.journal.journal import Bounds, Journal
from alfwatchd.scan.place import Place
from alfwatchd.scan.root_guard import RootGuard
from alfwatchd.scan.scanner import Scanner
from alfwatchd.service import surroundings
from alfwatchd.settings import Settings
from alfwatchd.store import earlier_tables, reader
from alfwatchd.store.earlier_tables import EarlierSessions, follow_from_disk
from alfwatchd.store.layout import LAYOUT
from alfwatchd.store.notes_file import Notes
from alfwatchd.tables.earlier import Earlier
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.rules import TableRules
from alfwatchd.watch.supervisor import WatchSupervisor
from alfwatchd.watch.watcher import Watcher

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """What a run begins with.

    Parameters
    ----------
    indexer : Indexer
        Knows nothing of the disk yet.
    rules : TableRules
        Carries over what earlier tables hold.
    notes : Notes or None
        Where what only the tables hold is noted; None for a run that leaves no state.
    first_seen : FirstSeen
        Knows the sessions of earlier tables.
    earlier_generation : int
        Of the tables that are there; 0 for none.
    """

    indexer: Indexer
    rules: TableRules
    notes: Notes | None
    first_seen: FirstSeen
    earlier_generation: int
    _settings: Settings
    losses: list[Loss] = field(default_factory=list)
    """Losses that the first scan found: held, or accepted by a person."""

    def finish_first_scan(self) -> None:
        """Do what the first complete scan allows: put back rows that cannot be read now, or that are held."""
        indexer = self.indexer
        if indexer.unreadable or indexer.guard.missing:
            indexer.restore(self._read_rows())
        loss = indexer.absences.judge_earlier(indexer.known.take_earlier(), self._read_rows)
        if loss is not None:
            self.losses.append(loss)
        indexer.note_inodes()

    def _read_rows(self) -> Iterator[EarlierRow]:
        return map(EarlierRow._make, earlier_tables.rows_here(self._settings.out_dir, self._settings.lab))

    def check_lab(self) -> None:
        """Make sure that the `lab` setting fits the lab folders.

        Raises
        ------
        LabConflict
            There is a lab folder of another name.
        """
        for problem in lab_problems(self._settings.lab, self.indexer.tables.snapshot()):
            if problem.kind == "lab_conflict":
                raise LabConflict(f"{self._settings.root}: {problem.message}")


def prepare(
    settings: Settings,
    state: StateDb | None,
    new_watcher: Callable[[], Watcher] | None = None,
    post: Callable[[Message], None] | None = None,
) -> Start:
    """Read what earlier runs left and make an indexer.

    Parameters
    ----------
    settings : Settings
    state : StateDb or None
        None for a run that leaves no state.
    new_watcher : callable or None
        Makes a watcher; None for a run that looks once.
    post : callable or None
        Gets the messages of worker processes; None for a run without worker processes.
    """
    surroundings.warn_of_places(settings)
    recorded = state.load_places() if state is not None else {}
    record = _Record(state)
    guard = RootGuard(str(settings.root), recorded, record.keep, follow_links=settings.follow_links)
    generation, metadata = reader.read_generation(settings.out_dir)
    earlier_tables.require_readable(settings.out_dir, n_bytes=1)
    indexer = Indexer(
        Scanner(str(settings.root), compile_exclude(settings.exclude), follow_links=settings.follow_links),
        guard,
        WatchSupervisor(new_watcher),
        settle_seconds=settings.settle_seconds,
        longest_wait_seconds=settings.longest_wait_seconds,
        workers=_make_workers(settings, post) if post is not None and settings.n_workers > 1 else None,
        max_lost_fraction=settings.guard.max_lost_fraction,
        record=Record(record.load_held(), record.keep_loss, record.keep_inodes),
    )
    notes = Notes(settings.state_dir) if state is not None else None
    earlier, sessions = _read_before(settings, metadata, notes)
    if earlier.n_lost_ids:
        _log.warning(
            "ids of earlier tables cannot be kept, these datasets get ids from their paths n=%d reason=%r",
            earlier.n_lost_ids, "several datasets have the same id, as in tables that ONE made, or it is no UUID",
        )  # fmt: skip
    known = set[str]()
    if sessions is not None:
        filled = earlier_tables.filled_lab(metadata, settings.lab)
        before = EarlierSessions(sessions, filled, record.load_inodes())
        indexer.known.expect(before)
        known = before.eid_paths()
    rules = TableRules(settings.namespace, settings.lab, settings.hash_files, KnownColumns.of(earlier))
    return Start(indexer, rules, notes, FirstSeen(state, known), generation, settings)


def make_journal(settings: Settings) -> Journal:
    """Open the journal in the state folder, or begin one."""
    return Journal(settings.state_dir, Bounds(settings.journal.keep_seconds, settings.journal.max_bytes))


def _make_workers(settings: Settings, post: Callable[[Message], None]) -> WorkerPool:
    places, patterns = str(settings.root), settings.exclude
    return WorkerPool(places, patterns, settings.n_workers, post, follow_links=settings.follow_links)


def _read_before(
    settings: Settings, metadata: Mapping[str, Any], notes: Notes | None
) -> tuple[Earlier, pa.Table | None]:
    """Return what tables and notes of earlier runs know that the disk does not, and the sessions that were here."""
    out_dir, state_dir = settings.out_dir, settings.state_dir
    digest = local_copy.kept_digest(state_dir, settings.adopt.source)
    layout = state_dir / LAYOUT if notes is not None else None
    is_ours = follow_from_disk(out_dir, metadata, settings.namespace, settings.lab, digest, layout)
    tables = None if is_ours else earlier_tables.read_earlier(out_dir)
    sessions = earlier_tables.sessions_here(out_dir, metadata, tables)
    is_adopted = tables is not None and metadata.get("adopted") and metadata["adopted"] == digest
    recall_before = partial(recall, settings.adopt, state_dir) if is_adopted else lambda: None
    earlier = earlier_tables.gather(tables, settings.namespace, settings.lab, notes, sessions, recall_before)
    return earlier, sessions


class _Record:
    """Keeps the identity of root and mounts for the next run, as soon as it can."""

    def __init__(self, state: StateDb | None) -> None:
        self._state = state
        self._trouble = ""
        self._inodes: dict[str, int] = {}

    def keep(self, places: Mapping[str, Place]) -> None:
        if self._state is None:
            return
        try:
            self._state.save_places(places)
        except StateError as error:
            if not self._trouble:
                _log.warning("the identity of root and mounts is not recorded yet error=%s", error)
            self._trouble = str(error)
        else:
            self._trouble = ""

    def load_inodes(self) -> Mapping[str, int]:
        try:
            return self._state.load_seen() if self._state is not None else {}
        except StateError as error:
            _log.warning("recorded inodes of sessions are not readable error=%s", error)
            return {}

    def load_held(self) -> bool:
        try:
            return self._state is not None and self._state.load_held()
        except StateError as error:
            _log.warning("whether rows are held is not readable error=%s", error)
            return False

    def keep_loss(self, loss: Loss | None) -> None:
        is_held = loss is not None
        try:
            if self._state is not None and is_held != self._state.load_held():
                self._state.save_held(is_held=is_held)
        except StateError as error:
            _log.warning("whether rows are held is not recorded error=%s", error)

    def keep_inodes(self, inodes: Mapping[str, int]) -> None:
        if self._state is None or inodes == self._inodes:
            return
        try:
            self._state.save_seen(inodes)
        except StateError as error:
            _log.warning("inodes of sessions are not recorded yet error=%s", error)
        else:
            self._inodes = dict(inodes)
