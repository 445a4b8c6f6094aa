"""Files with several names (hard links): an event tells only of the name that was used, the other rows may be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alfwatchd.tree.folder import Folder, Listing
from alfwatchd.tree.packed import inode_of, is_same_content, pack_inode
from alfwatchd.tree.rows import FolderRows


class HardLinks:
    """Inodes that may have been written to, until the folders with their other names are found. Owned by one thread."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self._seen: dict[bytes, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._seen)

    def note_listing(self, listing: Listing, *, is_news: bool) -> None:
        """Note the files in a listing that have other names, too; `is_news` where one may have been written to."""
        if listing.shared_inodes:
            shared = set(map(pack_inode, listing.shared_inodes))
            self._known |= shared
            if is_news:
                values = listing.packed.unpack().values()
                self._seen |= {inode_of(value): value for value in values if inode_of(value) in shared}

    def note_gone(self, old: FolderRows | None, new: FolderRows | None) -> None:
        """Note files that lost a name: nobody has seen what was written through it at last.

        Parameters
        ----------
        old, new : FolderRows or None
            Rows of a folder before and after.
        """
        if not self._known or old is None or old is new:
            return
        after = new.files if new is not None else {}
        for name, value in old.files.items():
            if inode_of(value) in self._known and inode_of(value) != inode_of(after.get(name, b"")):
                self._seen.setdefault(inode_of(value), b"")

    def inodes_among(self, values: Iterable[bytes]) -> set[bytes]:
        """Return the inodes, in these row values, of files that have or had several names."""
        return self._known.intersection(map(inode_of, values))

    def take_stale(self, root: Folder) -> list[Folder]:
        """Return the folders with rows that tell something else than was seen, and forget; looks at every row."""
        seen, self._seen = self._seen, {}
        return [folder for folder in root.walk() if folder.rows is not None and _is_stale(folder.rows, seen)]


def _is_stale(rows: FolderRows, seen: Mapping[bytes, bytes]) -> bool:
    if seen.keys().isdisjoint(rows.packed.inodes()):
        return False
    return any(
        inode_of(value) in seen and not is_same_content(value, seen[inode_of(value)]) for value in rows.files.values()
    )
