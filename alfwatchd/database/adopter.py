"""Reads the database in a thread of its own, again and again, and records which ids change.

A source that cannot be read changes nothing: what was adopted last is in the state folder and stays in force.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from alfwatchd import threads
from alfwatchd.addresses import redact, shown
from alfwatchd.api import AdoptStatus
from alfwatchd.database.look import Reading, find_problems, look, recall
from alfwatchd.settings import Adopt
from alfwatchd.store import id_history
from alfwatchd.store.id_history import IdsChanged
from alfwatchd.tables.adoption import Adoption
from alfwatchd.tables.earlier import Earlier
from alfwatchd.tables.id_changes import IdChanges
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.mismatches import Mismatches
from alfwatchd.tree.rows import Problem
from alfwatchd.tree.sessions import Snapshot

_log = logging.getLogger(__name__)

_MOST_TOLD = 20
"""Changed ids that are logged one by one."""
_PATIENCE_SECONDS = 120.0
"""How long the first flush waits for the database: after that, tables without its ids are better than none."""
RETRY_SECONDS = 300.0
"""How long to wait at most after a source could not be read: it may be a day until the next look is due."""
_JOIN_SECONDS = 1.0


def make_id_recorder(source: str, state_dir: Path, post: Callable[[IdsChanged], None]) -> Callable[[IdChanges], None]:
    """Return what a `TableWriter` calls with changed ids: it records and logs them before the tables are replaced."""

    def record_ids(found: IdChanges) -> None:
        n_changes = len(found.changes)
        if n_changes:
            id_history.record(state_dir, found.changes)
        if found.reason == "database":
            _log.info(
                "adopted source=%s sessions=%d datasets=%d id_changes=%d",
                shown(source), found.n_sessions, found.n_datasets, n_changes,
            )  # fmt: skip
        else:
            _log.info("ids changed reason=%s n=%d", found.reason, n_changes)
        level = logging.INFO if found.reason == "renamed" else logging.WARNING
        for change in found.changes.select(["old", "new", "path"]).slice(0, _MOST_TOLD).to_pylist():
            _log.log(level, "id changed old=%s new=%s path=%s", change["old"], change["new"], change["path"])
        if n_changes > _MOST_TOLD:
            more = n_changes - _MOST_TOLD
            _log.log(level, "and more ids changed n=%d file=%s", more, state_dir / id_history.NAME)
        if found.reason in ("database", "recomputed"):
            post(IdsChanged(found.n_sessions, found.n_datasets, n_changes))

    return record_ids


class Adopter:
    """What is adopted, for the engine's thread; a thread of its own looks at the source.

    Parameters
    ----------
    settings : Adopt
        With a source.
    state_dir : Path
    earlier : Earlier
        What earlier tables know.
    post : callable
        Gets an `Adopted` after each look that changed something, and after the first look in any case.
    """

    def __init__(self, settings: Adopt, state_dir: Path, earlier: Earlier, post: Callable[[Adopted], None]) -> None:
        self.adoption: Adoption | None = None
        self._settings = settings
        self._state_dir = state_dir
        self.earlier = earlier
        """What earlier tables know, and what a person has set since. The engine's thread replaces it."""
        self._post = post
        self._mismatches: Mismatches | None = None
        self._error = ""
        self._read_at: str | None = None
        self._counts: IdsChanged | None = None
        self._has_heard = False
        self._waits_since: float | None = None
        self._problems: tuple[tuple[int, str, str, str], list[Problem]] | None = None
        self._ended = threading.Event()
        self._thread = threads.start(self._run, "adopter")

    def close(self) -> None:
        """End the thread; do not wait for it while it waits for a server."""
        self._ended.set()
        self._thread.join(_JOIN_SECONDS)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def is_pending(self, now: float) -> bool:
        """Tell whether the first flush should wait, so that ids do not change twice."""
        if self._has_heard:
            return False
        self._waits_since = now if self._waits_since is None else self._waits_since
        return now - self._waits_since < _PATIENCE_SECONDS

    def accept(self, message: Adopted) -> None:
        """Take note of a look."""
        self._has_heard = True
        if message.error and message.error != self._error:
            _log.error("source not readable, what was adopted last stays in force error=%s", message.error)
        self._error = message.error
        if not message.error and message.when is not None:
            self._read_at = message.when
        if message.known is not None:
            self.adoption = message.known.adoption
            self._mismatches = Mismatches(message.known.adoption)

    def note_counts(self, message: IdsChanged) -> None:
        """Take note of how many rows the database knows."""
        self._counts = message

    def problems(self, snapshot: Snapshot, lab: str) -> list[Problem]:
        """Return what `find_problems` returns, which is computed again only if something has changed."""
        key = (snapshot.n_changes, lab, self._error, self.adoption.digest if self.adoption else "")
        if self._problems is None or self._problems[0] != key:
            self._problems = key, find_problems(self._error, self._mismatches, snapshot, lab)
        return self._problems[1]

    def status(self) -> AdoptStatus:
        """Report for clients."""
        adoption, counts = self.adoption, self._counts
        return AdoptStatus(
            source=shown(self._settings.source),
            read_at=self._read_at,
            last_error=self._error or None,
            n_sessions=len(adoption.sessions) if adoption else None,
            n_datasets=len(adoption.rows.keys) if adoption else None,
            n_matched_sessions=counts.n_sessions if counts else None,
            n_matched_datasets=counts.n_datasets if counts else None,
        )

    def _run(self) -> None:
        """Read the source again and again, and post what can be adopted or why it cannot be read."""
        # A source may take minutes. Until it is read, the ids of the last run stay, so that they do not change twice.
        in_force = recall(self._settings, self._state_dir)
        if in_force is not None:
            self._tell(in_force, "", None)
        is_first, last_error = True, ""
        while True:
            try:
                reading = look(self._settings, self._state_dir, in_force)
            except Exception as error:  # noqa: BLE001 - the thread must go on; what was adopted stays in force
                _log.exception("looking at the source failed")
                reading = Reading(
                    None, f"{shown(self._settings.source)}: {redact(repr(error))}; the log has the details"
                )
            if self._ended.is_set():
                return
            in_force = reading.adoption or in_force
            if is_first or reading.adoption is not None or reading.error != last_error or not reading.error:
                when = datetime.now(UTC).isoformat(timespec="seconds")
                self._tell(reading.adoption, reading.error, when)
            is_first, last_error = False, reading.error
            most = RETRY_SECONDS if reading.error else math.inf
            if self._ended.wait(min(self._settings.interval_seconds, most, threading.TIMEOUT_MAX)):
                return

    def _tell(self, adoption: Adoption | None, error: str, when: str | None) -> None:
        # Start from all that earlier tables knew: the database may have lost rows that it had at the last look.
        known = KnownColumns.of(self.earlier, adoption) if adoption is not None else None
        self._post(Adopted(known, error, when))


@dataclass(frozen=True, slots=True)
class Adopted:
    """Result of a look at the database: `error` is empty if the look succeeded."""

    known: KnownColumns | None
    """What the database and earlier tables know; None if nothing changes."""
    error: str
    when: str | None
    """UTC, ISO 8601; None for what was adopted by an earlier process."""
