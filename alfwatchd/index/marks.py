"""Marks folders to be looked at: those that events name, and those that no event tells about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alfwatchd.alf import grammar
from alfwatchd.alf.grammar import Kind
from alfwatchd.index.absences import Absences
from alfwatchd.index.dirty import DirtySet
from alfwatchd.index.intake import Intake
from alfwatchd.tree.folder import Folder
from alfwatchd.watch.events import FolderEvents

_MOST_RENEWED = 20
"""Folders that are listed again for their problems at a time. The bounded look for a problem may list 2,000 folders."""


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
        self._to_renew: list[Folder] = []
        """Folders that had problems and were not listed again since."""

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
            # Datasets in a date folder are a problem. Higher up, files that come and go would have all junk searched.
            loose = events.names - events.attributes if folder.kind is Kind.DATE else ()
            is_loose = any(map(grammar.is_dataset_name, loose))
            if events.listing or names or is_loose:
                self._absences.tell(folder, events.gone | names)
                mark = self._dirty.mark(folder, now)
                mark.listing |= events.listing or is_loose
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

    def renew_problems(self, now: float) -> None:
        """Mark some folders with problems, and the others at later calls.

        Most problems are about folders that are no part of the layout. There, a person mends without any event.
        """
        with_problems = self._intake.tree.with_problems
        waiting = [folder for folder in self._to_renew if folder in with_problems] or [*with_problems]
        self._dirty.mark_listing(waiting[:_MOST_RENEWED], now)
        self._to_renew = waiting[_MOST_RENEWED:]
