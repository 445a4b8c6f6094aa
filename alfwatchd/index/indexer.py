"""Keeps tree and tables equal to the disk, one unit of scanning at a time. Owns tree, tables and dirty set.

Used by the engine, which feeds it events, and by `once`, which runs one scan. It never reads a clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from alfwatchd.alf.exclude import compile_exclude
from alfwatchd.index.absences import Absences, KnownSessions
from alfwatchd.index.dirty import DirtyMark, DirtySet
from alfwatchd.index.heard import Heard
from alfwatchd.index.intake import EarlierRow, Intake, Unreadable, removes
from alfwatchd.index.look_queue import Look, LookQueue, Scan, Ticket
from alfwatchd.index.marks import Marks
from alfwatchd.index.worker_pool import Crawled, WorkerPool
from alfwatchd.scan.identity import Identities
from alfwatchd.scan.mounts import WATCHABLE
from alfwatchd.scan.root_guard import RootGuard
from alfwatchd.scan.scanner import GONE, Scanner, open_folder
from alfwatchd.scan.subtree import crawl
from alfwatchd.tree.folder import NOT_WATCHED, Changes, Folder, Listing
from alfwatchd.tree.rows import Problem, Session
from alfwatchd.tree.sessions import Snapshot, Tables, TablesView
from alfwatchd.watch.supervisor import WatchSupervisor

_FOLDERS_PER_UNIT = 128
_ENTRIES_PER_UNIT = 4096


class Indexer:
    """The tree of one root and how it is brought up to date.

    Parameters
    ----------
    scanner : Scanner
    guard : RootGuard
    watch : WatchSupervisor
    settle_seconds, longest_wait_seconds : float
        See `index.dirty.DirtySet`.
    generation : int
        Generation of the tables on disk, to count on from.
    workers : WorkerPool or None
        Worker processes for full scans; None to scan everything here.
    """

    def __init__(
        self,
        scanner: Scanner,
        guard: RootGuard,
        watch: WatchSupervisor,
        *,
        settle_seconds: float,
        longest_wait_seconds: float,
        generation: int,
        workers: WorkerPool | None = None,
    ) -> None:
        self.scanner = scanner
        self.guard = guard
        self.watch = watch
        self.workers = workers
        self.intake = Intake(os.path.basename(scanner.root), guard, watch)
        self.tree = self.intake.tree
        self.tables = Tables(generation)
        self.dirty: DirtySet[Folder] = DirtySet(settle_seconds, longest_wait_seconds)
        self.queue = LookQueue()
        self.heard = Heard()
        self.unreadable = self.intake.unreadable
        """What could not be read. Its rows are kept."""
        self.linked = self.intake.linked
        """Folders with links to datasets or sessions: what those lead to changes without an event."""
        self.absences = Absences(self.tables, self.tree, watch, self.unreadable)
        self.absences.excluded = scanner.excluded
        self.marks = Marks(self.intake, self.dirty, self.absences)
        self.known = guard.known = KnownSessions(self.tables, self.tree)
        self.record_inodes: Callable[[Mapping[str, int]], None] = lambda _: None
        """Given inodes of session folders after each whole scan; keeps them for the next run."""
        self._committed: list[Session] = []
        self._ended: list[Scan] = []
        self.scans_done = 0
        self._identities = Identities(scanner.root, guard)
        self._n_dropped = 0
        self._n_renewed = 0

    def exclude(self, patterns: Sequence[str]) -> None:
        """Leave other paths out from now on; a scan must follow."""
        self.scanner = replace(self.scanner, excluded=compile_exclude(patterns))
        self.absences.excluded = self.scanner.excluded
        if self.workers is not None:
            self.workers.patterns = patterns

    def change_limits(self, *, settle_seconds: float, longest_wait_seconds: float, max_lost_fraction: float) -> None:
        """Put other settings into force; see `index.dirty.DirtySet` and `index.absences.Absences`."""
        self.dirty.change_waits(settle_seconds, longest_wait_seconds)
        self.absences.max_fraction = max_lost_fraction

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
        """Make sure that the root is what it was, or take it as it is; a scan must follow.

        Raises
        ------
        RootOffline
            It is not what it was.
        """
        self.guard.open_root(accept=accept)
        self.absences.accepts |= accept

    def start_scan(self, reason: str, now: float, *, paced: bool = False, top: Folder | None = None) -> Scan:
        """Begin to scan all below a folder (default: the root).

        What changes from now on is seen by it or marked by events. If a scan runs already, exactly one more follows.
        """
        folder = top or self.tree.root
        started = self.queue.start_scan(Scan(reason, now, paced, folder.path), self.tree.root, folder)
        self.heard.begin(started)
        if folder is self.tree.root:
            self.absences.begin_scan(started)
        return started

    def queue_dirty(self) -> Ticket:
        """Queue all that is dirty now, due or not, and all that events cannot tell about; take a place behind it."""
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
            The root is not what it was; no row was removed for it.
        """
        self.queue.add(self.dirty.pop_due(now))
        n_entries = 0
        try:
            if self.queue.is_waiting:
                self.guard.check()
            for _ in range(_FOLDERS_PER_UNIT):
                if self.intake.shared and self.queue.is_caught_up:
                    for folder in self.intake.shared.take_stale(self.tree.root):
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
            self._commit()
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
        if not ended.top and self.scans_done > 1:
            self.note_inodes()

    def note_inodes(self) -> None:
        """Let inodes of sessions be kept for the next run, unless some of them are missing."""
        if self.absences.loss is None and not self.absences.are_undecided:
            self.record_inodes(self.known.inodes())

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
                return self._crawl(look)
        return self._look(look, now)

    def _crawl(self, look: Look) -> int:
        """Read a unit here and now."""
        is_first = not self.scans_done
        try:
            left, n_entries = self.intake.accept_unit(look.folder, crawl(self.scanner, look.folder), is_first=is_first)
        except OSError:
            left, n_entries = [look.folder], 0
        self.absences.note()
        self.queue.put_back(left)
        return n_entries

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
                n_entries += self._crawl(unit.look)
            else:
                left, n_seen = self.intake.accept_unit(unit.look.folder, unit.found or [], is_first=not self.scans_done)
                self.absences.note()
                self.queue.put_back(left)
                n_entries += n_seen
        self.intake.watch_meanwhile(is_on=workers.are_running)
        return n_entries

    def _look(self, look: Look, now: float) -> int:
        """Look at one folder; return the number of entries seen."""
        folder = look.folder
        if self.intake.meanwhile is not None:
            self.intake.meanwhile.looked_at.add(folder)
        try:
            fd = open_folder(self.scanner.root, folder)
        except OSError as error:
            self._cannot_open(folder, error, now)
            return 0
        try:
            if self._identities.lead_elsewhere(folder, os.fstat(fd)):
                self._look_again_from_above(look, now)
                return 0
            n_names = self._look_at_names(look, fd, now)
            return self._list(look, fd, now) if n_names is None else n_names
        except OSError as error:
            self._cannot_read(folder, error)
            return 0
        finally:
            os.close(fd)

    def _look_again_from_above(self, look: Look, now: float) -> None:
        self.guard.check()
        if look.folder.parent in self.unreadable:
            self.unreadable[look.folder] = Unreadable("the folder above it cannot be read")
        else:
            self.queue.retry(look, now)

    def _look_at_names(self, look: Look, fd: int, now: float) -> int | None:
        """Look only at the files that events named; None where that would not tell enough."""
        folder, mark = look.folder, look.mark
        if mark is None or mark.listing or folder.wd == NOT_WATCHED or folder in self.unreadable:
            return None
        found = self.scanner.look(fd, folder, mark.names)
        if found.unknown:
            return None
        if found.gone and not self.guard.is_certain(folder.path):
            self.queue.retry(look, now)
            return 0
        self.intake.accept_look(folder, found, mark.rewritten, self.heard.unwritten(mark))
        return len(mark.names)

    def _list(self, look: Look, fd: int, now: float) -> int:
        folder = look.folder
        is_heard = folder.wd != NOT_WATCHED and folder not in self.unreadable
        unwritten = self.heard.unwritten(look.mark if is_heard else None)
        self.watch.arm(folder, fd)
        listing = self.scanner.list_folder(fd, folder)
        if removes(folder, listing):
            if not self.guard.is_certain(folder.path):
                self.queue.retry(look, now)
                return 0
            self._check_emptied(look, listing)
        rewritten = look.mark.rewritten if look.mark is not None else frozenset()
        new = self.intake.accept_listing(folder, listing, rewritten, unwritten, is_first=not self.scans_done)
        self.absences.note()
        self._follow(look, new)
        return len(listing.packed.names) + len(listing.folders) + listing.n_ignored

    def _follow(self, look: Look, new: list[Folder]) -> None:
        children = look.folder.children.values()
        follow = dict.fromkeys(children if look.deep else new)
        if self.watch.is_on:
            unseen = dict.fromkeys(child for child in children if child.wd == NOT_WATCHED)
            if self.queue.is_paced(look):
                # No event tells what is in there, and `sync` waits for no scan that takes its time.
                unseen = {child: None for child in unseen if child not in self.watch.unwatched}
                self.queue.add((child, None) for child in unseen)
                follow = {child: None for child in follow if child not in unseen}
            else:
                follow |= unseen
        self.queue.follow(look, follow)

    def _check_emptied(self, look: Look, listing: Listing) -> None:
        """Take a root that lost all its folders for a lost disk, unless its deletion was there to be seen."""
        if look.folder is not self.tree.root or listing.folders or not self.tables.counts.n_sessions:
            return
        place = self.guard.places.get("")
        if self.scans_done and place is not None and place.fs_type in WATCHABLE:
            return
        raise self.guard.close_root("the root is suddenly empty")

    def _cannot_open(self, folder: Folder, error: OSError, now: float) -> None:
        """Nothing is dropped here: whether a folder is gone, only a listing of its parent can tell."""
        if error.errno not in GONE or folder.parent is None:
            self._cannot_read(folder, error)
        else:
            if folder not in self.unreadable:  # once only: some file systems list what they cannot open
                self.queue.look_again(folder.parent, now)
            self.unreadable[folder] = Unreadable(error.strerror or str(error))

    def _cannot_read(self, folder: Folder, error: OSError) -> None:
        if folder.parent is None:
            raise self.guard.close_root(f"the root cannot be read ({error.strerror})") from error
        self.intake.note_unreadable(folder, error.strerror or str(error))

    def _commit(self) -> None:
        """Bring the tables up to date with the tree."""
        if self.queue.current is not None:
            self.queue.current.changes += self.intake.changes
        self.intake.changes = Changes()
        sessions, dropped = self.tree.take_touched(self.tables.get)
        self.absences.commit(sessions, dropped, is_first=not self.scans_done)
        self._committed += sessions
        for gone in [folder for folder in self.unreadable if not self.tree.is_attached(folder)]:
            del self.unreadable[gone]
        if self._n_dropped != self.tree.n_dropped:
            self._n_dropped = self.tree.n_dropped
            gone_too = [folder for folder in self.watch.unwatched if not self.tree.is_attached(folder)]
            self.watch.forget_unwatched(gone_too)

    def restore(self, rows: Iterable[EarlierRow]) -> None:
        """Put back rows of earlier tables that lie where nothing could be read now; see `Intake.restore`."""
        self.intake.restore(rows)
        self._commit()

    # Telling.

    def take_committed(self) -> list[Session]:
        """Return the sessions that changed since the last call."""
        committed, self._committed = self._committed, []
        return committed

    def take_ended(self) -> list[Scan]:
        """Return the scans that ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def drop_unhashed(self) -> None:
        """Forget what changed since the last call; for an owner that hashes nothing."""
        self._committed = []
        self.tree.take_rewritten()

    def snapshot(self) -> Snapshot:
        """Freeze the rows as they are; costs one shallow copy of the dict of sessions."""
        return replace(self.tables.snapshot(), is_held=self.absences.loss is not None)

    def view(self) -> TablesView:
        """Return the tables as they are, and what makes them less than certain."""
        unsure = [folder.path for folder in self.unreadable] + list(self.guard.missing)
        return TablesView(self.snapshot(), tuple(unsure), self.absences.why_held, self.guard.n_mount_changes)

    def problems(self) -> list[Problem]:
        """Return what a person should act on, sorted by path."""
        found = [problem for folder in self.tree.with_problems for problem in folder.problems]
        found += self.intake.problems() + self.tables.problems() + self.guard.problems()
        found += self.absences.problems() + self.watch.problems()
        return sorted(found, key=lambda problem: (problem.path, problem.kind))
