"""Knows which watch descriptor of inotify stands for which folders."""

from __future__ import annotations

from collections.abc import Iterator

from alfwatchd.tree.folder import NOT_WATCHED, Folder


class Claims:
    """Watch descriptors and the folders that claim them; also kept in `Folder.wd`.

    One descriptor can stand for several folders: after a move the folder is known at two paths until both parents are
    listed, and with a bind mount it stays at both.
    """

    def __init__(self) -> None:
        self._by_wd: dict[int, tuple[Folder, ...]] = {}

    def __len__(self) -> int:
        return len(self._by_wd)

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_wd)

    def claim(self, folder: Folder, wd: int) -> int | None:
        """Note that `wd` watches `folder`. Return the descriptor that no folder claims any more, or None."""
        if folder.wd == wd:
            return None
        freed = self.unclaim(folder)
        folder.wd = wd
        self._by_wd[wd] = (*self._by_wd.get(wd, ()), folder)
        return freed

    def unclaim(self, folder: Folder) -> int | None:
        """Note that a folder is not watched. Return its descriptor if no other folder claims it, or None."""
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
        """Note that the kernel removed a watch. Return the folders that it stood for."""
        folders = self._by_wd.pop(wd, ())
        for folder in folders:
            folder.wd = NOT_WATCHED
        return folders

    def forget_all(self) -> None:
        """Note that all watches are gone, because their watcher was replaced."""
        for wd in list(self._by_wd):
            self.forget_watch(wd)
