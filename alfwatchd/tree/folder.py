"""One folder of the tree, and what the scanner says about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, cast

from alfwatchd.alf import grammar
from alfwatchd.alf.grammar import Kind
from alfwatchd.tree.packed import NO_FILES, PackedFiles
from alfwatchd.tree.rows import FolderRows, Problem, Session

NOT_WATCHED = -1
NOT_LISTED = 0
"""Inode of a folder that no listing of its parent has shown yet: the root, and what `Tree.restore` made."""


class Listing(NamedTuple):
    """What the scanner saw in one folder. It holds plain values only, because it may come from another process.

    Parameters
    ----------
    dev, ino : int
        Identity of the folder that was listed.
    folders : mapping of str to int
        Name of each sub-folder that may hold sessions or datasets -> its inode in the listing.
    packed : PackedFiles
        The datasets.
    n_ignored : int
        Number of entries that are not part of the layout.
    links : set of str
        The names in `folders` that are symbolic links.
    unknown : set of str
        Names that exist but could not be looked at: their rows stay as they are.
    has_links : bool
        Whether there are links that lead, or may lead later, to datasets or sessions: no event tells of a change there.
    shared_inodes : set of int
        Inodes of datasets with several names: an event tells only of the name through which a program wrote.
    problems : tuple of Problem
    followed : set of str
        Names of symbolic links that lead out of the root, or nowhere: the guard judges where they lead.
    """

    dev: int
    ino: int
    folders: Mapping[str, int] = MappingProxyType({})
    packed: PackedFiles = NO_FILES
    n_ignored: int = 0
    links: AbstractSet[str] = frozenset()
    unknown: AbstractSet[str] = frozenset()
    has_links: bool = False
    shared_inodes: AbstractSet[int] = frozenset()
    problems: tuple[Problem, ...] = ()
    followed: AbstractSet[str] = frozenset()

    @property
    def is_plain(self) -> bool:
        """Whether there are only folders and datasets with one name each, as nearly always."""
        return not any(self[5:])


@dataclass(slots=True)
class LookResult:
    """What the scanner saw of some names in one folder, without listing it.

    Parameters
    ----------
    files : dict of str to bytes
        Name of each dataset that is there -> packed signature.
    gone : set of str
        Names that are certainly not datasets now.
    unknown : set of str
        Names that could not be looked at, or are links: only a listing tells enough about them.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    gone: AbstractSet[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Changes:
    """How many dataset rows were added, changed and removed. In `renewed` ones only the change time differs."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    renewed: int = 0

    def __iadd__(self, other: Changes) -> Changes:
        self.added += other.added
        self.changed += other.changed
        self.removed += other.removed
        self.renewed += other.renewed
        return self

    def __bool__(self) -> bool:
        return bool(self.are_shown or self.renewed)

    @property
    def are_shown(self) -> bool:
        """Whether any row of the tables may differ now."""
        return bool(self.added or self.changed or self.removed)


NO_FOLDERS = cast("dict[str, Folder]", MappingProxyType({}))
"""`children` of all folders without sub-folders: most have none, and an empty dict for each would take 64 bytes."""


class Folder:
    """One folder of the tree, compared by identity. `parent` is None for the root and for a dropped folder."""

    __slots__ = (
        "children", "dev", "entry_ino", "ino", "is_link", "kind", "n_ignored", "name", "parent", "problems", "rows",
        "wd",
    )  # fmt: skip

    def __init__(self, name: str, kind: Kind, parent: Folder | None, entry_ino: int, *, is_link: bool = False) -> None:
        self.name = name
        self.kind = kind
        self.parent = parent
        self.entry_ino = entry_ino
        """Inode in the parent's listing; it differs from `ino` if something is mounted on the folder."""
        self.dev = 0
        self.ino = 0
        self.is_link = is_link
        self.wd = NOT_WATCHED
        self.children = NO_FOLDERS
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
    def is_reached_by_link(self) -> bool:
        """Whether this folder, or one above it, is a symbolic link."""
        folder: Folder | None = self
        while folder is not None and not folder.is_link:
            folder = folder.parent
        return folder is not None

    @property
    def session(self) -> Folder | None:
        """The session folder that this folder is or lies in; None above sessions."""
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
        """Return the kind of a sub-folder of this name; None if the layout has no place for it."""
        if self.kind < Kind.SESSION:
            return grammar.child_kind(self.kind, self.name, name)
        collection = self.collection
        path = f"{collection}/{name}" if collection else name
        return Kind.COLLECTION if grammar.is_collection(path) else None

    def make_child(self, name: str, entry_ino: int, *, is_link: bool = False) -> Folder:
        """Make a sub-folder whose name a listing has shown; this does not add it to `children`."""
        # Below a session every folder that is listed is a collection: the scanner has looked at its whole path.
        kind = Kind.COLLECTION if self.kind >= Kind.SESSION else self.child_kind(name)
        assert kind is not None, f"{name!r} has no place below a {self.kind!r}"
        return Folder(name, kind, self, entry_ino, is_link=is_link)

    @classmethod
    def at(cls, path: str, *, is_reached_by_link: bool = False) -> Folder:
        """Make a folder at a path relative to the root, outside any tree. The path must be part of the layout."""
        folder = cls("", Kind.ROOT, None, NOT_LISTED, is_link=is_reached_by_link)
        for name in path.split("/") if path else ():
            folder = folder.make_child(name, NOT_LISTED)
        return folder

    def walk(self) -> Iterator[Folder]:
        """Yield this folder and all below it, each before its children, in the order of names."""
        stack = [self]
        while stack:
            folder = stack.pop()
            yield folder
            stack += [folder.children[name] for name in sorted(folder.children, reverse=True)]


def compose(folder: Folder) -> Session:
    """Make the frozen row of a session from its folder and all below it."""
    # As `walk`, but most folders have no sub-folders, and a generator costs as much as the rest: 4 us instead of 10.
    rows, stack = [], [folder]
    while stack:
        each = stack.pop()
        if each.rows is not None:
            rows.append(each.rows)
        if each.children:
            stack += [each.children[name] for name in sorted(each.children, reverse=True)]
    return Session(folder.path, tuple(rows), folder.is_reached_by_link, folder.entry_ino)


def patch_session(folder: Folder, rows: Mapping[str, FolderRows], known: Callable[[str], Session | None]) -> Session:
    """Make the row of a session from its known row and the rows that changed (collection -> rows), in less time."""
    old = known(folder.path)
    if old is None:
        return compose(folder)
    folders = tuple([rows.get(each.folder, each) for each in old.folders])
    return Session(old.path, folders, folder.is_reached_by_link, old.inode)
