"""What the writer remembers from one version of the tables to the next: eids, rows that went, renamed sessions.

Before tables are replaced, it writes down what they are about to lose: notes of rows that go, and ids that change.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.files import file_version
from alfwatchd.store import known_eids
from alfwatchd.store.known_eids import KnownEids
from alfwatchd.store.notes_file import Notes
from alfwatchd.store.open_readers import Readers
from alfwatchd.store.reader import read_file, read_generation
from alfwatchd.tables.adoption import Adoption, adopt
from alfwatchd.tables.eids import NO_EIDS, Eids
from alfwatchd.tables.id_changes import Change, IdChanges, compare_ids, describe_changes
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.notes import note_all, note_changes
from alfwatchd.tables.row_groups import Partition, Plan
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.renames import contents_of, find_renames, unique_pairs
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot

_WINDOW_SECONDS = 60.0
"""How long after a folder went, or came, its other name may come, or go: two flushes may lie between."""
_SAVE_SECONDS = 3600.0
"""How often this process saves what it knows for the next one; it also does so at its end."""


@dataclass(slots=True)
class _Recent:
    """Sessions that went and came in the last minute: path -> when, eid, session."""

    gone: dict[str, tuple[float, bytes, Session]] = field(default_factory=dict)
    came: dict[str, tuple[float, bytes, Session]] = field(default_factory=dict)

    def forget_old(self, now: float) -> None:
        """Forget what is too long ago for a rename."""
        for side in (self.gone, self.came):
            for path in [path for path, (when, *_) in side.items() if now - when > _WINDOW_SECONDS]:
                del side[path]


class Ledger:
    """The memory of one `TableWriter`. Used by one thread at a time.

    Parameters
    ----------
    out_dir : Path
        Folder of the tables.
    readers : Readers
    record_ids : callable or None
        Gets the ids that change; None if they are not recorded.
    notes : Notes or None
        None if nothing is kept for the next process.
    """

    def __init__(
        self,
        out_dir: Path,
        readers: Readers,
        record_ids: Callable[[IdChanges], None] | None,
        notes: Notes | None,
    ) -> None:
        self._out_dir = out_dir
        self._readers = readers
        self._record_ids = record_ids
        self._notes = notes
        self._recorded_for: tuple[str, str] | None = None
        """What was adopted when ids were last compared, see `_adopts`."""
        self._last: Partition | None = None
        """What was written last, or was about to be."""
        self._noted: KnownColumns | None = None
        """What `_last` was made with: notes were made of all of it."""
        self._known: KnownEids | None = None
        """What an earlier process left, until the first tables of this one."""
        self._before = NO_EIDS
        self._n_recomputed = 0
        self._recent = _Recent()
        self._is_held = False
        """Whether the tables hold rows of sessions that are gone: other names may have come for them long ago."""
        self._saved: Partition | None = None
        self._saved_at = 0.0
        self._has_loaded = notes is None

    def given(self, rules: TableRules) -> Eids:
        """Return the eids that sessions have, and are to keep."""
        if not self._has_loaded:
            self._load()
        if rules.n_recomputed != self._n_recomputed:
            return NO_EIDS
        if self._last is not None:
            return self._last.given
        return self._before if rules.may_collide else NO_EIDS

    def _load(self) -> None:
        """Take over what an earlier process left."""
        self._has_loaded = True
        found = known_eids.load(self._notes.folder, file_version(self._out_dir / SESSIONS)) if self._notes else None
        if found is not None:
            self._known, is_current = found
            self._before = self._known.given if is_current else NO_EIDS

    def record(self, plan: Plan, rules: TableRules, *, is_held: bool = False) -> None:
        """Write down what the next version of the tables will lack or change.

        Parameters
        ----------
        plan : Plan
        rules : TableRules
        is_held : bool
            See `Snapshot`. Renames are told when the rows of the old names go.

        Raises
        ------
        OSError
            That was not possible; the tables must stay as they are.
        """
        parts, last = plan.partition, self._last
        if self._notes is not None:
            self._note(self._notes, last, parts, rules)
        if self._record_ids is not None:
            if not self._record_all(parts, rules):
                self._record_moves(last, parts, rules)
            self._record_renames(last, parts, rules, is_held=is_held)
        self._last, self._noted, self._n_recomputed = parts, rules.known, rules.n_recomputed
        self._known, self._is_held = self._known if is_held else None, is_held

    def keep(self, *, is_end: bool) -> None:
        """Save what is known for the next process, once in a while, after the tables were written.

        Save nothing while rows are held: the next process needs what was known before to see what was renamed.
        """
        if self._notes is None or self._last is None or self._last is self._saved or self._is_held:
            return
        if not is_end and self._saved is not None and time.monotonic() - self._saved_at < _SAVE_SECONDS:
            return
        mark = file_version(self._out_dir / SESSIONS)
        if mark is not None:
            known_eids.save(self._notes.folder, self._last, mark)
            self._saved, self._saved_at = self._last, time.monotonic()

    # Notes.

    def _note(self, notes: Notes, last: Partition | None, now: Partition, rules: TableRules) -> None:
        """Note what only the tables held of rows that go, and forget notes of sessions that are back."""
        known, earlier = rules.known, rules.known.earlier
        if rules.n_recomputed != self._n_recomputed:
            notes.forget_ids()
        if self._noted is not known:
            notes.add(note_all(Snapshot(0, now.sessions), rules))
        if last is None or not (earlier.sessions or earlier.datasets or last.given.odd or now.given.odd):
            return
        before, after = last.sessions, now.sessions
        notes.come_back(known.key_of(after[path].key) for path in after.keys() - before.keys())
        gone = [(last.eids[path], before[path]) for path in before.keys() - after.keys()]
        changed = [session for path, session in after.items() if before.get(path, session) is not session]
        notes.add(note_changes(gone, changed, last.given.odd, rules))

    # Ids.

    def _record_all(self, parts: Partition, rules: TableRules) -> bool:
        """Record which ids the next version changes, if what is adopted has changed, or a person asked for new ids.

        Returns
        -------
        bool
            Whether all ids were compared.
        """
        if self._record_ids is None:
            return False
        adopts = _adopts(rules.known.adoption.digest, rules.lab)
        is_recomputed = rules.n_recomputed != self._n_recomputed
        if adopts == self._recorded_for and not is_recomputed:
            return False
        metadata = read_generation(self._out_dir)[1]
        if self._recorded_for is None:
            self._recorded_for = _adopts(str(metadata.get("adopted", "")), str(metadata.get("lab", rules.lab)))
        if adopts == self._recorded_for and not is_recomputed:
            return False
        with self._readers.opening(SESSIONS, DATASETS):
            earlier = _adopt_whole(self._out_dir)
        groups = [parts.sessions_of(group) for group in sorted(parts.members)]
        lab, now = str(metadata.get("lab", rules.lab)), datetime.datetime.now(datetime.UTC)
        reason = "recomputed" if is_recomputed else "database"
        self._record_ids(compare_ids(earlier, lab, groups, rules, now, reason))
        self._recorded_for = adopts
        return True

    def _record_moves(self, last: Partition | None, parts: Partition, rules: TableRules) -> None:
        """Tell of sessions that lose their eid to another one, or get one that another one had."""
        before = last.given if last is not None else self._known.given if self._known is not None else NO_EIDS
        if parts.given is before:
            return
        eids = before.eids
        moved = [path for path, eid in parts.eids.items() if eids.get(path, eid) != eid]
        changes = [Change(eids[path], parts.sessions[path], parts.eids[path], parts.sessions[path]) for path in moved]
        self._record_changes(changes, rules, "moved")

    def _record_renames(self, last: Partition | None, parts: Partition, rules: TableRules, *, is_held: bool) -> None:
        """Record the ids of sessions that went and came again under another path, also when not at the same flush."""
        if last is None or self._known is not None:
            if not is_held:
                self._record_changes(self._renamed_meanwhile(parts), rules, "renamed")
            return
        before, after, recent, now = last.sessions, parts.sessions, self._recent, time.monotonic()
        gone, came = before.keys() - after.keys(), after.keys() - before.keys()
        if not (gone or came):
            return
        if not (is_held or self._is_held):
            recent.forget_old(now)
        for path in gone:
            recent.came.pop(path, None)
            recent.gone[path] = now, last.eids[path], before[path]
        for path in came:
            recent.gone.pop(path, None)
            recent.came[path] = now, parts.eids[path], after[path]
        if not (recent.gone and recent.came):
            return
        came_now = {path: (eid, after.get(path, session)) for path, (_, eid, session) in recent.came.items()}
        pairs = find_renames(
            [session for *_, session in recent.gone.values()], [session for _, session in came_now.values()]
        )
        changes = [
            Change(recent.gone.pop(old.path)[1], old, parts.eids[new.path], new)
            for old, new in pairs
            if recent.came.pop(new.path)
        ]
        self._record_changes(changes, rules, "renamed")

    def _renamed_meanwhile(self, parts: Partition) -> list[Change]:
        """Return what was renamed while no process looked."""
        known, now = self._known, parts.sessions
        if known is None:
            return []
        gone = known.given.eids.keys() - now.keys()
        came = now.keys() - known.given.eids.keys()
        if not (gone and came):
            return []
        old = ((known.contents.get(path), path) for path in gone)
        pairs = unique_pairs(old, ((contents_of(now[path]), path) for path in came))
        return [
            Change(known.given.eids[path], replace(now[new], path=path), parts.eids[new], now[new])
            for path, new in pairs
        ]

    def _record_changes(self, changes: list[Change], rules: TableRules, reason: str) -> None:
        if changes and self._record_ids is not None:
            told = describe_changes(changes, rules, datetime.datetime.now(datetime.UTC), reason)
            if len(told.changes):
                self._record_ids(told)


def _adopts(digest: str, lab: str) -> tuple[str, str]:
    """Return what differs between two states of what is adopted: the lab decides which sessions are matched."""
    return digest, lab if digest else ""


def _adopt_whole(folder: Path) -> Adoption | None:
    """Read both tables as if to adopt them; None if they are missing or make no sense: then no user has ids of them."""
    try:
        return adopt(read_file(folder / SESSIONS), read_file(folder / DATASETS, ["id", "eid", "rel_path"]))
    except (OSError, pa.ArrowException, KeyError, ValueError, ArithmeticError):
        return None
