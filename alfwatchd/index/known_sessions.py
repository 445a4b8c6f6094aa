"""Which sessions should be on disk, as far as the tables tell."""

from __future__ import annotations

from collections.abc import Callable, Collection

from alfwatchd.tree.known_sample import KnownSession, sample
from alfwatchd.tree.sessions import Tables
from alfwatchd.tree.tree import Tree


class KnownSessions:
    """The sessions that should be on disk, for the guard.

    Parameters
    ----------
    tables : Tables
    tree : Tree
    """

    def __init__(self, tables: Tables, tree: Tree) -> None:
        self._earlier: Collection[KnownSession] = ()
        self._tables = tables
        self._tree = tree

    def expect(self, earlier: Collection[KnownSession]) -> None:
        """Set the sessions of earlier tables, which count until the first scan is over."""
        self._earlier = earlier

    def take_earlier(self) -> Collection[KnownSession]:
        """Return the sessions of earlier tables, and forget them: what the first scan has found counts from now on."""
        earlier, self._earlier = self._earlier, ()
        return earlier

    def is_empty(self) -> bool:
        """Tell whether none is known."""
        return not (self._earlier or self._tables.counts.n_sessions)

    def sample(self, belongs: Callable[[str], bool]) -> list[KnownSession]:
        """Return some of those whose path fits."""
        if self._earlier:
            return sample(each for each in self._earlier if any(map(belongs, each.spellings)))
        found = sample(KnownSession((path,)) for path in self._tables.paths() if belongs(path))
        return [KnownSession(each.spellings, self._inode(each.spellings[0])) for each in found]

    def inodes(self) -> dict[str, int]:
        """Return session path -> inode of those that are worth remembering."""
        return {each.spellings[0]: each.ino for each in self.sample(lambda _: True) if each.ino}

    def _inode(self, path: str) -> int:
        folder = self._tree.find(path)
        return folder.ino or folder.entry_ino if folder is not None and not folder.is_link else 0
