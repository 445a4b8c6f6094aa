"""What a run begins with: an indexer for the settings, and what earlier tables and state know."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from alfwatchd import adopted, stored
from alfwatchd.core import kept
from alfwatchd.core.alf import SessionKey
from alfwatchd.core.encoding import Encoding
from alfwatchd.core.exclude import compile_exclude
from alfwatchd.core.guard import Place
from alfwatchd.core.messages import Message
from alfwatchd.core.rows import NOTHING_KEPT, Problem
from alfwatchd.core.tables import Snapshot
from alfwatchd.crawlers import Crawlers
from alfwatchd.errors import LabConflict, OutDirError, StateError, TablesError
from alfwatchd.first_seen import FirstSeen
from alfwatchd.indexer import Indexer
from alfwatchd.intake import EarlierRow
from alfwatchd.places import Guard
from alfwatchd.scanner import Scanner
from alfwatchd.settings import Settings
from alfwatchd.state import State
from alfwatchd.stored import StoredTables
from alfwatchd.watcher import Watcher
from alfwatchd.watching import Watching

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """What a run begins with.

    Parameters
    ----------
    indexer : Indexer
        Knows nothing of the disk yet.
    encoding : Encoding
        Carries over what earlier tables hold.
    tables_written : float
        When the earlier tables were written, in seconds since 1970; 0 if nothing is carried over.
    first_seen : FirstSeen
        Knows the sessions of earlier tables.
    """

    indexer: Indexer
    encoding: Encoding
    tables_written: float
    first_seen: FirstSeen
    _settings: Settings

    def finish_first_pass(self) -> None:
        """Do what the first complete scan allows: put back rows that cannot be read now."""
        indexer = self.indexer
        if indexer.unreadable or indexer.guard.missing:
            earlier = _read_earlier(self._settings)
            if earlier is not None:
                earlier = _without_missing(earlier)
                indexer.restore(_rows(earlier, _filled_lab(earlier.metadata, self._settings)))

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


def lab_problems(lab: str, snapshot: Snapshot) -> list[Problem]:
    """Return what a person should know of the `lab` setting: a conflict, and what it means to One."""
    if not lab:
        return []
    labs = {session.key.lab for session in snapshot.sessions.values()}
    found = []
    if labs - {"", lab}:
        message = (
            f"lab name conflict: lab = {lab!r}, but there are lab folders {', '.join(sorted(labs - {'', lab}))}; "
            "a folder's own lab wins, so leave the setting empty"
        )
        found.append(Problem("lab_conflict", "", message))
    if "" in labs:
        message = (
            f"sessions in no lab folder are listed under lab {lab!r}, and One looks for their files below "
            f"{lab}/Subjects/: move them there, or leave the setting empty"
        )
        found.append(Problem("lab_filled", "", message))
    return found


def prepare(
    settings: Settings,
    state: State | None,
    new_watcher: Callable[[], Watcher] | None = None,
    post: Callable[[Message], None] | None = None,
) -> Start:
    """Read what earlier runs left and make an indexer.

    Parameters
    ----------
    settings : Settings
    state : State or None
        None for a run that leaves no state.
    new_watcher : callable or None
        Makes a watcher; None for a run that looks once.
    post : callable or None
        Gets the messages of worker processes; None for a run that is to have none.
    """
    recorded = state.load_places() if state is not None else {}
    guard = Guard(str(settings.root), recorded, _Record(state).keep)
    generation, metadata = stored.read_generation(settings.out_dir)
    _require_readable(settings.out_dir, n_bytes=1)
    indexer = Indexer(
        Scanner(str(settings.root), compile_exclude(settings.exclude)),
        guard,
        Watching(new_watcher),
        settle_seconds=settings.settle_seconds,
        longest_wait_seconds=settings.longest_wait_seconds,
        generation=generation,
        crawlers=Crawlers(str(settings.root), settings.exclude, settings.n_workers, post)
        if post is not None and settings.n_workers > 1
        else None,
    )
    is_ours = metadata.get("namespace") == str(settings.namespace) and not metadata.get("has_kept", True)
    is_ours &= metadata.get("adopted", "") == adopted.kept_digest(settings.state_dir, settings.adopt.source)
    needs_digests = settings.hash_files and (state is None or state.is_new)
    carried, tables_written = NOTHING_KEPT, 0.0
    earlier = None if is_ours and not needs_digests else _read_earlier(settings)
    sessions = _sessions_here(settings, metadata, earlier)
    known = set[str]()
    if sessions is not None:
        filled = _filled_lab(metadata, settings)
        indexer.known_before = _top_folders(sessions, filled)
        known = _session_paths(sessions, filled)
    if earlier is not None:
        tables_written = earlier.modified
        filled = _filled_lab(earlier.metadata, settings)
        carried = kept.carry_over(earlier.sessions, _without_told_hashes(earlier), settings.namespace, filled)
    encoding = Encoding(settings.namespace, settings.lab, settings.hash_files, carried)
    return Start(indexer, encoding, tables_written, FirstSeen(state, known), settings)


class _Record:
    """Keeps the identity of root and mounts for the next run, as soon as it can."""

    def __init__(self, state: State | None) -> None:
        self._state = state
        self._trouble = ""

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


def _read_earlier(settings: Settings) -> StoredTables | None:
    """Read the tables in the output folder; broken ones are as good as none, as they are about to be replaced."""
    earlier = None
    try:
        earlier = stored.read_tables(settings.out_dir)
    except TablesError as error:
        _require_readable(settings.out_dir)
        _log.warning("what a damaged table held beside what the disk tells is lost error=%s", error)
    return earlier or stored.read_sessions_alone(settings.out_dir)


def _without_missing(earlier: StoredTables) -> StoredTables:
    return stored.without_missing(earlier) if earlier.metadata.get("keep_missing") else earlier


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
    for path in (out_dir / stored.SESSIONS, out_dir / stored.DATASETS):
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
    return stored.read_sessions(settings.out_dir) if earlier is None else _without_missing(earlier).sessions


def _filled_lab(metadata: Mapping[str, Any], settings: Settings) -> str:
    """Return the lab that tables hold for sessions in no lab folder: they may be older than the `lab` setting."""
    return str(metadata.get("lab", settings.lab))


def _rows(earlier: StoredTables, lab: str) -> Iterator[EarlierRow]:
    keys = kept.session_keys(earlier.sessions)
    for key in filter(None, keys):
        yield EarlierRow(_spellings(key, lab))
    for key, rel_path, file_size, digest in kept.dataset_rows(earlier.sessions, earlier.datasets, keys):
        yield EarlierRow(_spellings(key, lab), rel_path, file_size, digest)


def _spellings(key: SessionKey, lab: str) -> tuple[str, ...]:
    """Return the paths that a session of a table may have on disk."""
    numbers = dict.fromkeys([f"{key.number:03d}", str(key.number), f"{key.number:02d}"])
    places = [f"{key.lab}/Subjects/{key.subject}"] if key.lab else []
    if not key.lab or key.lab == lab:
        places.append(key.subject)
    return tuple(f"{place}/{key.date.isoformat()}/{number}" for place in places for number in numbers)


def _session_paths(sessions: pa.Table, lab: str) -> set[str]:
    """Return `SessionKey.eid_path` of the sessions of a table, with and without a lab that the setting gave."""
    keys = [key for key in kept.session_keys(sessions) if key is not None]
    bare = [SessionKey("", key.subject, key.date, key.number) for key in keys if lab and key.lab == lab]
    return {key.eid_path for key in (*keys, *bare)}


def _top_folders(sessions: pa.Table, lab: str) -> set[str]:
    keys = filter(None, kept.session_keys(sessions))
    return {key.lab if key.lab and key.lab != lab else key.subject for key in keys}
