"""Files with several names (hard links): an event tells only of one name, so that rows of the others may be stale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alfwatchd.tree.folder import Folder, Listing
from alfwatchd.tree.packed import inode_of, is_same_content, pack_inode
from alfwatchd.tree.rows import FolderRows


class HardLinks:
    """The files with several names that may have been written to. Owned by one thread."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self._seen: dict[bytes, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._seen)

    def note_listing(self, listing: Listing, *, is_news: bool) -> None:
        """Note the files in a listing that have several names; `is_news` says whether one may have been written to."""
        if listing.shared_inodes:
            shared = set(map(pack_inode, listing.shared_inodes))
            self._known |= shared
            if is_news:
                values = listing.packed.unpack().values()
                self._seen |= {inode_of(value): value for value in values if inode_of(value) in shared}

    def note_gone(self, old: FolderRows | None, new: FolderRows | None) -> None:
        """Note files that lost a name: a program may have written through that name before it went.

        Parameters
        ----------
        old, new : FolderRows or None
            Rows of a folder before and after; None if it had or has none.
        """
        if not self._known or old is None or old is new:
            return
        after = new.files if new is not None else {}
        for name, value in old.files.items():
            if inode_of(value) in self._known and inode_of(value) != inode_of(after.get(name, b"")):
                self._seen.setdefault(inode_of(value), b"")

    def inodes_among(self, values: Iterable[bytes]) -> set[bytes]:
        """Return the inodes in these row values that belong to files which have or had several names."""
        return self._known.intersection(map(inode_of, values))

    def take_stale(self, root: Folder) -> list[Folder]:
        """Return the folders with stale rows, and forget what was noted. Looks at every row below `root`."""
        seen, self._seen = self._seen, {}
        return [folder for folder in root.walk() if folder.rows is not None and _is_stale(folder.rows, seen)]


def _is_stale(rows: FolderRows, seen: Mapping[bytes, bytes]) -> bool:
    if seen.keys().isdisjoint(rows.packed.inodes()):
        return False
    return any(
        inode_of(value) in seen and not is_same_content(value, seen[inode_of(value)]) for value in rows.files.values()
    )
