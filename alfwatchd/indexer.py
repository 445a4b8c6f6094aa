"""Keeps tree and tables equal to the disk, one unit of scanning at a time. Owns tree, tables and dirty set.

Used by the engine, which feeds it events, and by `once`, which runs one pass. It never reads a clock.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from alfwatchd.core.alf import Kind
from alfwatchd.core.dirty import DirtySet, Mark
from alfwatchd.core.guard import Place
from alfwatchd.core.messages import FolderEvents
from alfwatchd.core.rows import Problem, Session
from alfwatchd.core.tables import Tables
from alfwatchd.core.tree import NOT_WATCHED, Changes, Folder, Listing, Tree
from alfwatchd.errors import RootOffline, WatchError, WatchLimit
from alfwatchd.mounts import WATCHABLE
from alfwatchd.places import Guard
from alfwatchd.scanner import GONE, Scanner, open_folder, printable
from alfwatchd.watcher import Watcher

_log = logging.getLogger(__name__)

_FOLDERS_PER_UNIT = 128
_ENTRIES_PER_UNIT = 4096


@dataclass(slots=True)
class Ticket:
    """A place in the queue: once it is `done`, all that was queued before it has been looked at."""

    done: bool = False


@dataclass(slots=True)
class Pass:
    """One scan of the whole tree, or of one folder and all below it.

    Parameters
    ----------
    reason : str
        For status and log.
    started : float
        On the caller's clock, in seconds.
    paced : bool
        Whether it may take its time, so as not to disturb.
    """

    reason: str
    started: float
    paced: bool = False
    top: str = ""
    changes: Changes = field(default_factory=Changes)
    done: bool = False


@dataclass(slots=True)
class _Task:
    """Look at a folder: at what its mark names, or the whole; `deep` for all below it, too."""

    folder: Folder
    queue: deque[_Task | Ticket]
    """Where what follows from this task goes: in front of everything else."""
    deep: bool = False
    mark: Mark | None = None


class Indexer:
    """The tree of one root and how it is brought up to date.

    Parameters
    ----------
    scanner : Scanner
    guard : Guard
    settle_seconds, longest_wait_seconds : float
        See `core.dirty.DirtySet`.
    generation : int
        Generation of the tables on disk, to count on from.
    """

    def __init__(
        self,
        scanner: Scanner,
        guard: Guard,
        *,
        settle_seconds: float,
        longest_wait_seconds: float,
        generation: int,
    ) -> None:
        self.scanner = scanner
        self.guard = guard
        self.watcher: Watcher | None = None
        self.known_before: set[str] = set()
        """Names of the top-level folders that hold rows in earlier tables."""
        self.tree = Tree(os.path.basename(scanner.root))
        self.tables = Tables(generation)
        self.committed: list[Session] = []
        """Sessions that changed since the owner last cleared the list."""
        self.dirty: DirtySet[Folder] = DirtySet(settle_seconds, longest_wait_seconds)
        self.unreadable: dict[Folder, str] = {}
        """Folders that could not be read -> why. Their rows are kept."""
        self.unwatched: set[Folder] = set()
        self.watch_problem = ""
        self.changes = Changes()
        """Since the start."""
        self.passes_done = 0
        self.current: Pass | None = None
        self._next: Pass | None = None
        self._urgent: deque[_Task | Ticket] = deque()
        self._background: deque[_Task | Ticket] = deque()
        self._n_drops = 0

    # What is to be looked at.

    def mark_events(self, folders: Mapping[int, FolderEvents], unwatched: Iterable[int], now: float) -> None:
        """Mark folders by what the watcher saw; costs no look at the disk."""
        for wd, events in folders.items():
            for folder in self.tree.watched_by(wd):
                self._mark(folder, events, now)
        for wd in unwatched:
            for folder in self.tree.forget_watch(wd):
                self.mark_folder(folder, now)

    def mark_folder(self, folder: Folder, now: float) -> None:
        """Mark a folder, and its parent, which knows whether it is still there."""
        self.dirty.mark_listing([folder, folder.parent] if folder.parent else [folder], now)

    def start_pass(self, reason: str, now: float, *, paced: bool = False, top: Folder | None = None) -> Pass:
        """Begin to scan all below a folder (default: the root).

        Changes from now on are seen by it or marked by events. If a pass runs already, exactly one more follows.
        """
        folder = top or self.tree.root
        new = Pass(reason, now, paced, folder.path)
        if self.current is None or (self.current.paced and not paced):
            self._begin(new)
            return new
        if self._next is None:
            self._next = new
        else:
            self._next.top = new.top if new.top == self._next.top else ""
            self._next.paced &= new.paced
        return self._next

    def _begin(self, new: Pass) -> None:
        self.current = new
        top = self.tree.find(new.top) or self.tree.root
        self._background.clear()
        self._background.append(_Task(top, self._background, deep=True))

    def open_root(self, *, accept: bool = False) -> None:
        """Make sure that the root is what it was, or take it as it is; a pass must follow.

        Raises
        ------
        RootOffline
            It is not what it was.
        """
        paths = self.tables.snapshot().sessions
        known = {path.split("/")[0] for path in paths} | (self.known_before if not self.passes_done else set())
        self.guard.open_root(known, accept=accept)

    def urgent_passes(self) -> list[Pass]:
        """Return the passes that are not paced and not done: with them, the tables are as the disk."""
        return [each for each in (self.current, self._next) if each is not None and not each.paced]

    def queue_dirty(self) -> Ticket:
        """Queue all that is dirty now, and all unwatched folders, whether due or not; return a place behind them."""
        urgent = self._urgent
        urgent.extend(_Task(folder, urgent, mark=mark) for folder, mark in self.dirty.pop_all())
        urgent.extend(_Task(folder, urgent, deep=True) for folder in [*self.unwatched, *self.unreadable])
        ticket = Ticket()
        self._urgent.append(ticket)
        return ticket

    def retry_unreadable(self, now: float) -> None:
        """Mark the folders that could not be read."""
        self.dirty.mark_listing(self.unreadable, now)

    def reset_work(self) -> None:
        """Forget what was to be looked at; a pass must follow."""
        self._urgent.clear()
        self._background.clear()
        self.current = self._next = None
        self.dirty.pop_all()

    # Looking.

    @property
    def has_work(self) -> bool:
        """Whether `scan` would look at something at once."""
        return bool(self._urgent or self._background)

    @property
    def has_urgent_work(self) -> bool:
        """Whether work other than a paced pass is waiting."""
        return bool(self._urgent or (self._background and self.current and not self.current.paced))

    def scan(self, now: float, *, background: bool = True) -> int:
        """Look at one unit of what is due, and bring the tables up to date.

        Returns
        -------
        int
            Number of entries looked at.

        Raises
        ------
        RootOffline
            The root is not what it was; no row was removed for it.
        """
        self._urgent.extend(_Task(folder, self._urgent, mark=mark) for folder, mark in self.dirty.pop_due(now))
        n_entries = 0
        try:
            if self.has_work:
                self.guard.check()
            for _ in range(_FOLDERS_PER_UNIT):
                task = self._next_task(background=background)
                if task is None or n_entries > _ENTRIES_PER_UNIT:
                    break
                n_entries += 1 + self._run(task, now)
        finally:
            self._commit()
        if self.current is not None and not self._background:
            self._end_pass()
        return n_entries

    def _next_task(self, *, background: bool) -> _Task | None:
        while self._urgent:
            urgent = self._urgent.popleft()
            if isinstance(urgent, _Task):
                return urgent
            urgent.done = True
        task = self._background.popleft() if background and self._background else None
        return task if isinstance(task, _Task) else None

    def _run(self, task: _Task, now: float) -> int:
        """Look at one folder; return the number of entries seen."""
        folder = task.folder
        if not self.tree.is_attached(folder):
            return 0
        if self.guard.missing and self.guard.is_missing(folder.path):
            return 0
        try:
            fd = open_folder(self.scanner.root, folder)
        except OSError as error:
            self._cannot_open(folder, error, now)
            return 0
        try:
            return self._look(task, fd)
        except OSError as error:
            self._cannot_read(folder, error)
            return 0
        finally:
            os.close(fd)

    def _look(self, task: _Task, fd: int) -> int:
        folder, mark = task.folder, task.mark
        was_watched = folder.wd != NOT_WATCHED
        self._watch(folder, fd)
        about = os.fstat(fd)
        same = (about.st_dev, about.st_ino) == (folder.dev, folder.ino)
        if mark is not None and not mark.listing and was_watched and same and folder not in self.unreadable:
            look = self.scanner.look(fd, folder, mark.names)
            self._note(self.tree.patch(folder, look, mark.rewritten))
            return len(mark.names)
        listing = self.scanner.list_folder(fd, folder)
        self._apply(task, listing)
        return len(listing.files) + len(listing.folders) + listing.n_ignored

    def _apply(self, task: _Task, listing: Listing) -> None:
        folder = task.folder
        if _removes(folder, listing):
            self.guard.check()
            self.guard.poll_mounts()
            if self.guard.is_missing(folder.path):
                return
            self._check_emptied(task, listing)
        self.unreadable.pop(folder, None)
        if self.guard.missing:  # what is mounted on these folders is elsewhere now: what was there stays
            listing.unknown |= {name for name in folder.children if self.guard.is_missing(_join(folder, name))}
        new, freed, changes = self.tree.apply(folder, listing)
        for wd in freed:
            self._unwatch(wd)
        self._note(changes)
        self._n_drops += len(freed) or changes.removed
        follow = dict.fromkeys(folder.children.values() if task.deep else new)
        if self.watcher is not None:
            follow |= dict.fromkeys(child for child in folder.children.values() if child.wd == NOT_WATCHED)
        task.queue.extendleft(_Task(child, task.queue, deep=True) for child in reversed(follow))

    def _check_emptied(self, task: _Task, listing: Listing) -> None:
        """Take a root that lost all its folders for a lost disk, unless its deletion was there to be seen."""
        if task.folder is not self.tree.root or listing.folders or not self.tables.counts.n_sessions:
            return
        place: Place | None = self.guard.places.get("")
        if self.passes_done and place is not None and place.fs_type in WATCHABLE:
            return
        self.guard.close_root()
        raise RootOffline(f"{self.scanner.root}: the root is suddenly empty")

    def _cannot_open(self, folder: Folder, error: OSError, now: float) -> None:
        """Nothing is dropped here: whether a folder is gone, only a listing of its parent can tell."""
        if error.errno not in GONE:
            self._cannot_read(folder, error)
        elif folder.parent is None:
            self.guard.close_root()
            raise RootOffline(f"{self.scanner.root}: the root cannot be read ({error.strerror})") from error
        else:
            if folder not in self.unreadable:  # once only: some file systems list what they cannot open
                self._urgent.appendleft(_Task(folder.parent, self._urgent, mark=Mark(now, now, listing=True)))
            self.unreadable[folder] = error.strerror or str(error)

    def _cannot_read(self, folder: Folder, error: OSError) -> None:
        if folder not in self.unreadable:
            _log.warning("folder not readable path=%s error=%s", printable(folder.path), error.strerror)
        self.unreadable[folder] = error.strerror or str(error)

    def _watch(self, folder: Folder, fd: int) -> None:
        if self.watcher is None:
            return
        try:
            freed = self.tree.claim(folder, self.watcher.add(fd))
        except WatchError as error:
            if not self.watch_problem:
                _log.warning("folder not watched path=%s error=%s", printable(folder.path), error)
            if isinstance(error, WatchLimit):
                self.watch_problem = str(error)
            self.unwatched.add(folder)
            return
        self.unwatched.discard(folder)
        if not self.unwatched:
            self.watch_problem = ""
        if freed is not None:
            self._unwatch(freed)

    def _unwatch(self, wd: int) -> None:
        if self.watcher is not None:
            self.watcher.remove(wd)

    def _note(self, changes: Changes) -> None:
        self.changes += changes
        if self.current is not None:
            self.current.changes += changes

    def _commit(self) -> None:
        """Bring the tables up to date with the tree."""
        sessions, dropped = self.tree.take_touched()
        for path in dropped:
            self.tables.drop_session(path)
        for session in sessions:
            self.tables.replace_session(session)
        self.committed += sessions
        for gone in [folder for folder in self.unreadable if not self.tree.is_attached(folder)]:
            del self.unreadable[gone]
        if self._n_drops:
            self.unwatched = {folder for folder in self.unwatched if self.tree.is_attached(folder)}
            self._n_drops = 0

    def _end_pass(self) -> None:
        self.passes_done += 1
        if self.current is not None:
            self.current.done = True
        self.current, following = None, self._next
        self._next = None
        if following is not None:
            self._begin(following)

    # Telling.

    def problems(self) -> list[Problem]:
        """Return what a person should act on, sorted by path."""
        found = [problem for folder in self.tree.with_problems for problem in folder.problems]
        found += [
            Problem("unreadable", printable(folder.path), f"{why}: its last known rows are kept; make it readable")
            for folder, why in self.unreadable.items()
        ]
        found += self.tables.problems() + self.guard.problems()
        if self.watch_problem:
            found.append(Problem("watch_limit", "", f"{len(self.unwatched)} folders: {self.watch_problem}"))
        return sorted(found, key=lambda problem: (problem.path, problem.kind))

    def restore(self, rows: Iterable[tuple[tuple[str, ...], str, int | None]]) -> None:
        """Put back rows of earlier tables that lie where nothing could be read now.

        Parameters
        ----------
        rows : iterable of (session paths, rel_path, file size)
            Spellings that the session's path may have; an empty rel_path and None for the session itself.
        """
        lost = [folder.path for folder in self.unreadable] + list(self.guard.missing)
        for spellings, rel_path, file_size in rows if lost else ():
            for session in spellings:
                path = f"{session}/{rel_path}" if rel_path else session
                if any(path == place or path.startswith(f"{place}/") for place in lost):
                    self.tree.restore(path, file_size)
                    break
        self._commit()

    def _mark(self, folder: Folder, events: FolderEvents, now: float) -> None:
        if folder.kind < Kind.SESSION:
            # Files above the sessions are no rows; but a link there may be a session.
            if events.listing or any(folder.child_kind(name) is Kind.SESSION for name in events.names):
                self.dirty.mark(folder, now).listing = True
            return
        mark = self.dirty.mark(folder, now)
        mark.listing |= events.listing
        mark.names |= events.names
        mark.rewritten |= events.rewritten


def _removes(folder: Folder, listing: Listing) -> bool:
    """Tell whether a listing would remove rows."""
    if folder.children.keys() - listing.folders.keys() - listing.unknown:
        return True
    return folder.rows is not None and bool(folder.rows.files.keys() - listing.files.keys() - listing.unknown)


def _join(folder: Folder, name: str) -> str:
    path = folder.path
    return f"{path}/{name}" if path else name
