"""Writes snapshots as the two Parquet files. At every moment, files are whole and each dataset row has its session."""

from __future__ import annotations

import datetime
import json
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from alfwatchd import threads
from alfwatchd.alf import ids
from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.atomic import write_atomically
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.errors import TablesError
from alfwatchd.files import FileVersion, file_version
from alfwatchd.journal.journal import Journal
from alfwatchd.store.changed_sessions import Pair, open_tables
from alfwatchd.store.flush_changes import find_on_disk
from alfwatchd.store.generations import Generations, Told, Versions, Written
from alfwatchd.store.layout import Layout, load_layout, made_for, save_layout
from alfwatchd.store.ledger import Ledger
from alfwatchd.store.notes_file import Notes
from alfwatchd.store.one_lock import one_lock
from alfwatchd.store.open_readers import Readers
from alfwatchd.store.parquet import is_damage
from alfwatchd.store.parquet_file import GroupedFile
from alfwatchd.store.reader import METADATA_KEY, are_alike, read_created, read_file, read_session_ids
from alfwatchd.tables import columns
from alfwatchd.tables.id_changes import IdChanges
from alfwatchd.tables.notes import has_earlier
from alfwatchd.tables.row_groups import Digests, Partition, Plan, digest_groups, leave_out_equal, plan_all, plan_changes
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.session_changes import SessionChange
from alfwatchd.tree.sessions import Snapshot

TO_SESSIONS_SECONDS, TO_DATASETS_SECONDS = 1.0, 0.2
"""How long a reader of few rows may take from the one file to the other. ONE needs less than 0.1 s to the datasets."""
_TO_SESSIONS_SECONDS_PER_ROW, _MOST_PATIENCE_SECONDS = 1e-5, 20.0
"""What each dataset adds, and the longest wait: ONE needs four seconds from a million datasets to the sessions."""


@dataclass(frozen=True, slots=True)
class _InForce:
    """What is on disk, so that `TableWriter.write` writes only what differs.

    Parameters
    ----------
    rules : TableRules
    versions : tuple of FileVersion
        Of both files.
    n_bits : int
    digests : Digests or None
        None if nothing is noted for the next process.
    partition : Partition or None
        None if an earlier process wrote it.
    """

    rules: TableRules
    versions: Versions
    n_bits: int
    digests: Digests | None
    partition: Partition | None


def use_system_memory() -> None:
    """Let Arrow allocate memory as the rest of the process does: its own pool keeps 20 to 50 MB more, at no gain."""
    pa.set_memory_pool(pa.system_memory_pool())


class TableWriter:
    """Writes the tables of one root into one folder. Used by one thread at a time.

    Parameters
    ----------
    out_dir : Path
        Existing folder.
    origin : str
        Root that the tables describe, as ONE records it.
    layout : Path or None
        File that records what the tables hold, so that the first write of the next process also writes only what
        differs; None to record nothing.
    record_ids : callable or None
        Gets the ids that change, before the tables are replaced.
    notes : Notes or None
        Where to note what only the tables hold of rows that go, before they are replaced; None to note nothing.
    check_folder : callable
        Raises OSError if the output folder is not the one that was locked; called before each replace.
    journal : Journal or None
        Where to record which sessions changed, after they were written.
    """

    def __init__(
        self,
        out_dir: Path,
        origin: str,
        layout: Path | None = None,
        record_ids: Callable[[IdChanges], None] | None = None,
        notes: Notes | None = None,
        check_folder: Callable[[], None] = lambda: None,
        journal: Journal | None = None,
    ) -> None:
        self.out_dir = out_dir
        self._check_folder = check_folder
        self.origin = origin
        self._layout = layout
        self._files = {name: GroupedFile(out_dir / name) for name in (SESSIONS, DATASETS)}
        self._readers = Readers(out_dir, SESSIONS, DATASETS)
        self._ledger = Ledger(out_dir, self._readers, record_ids, notes)
        self._generations = Generations(out_dir, journal)
        self._in_force: _InForce | None = None
        self._has_earlier = False
        """Whether the next process must read rows to know what they hold; see `has_earlier`."""
        self._created = ""
        """What the last tables say of when they were made."""
        self._written_at = ""  # when the walk began that found the rows, or now, if they are kept live; UTC, ISO 8601
        self._versions_before: dict[str, FileVersion | None] = {}

    def close(self) -> None:
        """Close what the writer holds open; it cannot write after that."""
        self.keep(is_end=True)
        self._readers.close()

    def keep(self, *, is_end: bool = False) -> None:
        """Save what the next process should know of sessions, if the last time was long ago."""
        if self._in_force is not None:
            self._ledger.keep(is_end=is_end)

    def write(
        self,
        snapshot: Snapshot,
        rules: TableRules,
        written_at: datetime.datetime | None = None,
        *,
        renewed_seconds: float = 0.0,
    ) -> Written:
        """Replace both files so that every dataset row has its session at every moment.

        Tables of equal rows that are younger than `renewed_seconds` stay.

        Raises
        ------
        TablesError
            Nothing was replaced, or only one file was, in an order that leaves no dataset row without its session.
        """
        began = (written_at or datetime.datetime.now(datetime.UTC)).astimezone(datetime.UTC)
        self._written_at = began.isoformat(timespec="seconds")
        for n_more in (2, 1, 0):
            try:
                written = self._write(snapshot, rules, renewed_seconds=renewed_seconds)
            except OSError as error:
                # If another program has just written these files, the next attempt takes nothing from them.
                before = self._versions_before
                if n_more == 0 or self._versions() == (before[SESSIONS], before[DATASETS]):
                    raise TablesError(
                        f"{error.filename or self.out_dir}: the tables could not be written "
                        f"({error.strerror or error}); they stay as they were, the next attempt follows"
                    ) from error
                continue
            self._generations.record(written, began)
            if self.is_untouched():
                break
        return written

    def _write(self, snapshot: Snapshot, rules: TableRules, *, renewed_seconds: float) -> Written:
        """Write the row groups that differ from those on disk."""
        snapshot = rules.complete(snapshot)
        last = self._take_last(snapshot, rules)
        plan = plan_changes(last.partition, snapshot, rules) if last is not None and last.partition else None
        if plan is None:
            plan = plan_all(snapshot, rules, last.n_bits if last is not None else None, self._ledger.given(rules))
        self._ledger.record(plan, rules, is_held=snapshot.is_held)
        self._has_earlier = has_earlier(snapshot, rules, plan.partition.given.odd)
        if last is not None and last.n_bits != plan.partition.n_bits:
            self._forget()
            last = None
        is_known = last is None or last.digests is not None
        digests = digest_groups(plan) if self._layout is not None and is_known and not self._has_earlier else None
        if last is not None and last.digests is not None and digests is not None:
            plan, digests = leave_out_equal(plan, last.digests, digests), last.digests.update(digests)
        before = self._versions_before[SESSIONS], self._versions_before[DATASETS]
        written = self._generations.next(self._find_changes(last, plan, snapshot, rules), before)
        metadata = self._metadata(rules, written.generation)
        is_equal = not (plan.sessions or plan.datasets)
        if last is not None and is_equal and self._may_stay(metadata, renewed_seconds):
            self._note(rules, last.versions, plan.partition, digests, written)
            return written
        moved = [self._files[SESSIONS].to_move(plan.sessions), self._files[DATASETS].to_move(plan.datasets)]
        plan = replace(plan, sessions=plan.sessions | moved[0], datasets=plan.datasets | moved[1])
        versions = self._write_files(last.partition if last is not None else None, plan, snapshot, rules, metadata)
        self._note(rules, versions, plan.partition, digests, written)
        if self._layout is not None and digests is not None:
            groups = {name: file.groups for name, file in self._files.items()}
            expected = made_for(self.out_dir, versions, rules)
            save_layout(self._layout, Layout(expected, plan.partition.n_bits, digests, groups))
        return written

    def _note(
        self, rules: TableRules, versions: Versions, partition: Partition, digests: Digests | None, written: Written
    ) -> None:
        self._in_force = _InForce(rules, versions, partition.n_bits, digests, partition)
        self._generations.note(Told(partition, rules, versions, written.generation))

    def _find_changes(
        self, last: _InForce | None, plan: Plan, snapshot: Snapshot, rules: TableRules
    ) -> Sequence[SessionChange] | None:
        """Return how sessions differ from the rows that readers know; None if that cannot be told."""
        found = self._generations.find_in_memory(last.partition if last is not None else None, plan, rules)
        if found is not None:
            return found
        groups = None
        if last is not None:
            if not (plan.sessions or plan.datasets):
                return ()
            groups = sorted(self._files[SESSIONS].groups), sorted(self._files[DATASETS].groups)
        with self._open() as pair:
            return find_on_disk(pair, plan, snapshot, rules, groups) if pair is not None else None

    def _take_last(self, snapshot: Snapshot, rules: TableRules) -> _InForce | None:
        """Return what is on disk, if it is known and made in the same way; None if everything must be written."""
        last, self._in_force = self._in_force, None
        versions = self._versions()
        self._versions_before = {SESSIONS: versions[0], DATASETS: versions[1]}
        if last is None or last.versions != versions:
            must_read = has_earlier(snapshot, rules, self._ledger.given(rules).odd)
            last = self._load_last(rules, versions) if not must_read else None
        if last is None or not last.rules.makes_same_columns(rules):
            self._forget()
            return None
        return last

    def _load_last(self, rules: TableRules, versions: Versions) -> _InForce | None:
        """Return what an earlier process noted, or this one before a write failed."""
        expected = made_for(self.out_dir, versions, rules)
        noted = load_layout(self._layout, expected) if self._layout is not None else None
        if noted is None:
            return None
        for name, file in self._files.items():
            file.resume(noted.groups[name])
        return _InForce(rules, versions, noted.n_bits, noted.digests, None)

    def _forget(self) -> None:
        for file in self._files.values():
            file.forget()

    def _write_files(
        self, old: Partition | None, plan: Plan, snapshot: Snapshot, rules: TableRules, metadata: dict[bytes, bytes]
    ) -> tuple[FileVersion, FileVersion]:
        """Write both files in the right order, and return their versions.

        A reader that opened one file before it was replaced may open the other one later: that one stays until then.
        """
        before: Set[bytes] = frozenset()
        after: Set[bytes] = frozenset()
        if old is not None:
            before, after = ({eid for eid, _ in members} for members in (plan.gone, plan.added))
        elif plan.sessions:
            with self._readers.opening(SESSIONS):
                before = read_session_ids(self.out_dir / SESSIONS)
            after = set(plan.partition.eids.values())
        if not before - after:
            sessions = self._write_sessions(plan, rules, metadata)
            if after - before:
                self._readers.wait_for(SESSIONS, TO_DATASETS_SECONDS)
            return sessions, self._write_datasets(plan, snapshot, rules, metadata)
        if after - before:  # until the datasets are replaced, sessions of either must be there
            self._write_both(old, plan, before - after, rules, metadata)
            self._readers.wait_for(SESSIONS, TO_DATASETS_SECONDS)
            plan = plan if old is not None else replace(plan, sessions=set(plan.partition.members))
        datasets = self._write_datasets(plan, snapshot, rules, metadata)
        patience = TO_SESSIONS_SECONDS + _TO_SESSIONS_SECONDS_PER_ROW * plan.partition.n_rows
        self._readers.wait_for(DATASETS, min(patience, _MOST_PATIENCE_SECONDS))
        return self._write_sessions(plan, rules, metadata), datasets

    def _write_sessions(self, plan: Plan, rules: TableRules, metadata: dict[bytes, bytes]) -> FileVersion:
        rows = plan.partition.sessions_of
        tables = ((group, columns.session_rows(rows(group), rules)) for group in sorted(plan.sessions))
        return self._replace(SESSIONS, columns.sessions_schema(rules), metadata, tables)

    def _write_datasets(
        self, plan: Plan, snapshot: Snapshot, rules: TableRules, metadata: dict[bytes, bytes]
    ) -> FileVersion:
        def make(group: int) -> tuple[int, pa.Table]:
            return group, columns.dataset_rows(plan.partition.sessions_of(group), rules)

        tables = threads.ahead(partial(make, group) for group in sorted(plan.datasets))
        return self._replace(DATASETS, columns.datasets_schema(snapshot, rules), metadata, tables)

    def _write_both(
        self, old: Partition | None, plan: Plan, gone: Set[bytes], rules: TableRules, metadata: dict[bytes, bytes]
    ) -> None:
        """Write the sessions of before and after, without a generation: no reader may take them for half of a pair."""
        parts = plan.partition
        if old is not None:
            rows = {group: parts.sessions_of(group) for group in sorted(plan.sessions)}
            for eid, path in plan.gone:
                if eid in gone:
                    insort(rows[parts.group_of(eid)], (eid, old.sessions[path]), key=itemgetter(0))
            tables = {group: columns.session_rows(each, rules) for group, each in rows.items()}
        else:
            every = [member for group in sorted(parts.members) for member in parts.sessions_of(group)]
            tables = dict.fromkeys(self._files[SESSIONS].groups, columns.session_rows([], rules))
            tables[0] = self._with_old_sessions(columns.session_rows(every, rules), gone)
        unpaired = {**metadata, METADATA_KEY: b'{"generation": 0}'}
        self._replace(SESSIONS, columns.sessions_schema(rules), unpaired, tables.items())

    @contextmanager
    def _open(self) -> Iterator[Pair | None]:
        """Open the tables on disk, as `open_tables` does; no flush waits for this reader."""
        with ExitStack() as stack:
            with self._readers.opening(SESSIONS, DATASETS):
                pair = stack.enter_context(open_tables(self.out_dir))
            yield pair

    def is_untouched(self) -> bool:
        """Tell whether both files are as `write` left them; False if another program replaced or removed one."""
        self._readers.look()
        return self._in_force is not None and self._versions() == self._in_force.versions

    def _versions(self) -> Versions:
        return file_version(self.out_dir / SESSIONS), file_version(self.out_dir / DATASETS)

    def _replace(
        self, name: str, schema: pa.Schema, metadata: dict[bytes, bytes], tables: Iterable[tuple[int, pa.Table]]
    ) -> FileVersion:
        """Put a new version of a file in place, in which these row groups are replaced."""
        described = schema.with_metadata({**metadata, **schema.metadata})
        file, last_opened = self._files[name], self._readers.last_opened(name)

        def write(target: Path) -> None:
            with self._readers.opening(name):
                file.write(target, described, tables, last_opened, self._versions_before[name])

        version = write_atomically(
            self.out_dir / name, write, check=self._check_folder, lock=one_lock, keeps_access=True
        )
        file.commit()
        self._versions_before[name] = version
        return version

    def _metadata(self, rules: TableRules, generation: int) -> dict[bytes, bytes]:
        """Return the metadata of both files: what ONE reads, and our own."""
        # one.alf.cache._metadata: local time, in minutes. Clients compare it to see whether there are newer tables, so
        # it never goes back, though clocks do once a year or more often.
        now = datetime.datetime.now().isoformat(sep=" ", timespec="minutes")
        if not self._created:
            with self._readers.opening(SESSIONS, DATASETS):
                self._created = read_created(self.out_dir)
        self._created = max(now, self._created)
        own = {"written_at": self._written_at, **self._own_metadata(rules, generation)}
        return {
            b"one_metadata": json.dumps({"date_created": self._created, "origin": self.origin}).encode(),
            METADATA_KEY: json.dumps(own).encode(),
        }

    def _own_metadata(self, rules: TableRules, generation: int) -> dict[str, Any]:
        return {
            "generation": generation,
            "journal": self._generations.journal_id,
            "namespace": str(rules.namespace),
            "lab": rules.lab,
            "with_hashes": rules.shows_hashes,
            "ids_with_lab": True,
            "has_kept": self._has_earlier,
            "adopted": rules.known.adoption.digest,
            "keep_missing": rules.known.adoption.keep_missing,
        }

    def _may_stay(self, metadata: Mapping[bytes, bytes], seconds: float) -> bool:
        own = parse_json(metadata[METADATA_KEY])
        with self._readers.opening(SESSIONS, DATASETS):
            return bool(seconds) and are_alike(self.out_dir, self.origin, own, seconds)

    def _with_old_sessions(self, sessions: pa.Table, gone: Set[bytes]) -> pa.Table:
        """Add sessions that are on disk; add none if they are damaged, or made in another way."""
        try:
            with self._readers.opening(SESSIONS):
                old = read_file(self.out_dir / SESSIONS)
        except (OSError, pa.ArrowException, ValueError) as error:
            if not is_damage(error):
                raise
            return sessions
        is_gone = pa.array([ids.parse_id(eid) in gone for eid in old.column("id").to_pylist()], pa.bool_())
        try:
            kept = old.filter(is_gone).select(sessions.column_names).cast(sessions.schema)
        except (KeyError, pa.ArrowException):
            return sessions
        return pa.concat_tables([sessions, kept]).sort_by("id").combine_chunks()
