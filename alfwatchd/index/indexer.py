"""Keeps tree and tables equal to the disk, one unit of scanning at a time. Owns tree, tables and dirty set.

Used by the engine, which feeds it events, and by `once`, which runs one scan. It never reads a clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from alfwatchd.alf.exclude import compile_exclude
from alfwatchd.index.absences import Absences
from alfwatchd.index.dirty import DirtyMark, DirtySet
from alfwatchd.index.gathered import gather
from alfwatchd.index.heard import Heard
from alfwatchd.index.intake import EarlierRow, Intake
from alfwatchd.index.known_sessions import KnownSessions
from alfwatchd.index.look_queue import Look, LookQueue, Scan, Ticket
from alfwatchd.index.looker import Looker
from alfwatchd.index.marks import Marks
from alfwatchd.index.record import NOT_RECORDED, Record
from alfwatchd.index.worker_pool import Crawled, WorkerPool
from alfwatchd.scan import nothing_found
from alfwatchd.scan.disk_images import is_image
from alfwatchd.scan.place import keeps_change_time
from alfwatchd.scan.root_guard import RootGuard
from alfwatchd.scan.scanner import Scanner
from alfwatchd.tree.folder import Folder
from alfwatchd.tree.rows import Problem, Session
from alfwatchd.tree.sessions import Snapshot, Tables, TablesView
from alfwatchd.watch.supervisor import WatchSupervisor

FOLDERS_PER_UNIT = 128
_ENTRIES_PER_UNIT = 4096


class Committed(NamedTuple):
    """What changed in the tables.

    Parameters
    ----------
    sessions : list of Session
        That were added or changed.
    rewritten : list of bytes
        Signatures of files that were rewritten without a change of signature: digests that are known are wrong.
    changed : list of bytes
        Signatures that files had before a program wrote to them: what is recorded of them is of an older content.
    unproven : list of (str, str, bytes)
        Folder, name and signature of files that have kept their digests although nothing proves that they are the same:
        their file system has given them other inode numbers, and has no change times.
    """

    sessions: list[Session]
    rewritten: list[bytes]
    changed: list[bytes]
    unproven: Sequence[tuple[str, str, bytes]] = ()


class Indexer:
    """The tree of one root and how it is brought up to date.

    Parameters
    ----------
    scanner : Scanner
    guard : RootGuard
    watch : WatchSupervisor
    settle_seconds, longest_wait_seconds : float
        See `index.dirty.DirtySet`.
    workers : WorkerPool or None
        Worker processes for full scans; None to scan everything here.
    max_lost_fraction : float
        See `index.absences.Absences`.
    record : Record
        What is kept from run to run.
    """

    def __init__(
        self,
        scanner: Scanner,
        guard: RootGuard,
        watch: WatchSupervisor,
        *,
        settle_seconds: float,
        longest_wait_seconds: float,
        workers: WorkerPool | None = None,
        max_lost_fraction: float = 1.0,
        record: Record = NOT_RECORDED,
    ) -> None:
        self.guard = guard
        self.watch = watch
        self.workers = workers
        self.intake = Intake(os.path.basename(scanner.root), guard, watch)
        self.tree = self.intake.tree
        self.tables = Tables()
        self.dirty: DirtySet[Folder] = DirtySet(settle_seconds, longest_wait_seconds)
        self.queue = LookQueue()
        self.heard = Heard()
        self.unreadable = self.intake.unreadable
        """What could not be read. Its rows are kept."""
        self.linked = self.intake.linked
        """Folders with links to datasets or sessions: what those lead to changes without an event."""
        self.absences = Absences(
            self.tables, self.tree, watch, self.unreadable,
            max_fraction=max_lost_fraction, record=record, excluded=scanner.excluded,
        )  # fmt: skip
        self.marks = Marks(self.intake, self.dirty, self.absences)
        self.known = KnownSessions(self.tables, self.tree)
        guard.use_known(self.known)
        self.scans_done = 0
        self.why_empty = ""
        """What to do about a root that holds something, and no session; empty if it has one, or holds nothing."""
        self._looker = Looker(scanner, guard, watch, self.intake, self.queue, self.heard, self.absences, self.tables)
        self._record = record
        self._committed: list[Session] = []
        self._ended: list[Scan] = []
        self._n_dropped = 0
        self._n_renewed = 0

    @property
    def scanner(self) -> Scanner:
        """What looks at folders."""
        return self._looker.scanner

    def use_scanner(self, scanner: Scanner) -> None:
        """Look with another scanner of the same root from now on."""
        self._looker.use_scanner(scanner)

    def exclude(self, patterns: Sequence[str]) -> None:
        """Leave other paths out from now on; a scan must follow."""
        excluded = compile_exclude(patterns)
        self.use_scanner(replace(self.scanner, excluded=excluded))
        self.absences.exclude(excluded)
        if self.workers is not None:
            self.workers.exclude(patterns)

    def change_limits(self, *, settle_seconds: float, longest_wait_seconds: float, max_lost_fraction: float) -> None:
        """Put other settings into force; see `index.dirty.DirtySet` and `index.absences.Absences`."""
        self.dirty.set_times(settle_seconds, longest_wait_seconds)
        self.absences.allow_losses(max_lost_fraction)

    def receive(self, message: Crawled) -> None:
        """Take note of what a worker process has read; `scan` takes it in."""
        if self.workers is not None:
            self.workers.receive(message)

    def close(self) -> None:
        """End what runs beside this thread."""
        if self.workers is not None:
            self.workers.close()
        self.watch.close()

    # What is to be looked at.

    @property
    def why_scan(self) -> str:
        """Why everything must be looked at; empty if nothing must."""
        absences = self.absences
        must = absences.are_undecided and not absences.await_proof and self.queue.current is None and self.scans_done
        return "sessions are gone that no event told of" if must else ""

    def open_root(self, *, accept: bool = False) -> None:
        """Make sure that the root is the same as before, or accept it as it is; a scan must follow.

        Raises
        ------
        RootOffline
            It is missing, or another disk or folder than before.
        """
        self.guard.open_root(accept=accept)
        if accept:
            self.absences.accept()

    def start_scan(self, reason: str, now: float, *, paced: bool = False, top: Folder | None = None) -> Scan:
        """Begin to scan all below a folder (default: the root).

        What changes from now on is seen by it or marked by events. If a scan runs already, exactly one more follows.
        """
        self._forget_unproven()
        folder = top or self.tree.root
        started = self.queue.start_scan(Scan(reason, now, paced, folder.path), self.tree.root, folder)
        self.heard.begin(started)
        if folder is self.tree.root:
            self.absences.begin_scan(started)
        return started

    def _forget_unproven(self) -> None:
        """Forget digests where another image may be mounted now, unless inode numbers and times can prove them."""
        for path in self.guard.take_remounted():
            place, folder = self.guard.places.get(path), self.tree.find(path)
            if place is None or folder is None:
                continue
            is_any = is_image(place.dev)
            if is_any or not (place.stores_inodes or keeps_change_time(place.fs_type)):
                self.tree.forget_unproven(folder, is_any=is_any)

    def queue_dirty(self) -> Ticket:
        """Queue all that is dirty now, due or not, and all that events cannot tell about; return the place behind."""
        self.queue.add(self.dirty.pop_all())
        self.queue.add((folder, DirtyMark(0.0, 0.0, listing=True)) for folder in self.linked)
        self.queue.add((folder, None) for folder in [*self.watch.unwatched, *self.unreadable])
        return self.queue.add_ticket()

    def forget_work(self) -> None:
        """Forget what was to be looked at; a scan must follow."""
        self.heard.lose()
        self.queue.clear()
        self.dirty.pop_all()
        self.absences.forget_scans()
        if self.workers is not None:
            self.workers.forget()

    # Looking.

    def scan(self, now: float, is_over: Callable[[], bool] = lambda: False, *, background: bool = True) -> int:
        """Look at one unit of what is due, and bring the tables up to date.

        Parameters
        ----------
        now : float
            On the caller's clock, in seconds.
        is_over : callable
            Tells whether the caller's time for this is over; asked after each folder.
        background : bool
            Whether the scan that runs may go on.

        Returns
        -------
        int
            Number of entries looked at.

        Raises
        ------
        RootOffline
            The root is missing, or another disk or folder than before; no row was removed.
        """
        self.queue.add(self.dirty.pop_due(now))
        n_entries = 0
        try:
            if self.queue.is_waiting:
                self.guard.check()
            for _ in range(FOLDERS_PER_UNIT):
                if self.intake.hard_links and self.queue.is_caught_up:
                    for folder in self.intake.hard_links.take_stale(self.tree.root):
                        self.queue.look_again(folder, now)
                look = self.queue.next_look(background=background)
                if look is None:
                    break
                n_entries += 1 + self._do(look, now)
                if n_entries > _ENTRIES_PER_UNIT or is_over():
                    break
            if self.workers is not None:
                n_entries += self._take_crawled(self.workers)
        finally:
            self.commit()
        ended = self.queue.end_scan(now)
        if ended is not None:
            self._end_scan(ended, now)
        self.absences.poll(now)
        if not len(self.dirty) and self.queue.is_caught_up:
            self.absences.rest()
        return n_entries

    def _end_scan(self, ended: Scan, now: float) -> None:
        self.guard.is_certain("")  # an unmounted disk shall not become the first tables of a run
        self.absences.end_scan(ended, now, is_first=not self.scans_done)
        self._ended.append(ended)
        self.heard.end(ended)
        self.scans_done += 1
        if not ended.top:
            self._look_whether_empty()
        if not ended.top and self.scans_done > 1:
            self.note_inodes()

    def renew_problems(self, now: float) -> None:
        """Find out what has become of problems, where no event may tell of it; bounded, for a call now and then."""
        self.marks.renew_problems(now)
        if self.scans_done:
            self._look_whether_empty()

    def _look_whether_empty(self) -> None:
        is_empty = not self.tables.counts.n_sessions
        self.why_empty = nothing_found.look(self.scanner.root, self.scanner.excluded) if is_empty else ""

    def note_inodes(self) -> None:
        """Let inodes of sessions be kept for the next run, unless some of them are missing."""
        if self.absences.loss is None and not self.absences.are_undecided:
            self._record.keep_inodes(self.known.inodes())

    def _do(self, look: Look, now: float) -> int:
        """Look at one folder, or hand it out; return the number of entries seen."""
        folder = look.folder
        if not self.tree.is_attached(folder):
            return 0
        if self.guard.missing and self.guard.is_missing(folder.path):
            self.heard.lose()
            return 0
        if look.is_unit and not self.guard.missing:
            if self.workers is not None and not self.workers.problem:
                self.queue.hand_out(look)
                self.workers.submit(look)
                return 0
            if not self.watch.is_on:
                return self._looker.crawl(look, is_first=not self.scans_done)
        return self._looker.look_at(look, now, is_first=not self.scans_done)

    def _take_crawled(self, workers: WorkerPool) -> int:
        """Let worker processes go on, and take in what they have read."""
        if self._n_renewed != self.watch.n_renewed:  # their watch descriptors are those of the old watcher
            self._n_renewed = self.watch.n_renewed
            workers.stop()
        workers.share(self.watch.inotify_fd)
        n_entries = 0
        for unit in workers.take(is_last=self.queue.is_last):
            if not self.queue.note_returned(unit.look) or not self.tree.is_attached(unit.look.folder):
                self.intake.refuse_unit(unit.found or [])
            elif unit.found is None and not self.watch.is_on:
                n_entries += self._looker.crawl(unit.look, is_first=not self.scans_done)
            else:
                left, n_seen = self.intake.accept_unit(unit.look.folder, unit.found or [], is_first=not self.scans_done)
                self.absences.note()
                self.queue.put_back(left)
                n_entries += n_seen
        self.intake.watch_meanwhile(is_on=workers.are_running)
        return n_entries

    def commit(self) -> None:
        """Bring the tables up to date with the tree."""
        changes = self.intake.take_changes()
        if self.queue.current is not None:
            self.queue.current.changes += changes
        sessions, dropped = self.tree.take_touched(self.tables.get)
        self.absences.commit(sessions, dropped, is_first=not self.scans_done)
        self._committed += sessions
        self.intake.forget_unattached()
        if self._n_dropped != self.tree.n_dropped:
            self._n_dropped = self.tree.n_dropped
            gone_too = [folder for folder in self.watch.unwatched if not self.tree.is_attached(folder)]
            self.watch.forget_unwatched(gone_too)

    def restore(self, rows: Iterable[EarlierRow]) -> None:
        """Put back rows of earlier tables that lie where nothing could be read now; see `Intake.restore`."""
        self.intake.restore(rows)
        self.commit()

    # Telling.

    def take_committed(self) -> Committed:
        """Return what changed since the last call, and forget it."""
        rewritten, changed = self.tree.take_rewritten()
        committed = Committed(self._committed, rewritten, changed, self.tree.take_unproven())
        self._committed = []
        return committed

    def take_ended(self) -> list[Scan]:
        """Return the scans that ended since the last call, and forget them."""
        ended, self._ended = self._ended, []
        return ended

    def snapshot(self) -> Snapshot:
        """Freeze the rows as they are; costs one shallow copy of the dict of sessions."""
        return replace(self.tables.snapshot(), is_held=self.absences.loss is not None)

    def view(self) -> TablesView:
        """Return the tables as they are, and what makes them less than certain."""
        unsure = [folder.path for folder in self.unreadable] + list(self.guard.missing)
        return TablesView(self.snapshot(), tuple(unsure), self.absences.why_held, self.guard.n_mount_changes)

    def problems(self) -> list[Problem]:
        """Return what a person should act on, sorted by path."""
        found = gather(problem for folder in self.tree.with_problems for problem in folder.problems)
        found += self.intake.problems() + self.tables.problems() + self.guard.problems()
        found += self.absences.problems() + self.watch.problems()
        found += self._find_nothing(found)
        return sorted(found, key=lambda problem: (problem.path, problem.kind))

    def _find_nothing(self, others: Sequence[Problem]) -> list[Problem]:
        """Tell of a root that is not empty and has no session. The other problems may say more precisely why."""
        if self.tables.counts.n_sessions or not self.scans_done:
            return []
        kinds = ("misplaced", "link_not_followed")
        where = next((each.path.removeprefix("..") or "the root" for each in others if each.kind in kinds), "")
        advice = f"see the problem of {where}" if where else self.why_empty
        message = f"no session found in a root that is not empty: {advice}"
        return [Problem("nothing_found", "", message)] if advice else []
