"""The folders of the root as last seen: a mirror made of listings, which tells what each new listing changes.

Events and reconciling only choose which folder is listed next; rows change here and nowhere else. The rules that make
this converge are in docs/architecture.md, "How watching loses nothing".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from alfwatchd.core import alf
from alfwatchd.core.alf import Kind
from alfwatchd.core.rows import (
    SIGNATURE_SIZE,
    Files,
    FolderRows,
    Problem,
    Session,
    folder_rows,
    pack_signature,
)

NOT_WATCHED = -1
NOT_LISTED = 0
"""Inode of a folder that no listing of its parent has shown yet: the root, and what `Tree.restore` made."""


@dataclass(slots=True)
class Listing:
    """What the scanner saw in one folder.

    Parameters
    ----------
    dev, ino : int
        Identity of the folder that was listed.
    folders : dict of str to int
        Sub-folders that may hold sessions or datasets -> inode in the listing.
    links : set of str
        Those of `folders` that are symbolic links to session folders.
    files : dict of str to bytes
        Datasets -> packed signature.
    unknown : set of str
        Names that are there but could not be looked at: what was known of them stays.
    n_ignored : int
        Entries that are no part of the layout.
    problems : list of Problem
    """

    dev: int
    ino: int
    folders: dict[str, int] = field(default_factory=dict)
    links: set[str] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    n_ignored: int = 0
    problems: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class Look:
    """What the scanner saw of some names in one folder, without listing it.

    Parameters
    ----------
    files : dict of str to bytes
        Datasets that are there -> packed signature.
    gone : set of str
        Names that are certainly not datasets now.
    unknown : set of str
        Names that could not be looked at: what was known of them stays.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Changes:
    """How many dataset rows a scan added, changed and removed."""

    added: int = 0
    changed: int = 0
    removed: int = 0

    def __iadd__(self, other: Changes) -> Changes:
        self.added += other.added
        self.changed += other.changed
        self.removed += other.removed
        return self

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


class Folder:
    """One folder of the tree. Compared by identity; `parent` is None for the root and for a dropped folder."""

    __slots__ = (
        "children", "dev", "entry_ino", "ino", "is_link", "kind", "n_ignored", "name", "parent", "problems", "rows",
        "wd",
    )  # fmt: skip

    def __init__(self, name: str, kind: Kind, parent: Folder | None, entry_ino: int, *, is_link: bool = False) -> None:
        self.name = name
        self.kind = kind
        self.parent = parent
        self.entry_ino = entry_ino
        """Inode in the parent's listing: another one than `ino` where something is mounted on the folder."""
        self.dev = 0
        self.ino = 0
        self.is_link = is_link
        self.wd = NOT_WATCHED
        self.children: dict[str, Folder] = {}
        self.rows: FolderRows | None = None
        self.problems: tuple[Problem, ...] = ()
        self.n_ignored = 0

    @property
    def path(self) -> str:
        """Path relative to the root; empty for the root."""
        names = []
        folder: Folder = self
        while folder.parent is not None:
            names.append(folder.name)
            folder = folder.parent
        return "/".join(reversed(names))

    @property
    def session(self) -> Folder | None:
        """The session folder that this folder is or lies in."""
        folder: Folder | None = self
        while folder is not None and folder.kind is Kind.COLLECTION:
            folder = folder.parent
        return folder if folder is not None and folder.kind is Kind.SESSION else None

    @property
    def collection(self) -> str:
        """Path relative to the session; empty for the session folder itself."""
        names = []
        folder: Folder = self
        while folder.kind is Kind.COLLECTION and folder.parent is not None:
            names.append(folder.name)
            folder = folder.parent
        return "/".join(reversed(names))

    def child_kind(self, name: str) -> Kind | None:
        """Return the kind that a sub-folder of this name has, or None."""
        if self.kind < Kind.SESSION:
            return alf.child_kind(self.kind, self.name, name)
        collection = self.collection
        path = f"{collection}/{name}" if collection else name
        return Kind.COLLECTION if alf.is_collection(path) else None

    def walk(self) -> Iterator[Folder]:
        """Yield this folder and all below it, each before its children, in the order of names."""
        stack = [self]
        while stack:
            folder = stack.pop()
            yield folder
            stack += [folder.children[name] for name in sorted(folder.children, reverse=True)]


class Tree:
    """All folders that may hold sessions or datasets. Owned by one thread.

    Parameters
    ----------
    root_name : str
        Name of the root folder itself; only for messages.
    """

    def __init__(self, root_name: str = "") -> None:
        self.root = Folder(root_name, Kind.ROOT, None, NOT_LISTED)
        self.touched: set[Folder] = set()
        """Session folders that changed since `take_touched`."""
        self.dropped: set[str] = set()
        """Paths of session folders that went since `take_touched`."""
        self.with_problems: set[Folder] = set()
        self.n_ignored = 0
        """Entries that are no part of the layout, over all folders."""
        self.rewritten: list[bytes] = []
        """Signatures whose files were rewritten without a change of signature, so that known digests are wrong."""
        self._by_wd: dict[int, tuple[Folder, ...]] = {}

    # Watches: one watch descriptor can stand for several folders for a while (a move, a bind mount).

    def claim(self, folder: Folder, wd: int) -> int | None:
        """Say that `wd` watches `folder`; return the descriptor that nobody claims any more, if there is one."""
        if folder.wd == wd:
            return None
        freed = self.unclaim(folder)
        folder.wd = wd
        self._by_wd[wd] = (*self._by_wd.get(wd, ()), folder)
        return freed

    def unclaim(self, folder: Folder) -> int | None:
        """Take the watch off a folder; return the descriptor if no other folder claims it."""
        wd, folder.wd = folder.wd, NOT_WATCHED
        if wd == NOT_WATCHED or wd not in self._by_wd:
            return None
        rest = tuple(other for other in self._by_wd[wd] if other is not folder)
        if rest:
            self._by_wd[wd] = rest
            return None
        del self._by_wd[wd]
        return wd

    def watched_by(self, wd: int) -> tuple[Folder, ...]:
        """Return the folders that a watch descriptor stands for."""
        return self._by_wd.get(wd, ())

    def forget_watch(self, wd: int) -> tuple[Folder, ...]:
        """Note that the kernel removed a watch; return the folders that lost it."""
        folders = self._by_wd.pop(wd, ())
        for folder in folders:
            folder.wd = NOT_WATCHED
        return folders

    def forget_all_watches(self) -> None:
        """Note that the watcher that held the watches is no more."""
        for wd in list(self._by_wd):
            self.forget_watch(wd)

    @property
    def watch_descriptors(self) -> Mapping[int, tuple[Folder, ...]]:
        """All claimed watch descriptors."""
        return self._by_wd

    # Changes.

    def is_attached(self, folder: Folder) -> bool:
        """Tell whether a folder is still part of the tree."""
        return folder is self.root or folder.parent is not None

    def find(self, path: str) -> Folder | None:
        """Return the folder at a root-relative path, or None if it is not in the tree."""
        folder: Folder | None = self.root
        for name in path.split("/") if path else ():
            folder = folder.children.get(name) if folder is not None else None
        return folder

    def apply(self, folder: Folder, listing: Listing) -> tuple[list[Folder], list[int], Changes]:
        """Make a folder equal to its listing.

        Parameters
        ----------
        folder : Folder
            Attached to the tree.
        listing : Listing

        Returns
        -------
        new : list of Folder
            Sub-folders that must be scanned before anything is known about them: new ones, and those that are
            another folder than before under the same name.
        freed : list of int
            Watch descriptors that nobody claims any more.
        changes : Changes
            Dataset rows added, changed and removed, those of dropped sub-folders included.
        """
        folder.dev, folder.ino = listing.dev, listing.ino
        self._set_problems(folder, tuple(listing.problems), listing.n_ignored)
        freed: list[int] = []
        changes = Changes()
        for name in folder.children.keys() - listing.folders.keys() - listing.unknown:
            changes += self.drop(folder.children[name], freed)
        new = []
        for name, ino in listing.folders.items():
            child = folder.children.get(name)
            if child is not None and child.entry_ino == NOT_LISTED:
                self._show(child, ino, is_link=name in listing.links)
                new.append(child)
            if child is not None and (child.entry_ino != ino or child.is_link != (name in listing.links)):
                changes += self.drop(child, freed)
                child = None
            if child is None:
                kind = folder.child_kind(name)
                assert kind is not None, f"the scanner listed {name!r} below a {folder.kind!r}"
                child = folder.children[name] = Folder(name, kind, folder, ino, is_link=name in listing.links)
                if kind is Kind.SESSION:
                    self.touched.add(child)
                new.append(child)
        if folder.kind >= Kind.SESSION:
            old = folder.rows.files if folder.rows else {}
            kept = {name: old[name] for name in listing.unknown & old.keys()}
            changes += self._set_files(folder, {**listing.files, **kept})
        return new, freed, changes

    def patch(self, folder: Folder, look: Look, rewritten: set[str]) -> Changes:
        """Change only the rows of the names that were looked at; a rewritten file loses its hash."""
        old = folder.rows.files if folder.rows else {}
        files = {name: value for name, value in old.items() if name not in look.gone}
        return self._set_files(folder, {**files, **look.files}, rewritten & look.files.keys())

    def set_digest(self, folder: Folder, digests: Mapping[str, tuple[bytes, bytes]]) -> bool:
        """Add md5 digests to rows.

        Parameters
        ----------
        folder : Folder
        digests : mapping of str to (bytes, bytes)
            Name -> (packed signature, 16-byte digest). Ignored where the row has another signature by now.

        Returns
        -------
        bool
            Whether a row changed.
        """
        if folder.rows is None:
            return False
        old = folder.rows.files
        fresh = {
            name: signature + digest
            for name, (signature, digest) in digests.items()
            if old.get(name, b"")[:SIGNATURE_SIZE] == signature and old[name] != signature + digest
        }
        if fresh:
            folder.rows = FolderRows(folder.rows.folder, {**old, **fresh}, folder.rows.n_bytes)
            self._touch(folder)
        return bool(fresh)

    def restore(self, path: str, file_size: int | None) -> None:
        """Put back a row of earlier tables whose folder cannot be read now.

        Parameters
        ----------
        path : str
            Root-relative path of a session folder, or of a dataset in one.
        file_size : int or None
            Bytes; None for a session folder.
        """
        if "//" in path or (alf.parse_session(path) if file_size is None else alf.split_dataset(path)) is None:
            return
        *names, last = path.split("/")
        folder = self.root
        for name in names if file_size is not None else [*names, last]:
            child = folder.children.get(name)
            if child is None:
                kind = folder.child_kind(name)
                assert kind is not None, f"{path!r} is valid, but not {name!r} in it"
                child = folder.children[name] = Folder(name, kind, folder, NOT_LISTED)
            folder = child
        if file_size is not None:
            old = folder.rows.files if folder.rows else {}
            self._set_files(folder, {last: pack_signature(file_size, 0, 0, False), **old})  # noqa: FBT003
        self._touch(folder)

    def drop(self, folder: Folder, freed: list[int]) -> Changes:
        """Remove a folder and all below it; `freed` gathers watch descriptors that nobody claims any more."""
        assert folder.parent is not None, "the root is never dropped"
        self._touch(folder)
        changes = Changes()
        below = list(folder.walk())
        for each in below:
            if each.kind is Kind.SESSION:
                self.dropped.add(each.path)
                self.touched.discard(each)
            changes.removed += len(each.rows.files) if each.rows else 0
            self._set_problems(each, (), 0)
            wd = self.unclaim(each)
            if wd is not None:
                freed.append(wd)
        del folder.parent.children[folder.name]
        for each in below:
            each.parent = None
            each.children = {}
        return changes

    def take_touched(self) -> tuple[list[Session], list[str]]:
        """Return the sessions that changed and the paths of those that went, and forget about them."""
        sessions = [compose(folder) for folder in self.touched]
        dropped = sorted(self.dropped - {session.path for session in sessions})
        self.touched, self.dropped = set(), set()
        return sessions, dropped

    def _set_files(self, folder: Folder, files: Files, forget: Set[str] = frozenset()) -> Changes:
        """Replace the rows of a folder; digests stay where the signature does, except for names in `forget`."""
        old = folder.rows.files if folder.rows else {}
        if files == old and not forget:
            return Changes()
        changed = 0
        merged = dict(files)
        for name in files.keys() & old.keys():
            if name in forget and len(old[name]) > SIGNATURE_SIZE:
                self.rewritten.append(old[name][:SIGNATURE_SIZE])
            if name in forget or old[name][:SIGNATURE_SIZE] != files[name][:SIGNATURE_SIZE]:
                changed += old[name] != files[name]
            else:
                merged[name] = old[name]
        changes = Changes(len(files.keys() - old.keys()), changed, len(old.keys() - files.keys()))
        if changes:
            folder.rows = folder_rows(folder.collection, merged)
            self._touch(folder)
        return changes

    def _set_problems(self, folder: Folder, problems: tuple[Problem, ...], n_ignored: int) -> None:
        self.n_ignored += n_ignored - folder.n_ignored
        folder.problems, folder.n_ignored = problems, n_ignored
        if problems:
            self.with_problems.add(folder)
        else:
            self.with_problems.discard(folder)

    def _show(self, folder: Folder, ino: int, *, is_link: bool) -> None:
        """Note that a restored folder is there; its rows stay until it is listed itself."""
        folder.entry_ino = ino
        if folder.is_link != is_link:
            folder.is_link = is_link
            self._touch(folder)

    def _touch(self, folder: Folder) -> None:
        session = folder.session
        if session is not None:
            self.touched.add(session)


def compose(folder: Folder) -> Session:
    """Make the frozen row of a session from its folders."""
    rows = tuple(each.rows for each in folder.walk() if each.rows is not None)
    return Session(folder.path, rows, folder.is_link)
