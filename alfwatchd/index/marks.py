"""Marks folders to be looked at: those that events name, and those that no event tells about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alfwatchd.alf.grammar import Kind
from alfwatchd.index.absences import Absences
from alfwatchd.index.dirty import DirtySet
from alfwatchd.index.intake import Intake
from alfwatchd.tree.folder import Folder
from alfwatchd.watch.events import FolderEvents


class Marks:
    """Marks folders as dirty, without looking at the disk.

    Parameters
    ----------
    intake : Intake
    dirty : DirtySet
    absences : Absences
    """

    def __init__(self, intake: Intake, dirty: DirtySet[Folder], absences: Absences) -> None:
        self._intake = intake
        self._dirty = dirty
        self._absences = absences

    def mark_events(self, folders: Mapping[int, FolderEvents], unwatched: Iterable[int], now: float) -> None:
        """Mark folders by what the watcher saw."""
        claims = self._intake.tree.claims
        for wd, events in folders.items():
            watched = claims.watched_by(wd)
            for folder in watched:
                self._mark(folder, events, now)
            if not watched:
                self._intake.note_unclaimed_events(wd)
        for wd in unwatched:
            for folder in claims.forget_watch(wd):
                self.mark_folder(folder, now)
            self._intake.note_unclaimed_events(wd)

    def _mark(self, folder: Folder, events: FolderEvents, now: float) -> None:
        if folder.kind < Kind.SESSION:
            # Files above the sessions are no rows; but a link there may be a session, or lead to some.
            files = events.rewritten | events.attributes
            names = {name for name in events.names - files if folder.child_kind(name) is not None}
            if events.listing or names:
                self._absences.tell(folder, events.gone | names)
                mark = self._dirty.mark(folder, now)
                mark.listing |= events.listing
                mark.names |= names
            return
        self._dirty.mark(folder, now).note(events)

    def mark_folder(self, folder: Folder, now: float) -> None:
        """Mark a folder, and its parent, which knows whether it is still there."""
        folders = [folder, folder.parent] if folder.parent else [folder]
        self._dirty.mark_listing(folders, now)

    def retry_unreadable(self, now: float) -> None:
        """Mark the folders that could not be read."""
        self._dirty.mark_listing(self._intake.unreadable, now)

    def mark_linked(self, now: float) -> None:
        """Mark the folders with links."""
        self._intake.forget_unattached_links()
        self._dirty.mark_listing(self._intake.linked, now)
