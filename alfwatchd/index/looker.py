"""Looks at one folder, or one unit of a scan, and decides whether what was seen may be believed."""

from __future__ import annotations

import os

from alfwatchd.alf.grammar import Kind
from alfwatchd.index.absences import Absences
from alfwatchd.index.heard import Heard
from alfwatchd.index.intake import Intake, removes
from alfwatchd.index.look_queue import Look, LookQueue
from alfwatchd.scan.identity import Identities
from alfwatchd.scan.mounts import WATCHABLE
from alfwatchd.scan.root_guard import RootGuard
from alfwatchd.scan.scanner import GONE, Scanner, open_folder
from alfwatchd.scan.subtree import crawl
from alfwatchd.tree.folder import NOT_WATCHED, Folder, Listing
from alfwatchd.tree.sessions import Tables
from alfwatchd.watch.supervisor import WatchSupervisor


class Looker:
    """Looks at folders for the indexer. Engine's thread only.

    Parameters
    ----------
    scanner : Scanner
    guard : RootGuard
    watch : WatchSupervisor
    intake : Intake
    queue : LookQueue
        Gets what must be looked at again, or next.
    heard : Heard
    absences : Absences
    tables : Tables
    """

    def __init__(
        self,
        scanner: Scanner,
        guard: RootGuard,
        watch: WatchSupervisor,
        intake: Intake,
        queue: LookQueue,
        heard: Heard,
        absences: Absences,
        tables: Tables,
    ) -> None:
        self.scanner = scanner
        self._guard, self._watch, self._intake = guard, watch, intake
        self._queue, self._heard, self._absences, self._tables = queue, heard, absences, tables
        self._identities = Identities(scanner.root, guard, intake.tree.made_up)

    def use_scanner(self, scanner: Scanner) -> None:
        """Look with another scanner of the same root from now on."""
        self.scanner = scanner

    def crawl(self, look: Look, *, is_first: bool) -> int:
        """Read a unit here and now; parameters and return value as those of `look_at`."""
        try:
            left, n_entries = self._intake.accept_unit(look.folder, crawl(self.scanner, look.folder), is_first=is_first)
        except OSError:
            left, n_entries = [look.folder], 0
        self._absences.note()
        self._queue.put_back(left)
        return n_entries

    def look_at(self, look: Look, now: float, *, is_first: bool) -> int:
        """Look at one folder, and take its listing in if it may be believed.

        Parameters
        ----------
        look : Look
        now : float
            On the caller's clock, in seconds.
        is_first : bool
            Whether no scan has ended yet, so that nothing was known before.

        Returns
        -------
        int
            Number of entries seen.

        Raises
        ------
        RootOffline
            The root is missing, or another disk or folder than before.
        """
        folder = look.folder
        self._intake.note_look(folder)
        try:
            fd = open_folder(self.scanner.root, folder)
        except OSError as error:
            self._cannot_open(folder, error, now)
            return 0
        try:
            about = os.fstat(fd)
            self._identities.note_device(folder, about.st_dev)
            if self._identities.lead_elsewhere(folder, about) or self._guard.leads_elsewhere(folder.path, about):
                self._look_again_from_above(look, now)
                return 0
            n_names = self._look_at_names(look, fd, now)
            return self._list(look, fd, now, is_first=is_first) if n_names is None else n_names
        except OSError as error:
            self._cannot_read(folder, error)
            return 0
        finally:
            os.close(fd)

    def _look_again_from_above(self, look: Look, now: float) -> None:
        self._guard.check()
        if look.folder.parent in self._intake.unreadable:
            self._intake.mark_unreadable(look.folder, "the folder above it cannot be read")
        else:
            self._queue.retry(look, now)

    def _look_at_names(self, look: Look, fd: int, now: float) -> int | None:
        """Look only at the files that events named; return None if the whole folder must be listed."""
        folder, mark = look.folder, look.mark
        if mark is None or mark.listing or folder.wd == NOT_WATCHED or folder in self._intake.unreadable:
            return None
        if folder.kind < Kind.SESSION:  # of the files there, only links count
            return None if self.scanner.finds_link(fd, folder, mark.names) else 0
        found = self.scanner.look(fd, folder, mark.names)
        if found.unknown:
            return None
        if found.gone and not self._guard.is_certain(folder.path):
            self._queue.retry(look, now)
            return 0
        self._intake.accept_look(folder, found, mark.rewritten, self._heard.unwritten(mark))
        return len(mark.names)

    def _list(self, look: Look, fd: int, now: float, *, is_first: bool) -> int:
        """Watch a folder, list it, and let its rows be what is there; return the number of entries."""
        folder = look.folder
        is_heard = folder.wd != NOT_WATCHED and folder not in self._intake.unreadable
        unwritten = self._heard.unwritten(look.mark if is_heard else None)
        self._watch.arm(folder, fd)
        listing = self.scanner.list_folder(fd, folder)
        if removes(folder, listing):
            if not self._guard.is_certain(folder.path):
                self._queue.retry(look, now)
                return 0
            self._check_emptied(look, listing, is_first=is_first)
        rewritten = look.mark.rewritten if look.mark is not None else frozenset()
        new = self._intake.accept_listing(folder, listing, rewritten, unwritten, is_first=is_first)
        self._absences.note()
        self._follow(look, new)
        return len(listing.packed.names) + len(listing.folders) + listing.n_ignored

    def _follow(self, look: Look, new: list[Folder]) -> None:
        """Queue looks at folders in a folder: the new ones, those without a watch, and in a scan all."""
        children = look.folder.children.values()
        follow = dict.fromkeys(children if look.deep else new)
        if self._watch.is_on:
            unseen = dict.fromkeys(child for child in children if child.wd == NOT_WATCHED)
            if self._queue.is_paced(look):
                # No event tells what is in there, and `sync` does not wait for a paced scan.
                unseen = {child: None for child in unseen if child not in self._watch.unwatched}
                self._queue.add((child, None) for child in unseen)
                follow = {child: None for child in follow if child not in unseen}
            else:
                follow |= unseen
        self._queue.follow(look, follow)

    def _check_emptied(self, look: Look, listing: Listing, *, is_first: bool) -> None:
        """Raise `RootOffline` if the root is suddenly empty, unless events would have told of a deletion."""
        if look.folder is not self._intake.tree.root or listing.folders or not self._tables.counts.n_sessions:
            return
        place = self._guard.places.get("")
        if not is_first and place is not None and place.fs_type in WATCHABLE:
            return
        raise self._guard.close_root("the root is suddenly empty")

    def _cannot_open(self, folder: Folder, error: OSError, now: float) -> None:
        """Note it. No row is dropped here: only a listing of the parent can tell that a folder is gone."""
        if error.errno not in GONE or folder.parent is None:
            self._cannot_read(folder, error)
        else:
            if folder not in self._intake.unreadable:  # only once: some file systems list folders that they cannot open
                self._queue.look_again(folder.parent, now)
            self._intake.mark_unreadable(folder, error.strerror or str(error))

    def _cannot_read(self, folder: Folder, error: OSError) -> None:
        if folder.parent is None:
            raise self._guard.close_root(f"the root cannot be read ({error.strerror})") from error
        self._intake.note_unreadable(folder, error.strerror or str(error))
