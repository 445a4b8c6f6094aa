"""Takes listings into the tree: one folder at a time, or a whole unit that `crawl` has read. Owns the tree."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

from alfwatchd.alf.printable import printable
from alfwatchd.scan.root_guard import RootGuard
from alfwatchd.scan.subtree import Found
from alfwatchd.tree.folder import NOT_WATCHED, Changes, Folder, Listing, LookResult
from alfwatchd.tree.hard_links import HardLinks
from alfwatchd.tree.packed import NO_FILES, inode_of, pack_inode
from alfwatchd.tree.rows import Problem
from alfwatchd.tree.tree import Tree
from alfwatchd.watch.supervisor import WatchSupervisor

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a folder could not be read, or, where `names` are given, only these files in it."""

    why: str
    names: AbstractSet[str] = frozenset()


class EarlierRow(NamedTuple):
    """A row of earlier tables.

    Parameters
    ----------
    spellings : tuple of str
        Paths that the session may have.
    rel_path : str
        Empty for the session itself.
    file_size : int or None
        Bytes; None for the session itself.
    digest : bytes
        md5, 16 bytes; empty if it is not known.
    """

    spellings: tuple[str, ...]
    rel_path: str = ""
    file_size: int | None = None
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """What happened since worker processes began to read: their listings may be older.

    Parameters
    ----------
    looked_at : set of Folder
        Folders that were looked at here.
    told : set of int
        Watch descriptors for which events came before any folder claimed them.
    """

    looked_at: set[Folder] = field(default_factory=set)
    told: set[int] = field(default_factory=set)


class Intake:
    """The tree, and what listings tell beyond it.

    Parameters
    ----------
    root_name : str
    guard : RootGuard
    watch : WatchSupervisor
    """

    def __init__(self, root_name: str, guard: RootGuard, watch: WatchSupervisor) -> None:
        self.tree = Tree(root_name, watch.claims)
        self.unreadable: dict[Folder, Unreadable] = {}
        self.linked: set[Folder] = set()
        """Folders with links that may lead to datasets or sessions. May hold dropped ones: they are few."""
        self.hard_links = HardLinks()
        self._changes = Changes()
        self._meanwhile: Meanwhile | None = None
        """What happened since worker processes began to read; None while none does."""
        self._guard = guard
        self._watch = watch

    def accept_listing(
        self,
        folder: Folder,
        listing: Listing,
        rewritten: AbstractSet[str],
        unwritten: AbstractSet[str] = frozenset(),
        *,
        is_first: bool,
    ) -> list[Folder]:
        """Make a folder equal to its listing, which the caller has found trustworthy; parameters as for `Tree.apply`.

        Returns
        -------
        list of Folder
            Sub-folders that must be looked at before anything is known about them.
        """
        old = folder.rows
        known = listing
        if self._guard.missing:  # a disk that belongs on these folders is missing: their rows stay
            missing = {name for name, child in folder.children.items() if self._guard.is_missing(child.path)}
            known = listing._replace(unknown=listing.unknown | missing)
        if unwritten:
            unwritten = self._with_one_name(unwritten, listing.packed.unpack(), listing.shared_inodes)
        new, freed, changes = self.tree.apply(folder, known, rewritten, unwritten)
        if freed:
            self._watch.release(freed)
        if listing.has_links or folder in self.linked:
            (self.linked.add if listing.has_links else self.linked.discard)(folder)
        if listing.unknown:
            self.unreadable[folder] = Unreadable("files that cannot be looked at", frozenset(listing.unknown))
        else:
            self.unreadable.pop(folder, None)
        if changes:
            self._changes += changes
        if listing.shared_inodes or self.hard_links:
            self.hard_links.note_listing(listing, is_news=bool(rewritten or (changes.are_shown and not is_first)))
        self.hard_links.note_gone(old, folder.rows)
        for gone in self.tree.take_gone_rows():
            self.hard_links.note_gone(gone, None)
        return new

    def accept_look(
        self, folder: Folder, look: LookResult, rewritten: AbstractSet[str], unwritten: AbstractSet[str] = frozenset()
    ) -> None:
        """Change the rows of the names that were looked at."""
        old = folder.rows
        self._changes += self.tree.patch(folder, look, rewritten, self._with_one_name(unwritten, look.files))
        self.hard_links.note_gone(old, folder.rows)

    def _with_one_name(
        self, names: AbstractSet[str], files: Mapping[str, bytes], shared_inodes: AbstractSet[int] = frozenset()
    ) -> AbstractSet[str]:
        """Return those files that never had another name: an event tells only of the name that was written through."""
        shared = self.hard_links.inodes_among(files.values()) | set(map(pack_inode, shared_inodes)) if names else set()
        return {name for name in names if name in files and inode_of(files[name]) not in shared} if shared else names

    def take_changes(self) -> Changes:
        """Return how many rows changed since the last call, and begin to count again."""
        changes, self._changes = self._changes, Changes()
        return changes

    def note_unreadable(self, folder: Folder, why: str) -> None:
        """Note that nothing is known of a folder now; its rows stay."""
        if folder not in self.unreadable:
            _log.warning("folder not readable path=%s error=%s", printable(folder.path), why)
        self.mark_unreadable(folder, why)

    def mark_unreadable(self, folder: Folder, why: str) -> None:
        """Note that nothing is known of a folder until another look at it, which follows soon; nothing is logged."""
        self.unreadable[folder] = Unreadable(why)

    def forget_unattached(self) -> None:
        """Forget unreadable folders that are no part of the tree any more."""
        for gone in [folder for folder in self.unreadable if not self.tree.is_attached(folder)]:
            del self.unreadable[gone]

    def forget_unattached_links(self) -> None:
        """Forget folders with links that are no part of the tree any more."""
        self.linked.difference_update([folder for folder in self.linked if not self.tree.is_attached(folder)])

    def problems(self) -> list[Problem]:
        """Return one problem per folder that could not be read."""
        return [
            Problem("unreadable", printable(folder.path), f"{what.why}: last known rows are kept; make it readable")
            for folder, what in self.unreadable.items()
            if not self._guard.is_missing(folder.path)
        ]

    def restore(self, rows: Iterable[EarlierRow]) -> None:
        """Put back rows of earlier tables whose folders could not be read now.

        Parameters
        ----------
        rows : iterable of EarlierRow
        """
        lost = list(self._guard.missing)
        for folder, what in self.unreadable.items():
            lost += [_join(folder, name) for name in what.names] or [folder.path]
        for spellings, rel_path, file_size, digest in rows:
            for session in spellings:
                path = f"{session}/{rel_path}" if rel_path else session
                if any(not place or path == place or path.startswith(f"{place}/") for place in lost):
                    self.tree.restore(path, file_size, digest)
                    break

    # Units.

    def accept_unit(self, top: Folder, found: Iterable[Found], *, is_first: bool) -> tuple[list[Folder], int]:
        """Take in the listings of a crawl that only add rows.

        The crawl read them some time ago, perhaps in another process. A listing that would remove a row, or cannot be
        trusted for another reason, is refused: its folder is looked at again here, and so are missing folders.

        Parameters
        ----------
        top : Folder
            What was crawled.
        found : iterable of Found
        is_first : bool
            Whether nothing was known before.

        Returns
        -------
        left : list of Folder
            To be looked at, with all below them.
        n_entries : int
            Number of entries seen.
        """
        left = {top: None}
        folders: list[Folder | None] = []
        n_entries = 0
        for parent, name, wd, listing in found:
            above = folders[parent] if parent >= 0 else None
            here = top if parent < 0 else above.children.get(name) if above is not None else None
            if here is None or listing is None or not self._is_trusted(here, wd, listing):
                self._watch.release_unclaimed(wd)
                folders.append(None)
                continue
            if wd != NOT_WATCHED:
                self._watch.claim(here, wd)
            if listing.is_plain and self._is_new(here):
                self.tree.fill(here, listing)
                self._changes.added += len(listing.packed.names)
            else:
                self.accept_listing(here, listing, frozenset(), is_first=is_first)
            folders.append(here)
            del left[here]
            if here.children:
                left |= dict.fromkeys(here.children.values())
            n_entries += 1 + len(listing.packed.names) + len(listing.folders) + listing.n_ignored
        return list(left), n_entries

    def _is_new(self, folder: Folder) -> bool:
        """Tell whether nothing at all is known of a folder but its name."""
        return not (folder.ino or folder.rows or folder.children or folder in self.unreadable)

    def refuse_unit(self, found: Iterable[Found]) -> None:
        """Remove the watches of a unit whose scan is over or was given up."""
        for each in found:
            self._watch.release_unclaimed(each.wd)

    def note_look(self, folder: Folder) -> None:
        """Note that a folder is looked at here: what a worker process has read of it may be older."""
        if self._meanwhile is not None:
            self._meanwhile.looked_at.add(folder)

    def note_unclaimed_events(self, wd: int) -> None:
        """Note that events came for a watch that a worker process may have added, or that the watch is gone."""
        if self._meanwhile is not None:
            self._meanwhile.told.add(wd)

    def watch_meanwhile(self, *, is_on: bool) -> None:
        """Begin, or end, to note what happens while worker processes read."""
        if is_on and self._meanwhile is None:
            self._meanwhile = Meanwhile()
        elif not is_on:
            self._meanwhile = None

    def _is_trusted(self, folder: Folder, wd: int, listing: Listing) -> bool:
        parent = folder.parent
        return (
            parent is not None
            and (listing.dev, listing.ino) == (parent.dev, folder.entry_ino)
            and not listing.unknown
            and (wd != NOT_WATCHED) == self._watch.is_on
            and (self._meanwhile is None or not (folder in self._meanwhile.looked_at or wd in self._meanwhile.told))
            and not removes(folder, listing)
        )


def removes(folder: Folder, listing: Listing) -> bool:
    """Tell whether a listing would remove rows."""
    if folder.children and folder.children.keys() - listing.folders.keys() - listing.unknown:
        return True
    old = folder.rows.packed.names if folder.rows is not None else NO_FILES.names
    return old != listing.packed.names and not set(old) <= {*listing.packed.names, *listing.unknown}


def _join(folder: Folder, name: str) -> str:
    path = folder.path
    return f"{path}/{name}" if path else name
