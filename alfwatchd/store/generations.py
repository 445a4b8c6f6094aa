"""Which generation the tables will have: a higher one where rows differ from those that readers know, else the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from alfwatchd.files import FileVersion
from alfwatchd.journal.journal import Journal
from alfwatchd.store.flush_changes import find_in_memory
from alfwatchd.store.reader import OnDisk, read_version
from alfwatchd.tables.row_groups import Partition, Plan
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.session_changes import SessionChange

Versions = tuple[FileVersion | None, FileVersion | None]
"""Of both files."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a write comes to.

    Parameters
    ----------
    generation : int
        Of the tables. It is higher than before if rows differ from those that were there.
    changes : sequence of SessionChange or None
        How sessions differ from those that were there; None if that cannot be told, as where there were no tables.
    """

    generation: int
    changes: Sequence[SessionChange] | None


class Told(NamedTuple):
    """The rows that this process wrote last: readers and the journal know them."""

    partition: Partition
    rules: TableRules
    versions: Versions
    generation: int


class Generations:
    """Counts the generations of the tables in one folder. One thread at a time.

    Parameters
    ----------
    out_dir : Path
    journal : Journal or None
        Where to record which sessions changed; None to record nothing.
    """

    def __init__(self, out_dir: Path, journal: Journal | None) -> None:
        self._out_dir = out_dir
        self._journal = journal
        self._told: Told | None = None

    @property
    def journal_id(self) -> str:
        """Id of the journal, which the tables name; empty if there is none."""
        return self._journal.id if self._journal is not None else ""

    def note(self, told: Told) -> None:
        """Note what is on disk now."""
        self._told = told

    def find_in_memory(
        self, planned_from: Partition | None, plan: Plan, rules: TableRules
    ) -> Sequence[SessionChange] | None:
        """Return how sessions differ from what this process wrote last; None if only the disk can tell.

        Parameters
        ----------
        planned_from : Partition or None
            What `Plan.changed` is relative to.
        plan : Plan
        rules : TableRules
        """
        told = self._told
        if told is None or not told.rules.makes_same_columns(rules):
            return None
        return find_in_memory(told.partition, plan if planned_from is told.partition else replace(plan, changed=None))

    def next(self, changes: Sequence[SessionChange] | None, versions: Versions) -> Written:
        """Return the generation of the tables that will be written, and prepare the journal for it.

        Parameters
        ----------
        changes : sequence of SessionChange or None
            As in `Written`.
        versions : Versions
            Of the files that are there.
        """
        told, journal = self._told, self._journal
        is_ours = told is not None and told.versions == versions
        if told is not None and is_ours:
            on_disk = OnDisk(told.generation, self.journal_id, is_pair=True)
        else:
            on_disk = read_version(self._out_dir)
        if journal is not None and told is not None:
            journal.follow(journal.id, told.generation)
        elif journal is not None:
            journal.follow(on_disk.journal, on_disk.generation)
        highest = max(on_disk.generation, journal.last if journal is not None else 0)
        # Where another program wrote, readers saw its rows. One file of a write that failed may be there, too.
        is_seen = on_disk.is_pair and on_disk.generation == highest and (told is None or is_ours)
        is_same = is_seen and changes is not None and not changes
        return Written(highest if is_same else highest + 1, changes)

    def record(self, written: Written, seen_at: datetime) -> None:
        """Record what changed, after it is on disk; `seen_at` is when the flush began."""
        if self._journal is not None:
            self._journal.record(written.generation, seen_at, written.changes)
