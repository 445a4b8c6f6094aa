"""What a run begins with: an indexer for the settings, and what earlier tables and state know."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from alfwatchd.alf.exclude import compile_exclude
from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.alf.grammar import SessionKey
from alfwatchd.database import local_copy
from alfwatchd.database.look import recall
from alfwatchd.engine.messages import Message
from alfwatchd.errors import LabConflict, OutDirError, StateError, TablesError
from alfwatchd.index.first_seen import FirstSeen
from alfwatchd.index.indexer import Indexer
from alfwatchd.index.intake import EarlierRow
from alfwatchd.index.lab import lab_problems
from alfwatchd.index.losses import Loss
from alfwatchd.index.record import Record
from alfwatchd.index.state_db import StateDb
from alfwatchd.index.worker_pool import WorkerPool
from alfwatchd.scan.place import Place
from alfwatchd.scan.root_guard import RootGuard
from alfwatchd.scan.scanner import Scanner
from alfwatchd.settings import Settings
from alfwatchd.store import reader
from alfwatchd.store.files import file_version
from alfwatchd.store.layout import LAYOUT, read_marks
from alfwatchd.store.notes_file import Notes
from alfwatchd.store.reader import StoredTables
from alfwatchd.tables import carry_over
from alfwatchd.tables.adoption import Adoption
from alfwatchd.tables.earlier import NOTHING_EARLIER, Earlier
from alfwatchd.tables.notes import key_now, with_notes
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.known_sample import KnownSession
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
    """

    indexer: Indexer
    rules: TableRules
    notes: Notes | None
    first_seen: FirstSeen
    _settings: Settings
    losses: list[Loss] = field(default_factory=list)
    """Of the first scan: what is held, or was accepted."""

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
        earlier = _read_earlier(self._settings)
        if earlier is not None:
            earlier = _without_missing(earlier)
            yield from _rows(earlier, _filled_lab(earlier.metadata, self._settings))

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
        Gets the messages of worker processes; None for a run that is to have none.
    """
    recorded = state.load_places() if state is not None else {}
    record = _Record(state)
    guard = RootGuard(str(settings.root), recorded, record.keep)
    generation, metadata = reader.read_generation(settings.out_dir)
    _require_readable(settings.out_dir, n_bytes=1)
    indexer = Indexer(
        Scanner(str(settings.root), compile_exclude(settings.exclude)),
        guard,
        WatchSupervisor(new_watcher),
        settle_seconds=settings.settle_seconds,
        longest_wait_seconds=settings.longest_wait_seconds,
        generation=generation,
        workers=WorkerPool(str(settings.root), settings.exclude, settings.n_workers, post)
        if post is not None and settings.n_workers > 1
        else None,
        max_lost_fraction=settings.guard.max_lost_fraction,
        record=Record(record.load_held(), record.keep_loss, record.keep_inodes),
    )
    is_ours = metadata.get("namespace") == str(settings.namespace) and not metadata.get("has_kept", True)
    is_ours &= metadata.get("lab", "") == settings.lab and (not settings.lab or bool(metadata.get("ids_with_lab")))
    same_database = metadata.get("adopted", "") == local_copy.kept_digest(settings.state_dir, settings.adopt.source)
    is_ours &= same_database
    # Other programs may change columns and keep what we said of them.
    is_ours &= state is None or read_marks(settings.state_dir / LAYOUT) == [
        list(mark) if (mark := file_version(settings.out_dir / name)) else None for name in (SESSIONS, DATASETS)
    ]
    carried = NOTHING_EARLIER
    earlier = None if is_ours else _read_earlier(settings)
    sessions = _sessions_here(settings, metadata, earlier)
    known = set[str]()
    if sessions is not None:
        filled = _filled_lab(metadata, settings)
        indexer.known.expect(_Earlier(sessions, filled, record.load_inodes()))
        known = _session_paths(sessions, filled)
    if earlier is not None:
        filled = _filled_lab(earlier.metadata, settings)
        datasets = _without_told_hashes(earlier)
        carried = carry_over.carry_over(earlier.sessions, datasets, settings.namespace, filled, settings.lab)
    notes = Notes(settings.state_dir) if state is not None else None
    if notes is not None:
        is_adopted = earlier is not None and bool(metadata.get("adopted")) and same_database
        recall_before = partial(recall, settings.adopt, settings.state_dir) if is_adopted else lambda: None
        carried = _with_notes(carried, notes, sessions, earlier, recall_before)
    rules = TableRules(settings.namespace, settings.lab, settings.hash_files, carried)
    return Start(indexer, rules, notes, FirstSeen(state, known), settings)


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


def _read_earlier(settings: Settings) -> StoredTables | None:
    """Read the tables in the output folder; broken ones are as good as none, as they are about to be replaced."""
    earlier = None
    try:
        earlier = reader.read_tables(settings.out_dir)
    except TablesError as error:
        _require_readable(settings.out_dir)
        _log.warning("what a damaged table held beside what the disk tells is lost error=%s", error)
    return earlier or reader.read_sessions_alone(settings.out_dir)


def _with_notes(
    carried: Earlier,
    notes: Notes,
    sessions: pa.Table | None,
    earlier: StoredTables | None,
    recall_before: Callable[[], Adoption | None],
) -> Earlier:
    """Return what earlier tables know, with what was noted of rows that went before.

    Parameters
    ----------
    carried : Earlier
    notes : Notes
    sessions : pyarrow.Table or None
    earlier : StoredTables or None
        The tables; None where nothing in them is worth reading.
    recall_before : callable
        Returns what a database knew when they were written, or None. It takes seconds, so it is called only where
        there are notes.

    Raises
    ------
    StateError
        The notes cannot be read now, and would be lost for the rows that are back.
    """
    try:
        noted = notes.load()
    except OSError as error:
        raise StateError(
            f"{error.filename or notes.folder}: cannot be read ({error.strerror}); make it readable"
        ) from error
    if not noted:
        return carried
    keys = {key for each in noted for key in (each.key, key_now(each, carried.lab))}
    listed = carry_over.listed(earlier.sessions, earlier.datasets, keys) if earlier is not None else {}
    notes.come_back(listed)
    eids = {each.session.eid for each in noted if each.session.eid is not None}
    taken = carry_over.holders(sessions, eids) if sessions is not None and eids else {}
    known = recall_before()
    if known is None:
        return with_notes(carried, noted, listed, taken)
    return with_notes(known.without_adopted(carried), noted, listed, taken, known.sessions)


def _without_missing(earlier: StoredTables) -> StoredTables:
    return reader.without_missing(earlier) if earlier.metadata.get("keep_missing") else earlier


def _without_told_hashes(earlier: StoredTables) -> pa.Table:
    """Return the datasets, without hashes where some may be a database's: hashing would take them for its own."""
    is_told = earlier.metadata.get("adopted") and "hash" in earlier.datasets.column_names
    return earlier.datasets.drop_columns(["hash"]) if is_told else earlier.datasets


def _require_readable(out_dir: Path, n_bytes: int = -1) -> None:
    """Make sure that what earlier tables hold can be carried over: it is nowhere else.

    A folder that cannot be entered is for others to find: nothing can be written there either.

    Raises
    ------
    OutDirError
        A file is there and cannot be read now.
    """
    for path in (out_dir / SESSIONS, out_dir / DATASETS):
        try:
            if path.is_file():
                with path.open("rb") as file:
                    file.read(n_bytes)
        except FileNotFoundError:
            continue
        except OSError as error:
            if os.access(out_dir, os.X_OK):
                raise OutDirError(
                    f"{path}: cannot be read ({error.strerror}), and what it holds would be lost; make it readable, "
                    "or remove it to have it made anew"
                ) from error


def _sessions_here(settings: Settings, metadata: Mapping[str, Any], earlier: StoredTables | None) -> pa.Table | None:
    """Return the sessions in earlier tables whose folders were here."""
    if earlier is None and metadata.get("keep_missing"):
        earlier = _read_earlier(settings)
    return reader.read_sessions(settings.out_dir) if earlier is None else reader.without_missing(earlier).sessions


def _filled_lab(metadata: Mapping[str, Any], settings: Settings) -> str:
    """Return the lab that tables hold for sessions in no lab folder: they may be older than the `lab` setting."""
    return str(metadata.get("lab", settings.lab))


def _rows(earlier: StoredTables, lab: str) -> Iterator[EarlierRow]:
    keys = carry_over.session_keys(earlier.sessions)
    for key in filter(None, keys):
        yield EarlierRow(_spellings(key, lab))
    for key, rel_path, file_size, digest in carry_over.dataset_rows(earlier.sessions, earlier.datasets, keys):
        yield EarlierRow(_spellings(key, lab), rel_path, file_size, digest)


def _spellings(key: SessionKey, lab: str) -> tuple[str, ...]:
    """Return the paths that a session of a table may have on disk."""
    numbers = dict.fromkeys([f"{key.number:03d}", str(key.number), f"{key.number:02d}"])
    places = [f"{key.lab}/Subjects/{key.subject}"] if key.lab else []
    if not key.lab or key.lab == lab:
        places.append(key.subject)
    return tuple(f"{place}/{key.date.isoformat()}/{number}" for place in places for number in numbers)


class _Earlier(Collection[KnownSession]):
    """The sessions of a table, with their inodes where an earlier run has recorded them.

    Their paths are made when they are asked for: they would take ten times the memory of the keys.
    """

    def __init__(self, sessions: pa.Table, lab: str, seen: Mapping[str, int]) -> None:
        self._keys = dict.fromkeys(filter(None, carry_over.session_keys(sessions)))
        self._lab = lab
        self._seen = seen

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, session: object) -> bool:
        return any(each == session for each in self)

    def __iter__(self) -> Iterator[KnownSession]:
        for key in self._keys:
            paths = _spellings(key, self._lab)
            yield KnownSession(paths, next((self._seen[path] for path in paths if path in self._seen), 0))


def _session_paths(sessions: pa.Table, lab: str) -> set[str]:
    """Return `SessionKey.eid_path` of the sessions of a table, with and without a lab that the setting gave."""
    keys = [key for key in carry_over.session_keys(sessions) if key is not None]
    bare = [SessionKey("", key.subject, key.date, key.number) for key in keys if lab and key.lab == lab]
    return {key.eid_path for key in (*keys, *bare)}
