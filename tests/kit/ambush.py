"""Ambushes: a test changes the disk at a chosen moment while the engine looks at a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from alfwatchd.errors import WatchError
from alfwatchd.index.indexer import Indexer
from alfwatchd.tree.folder import Folder
from alfwatchd.watch.watcher import Watcher

POINTS = ("before opening", "before a new watch", "before listing", "after listing", "after applying")
"""Moments within one look at a folder at which an ambush can change the disk."""


class Box(Protocol):
    """What an ambush needs of the box of an engine."""

    root: Path
    ambushes: dict[str, list[Callable[[str], object]]]
    refuse: Callable[[int], WatchError | None]

    def spring(self, point: str, path: str) -> None:
        """Run what waits for this moment of a look at a folder."""


class AmbushedWatcher(Watcher):
    """A watcher whose new watches the box may refuse, and at which it springs its ambushes."""

    box: Box

    def add(self, fd: int) -> int:
        path = os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), self.box.root)
        if self.box.ambushes["before a new watch"] and os.fstat(fd).st_ino not in self.watched_inodes().values():
            self.box.spring("before a new watch", path)
        refusal = self.box.refuse(fd)
        if refusal is not None:
            raise refusal
        wd = super().add(fd)
        self.box.spring("before listing", path)
        return wd


def ambush(indexer: Indexer, box: Box) -> Indexer:
    """Have the indexer call `box.spring` during each look at a folder; nothing else changes."""
    is_attached, apply = indexer.tree.is_attached, indexer.tree.apply

    def spied_is_attached(folder: Folder) -> bool:
        box.spring("before opening", folder.path)
        return is_attached(folder)

    def spied_apply(folder: Folder, *arguments: Any) -> Any:
        box.spring("after listing", folder.path)
        result = apply(folder, *arguments)
        box.spring("after applying", folder.path)
        return result

    indexer.tree.is_attached = spied_is_attached  # type: ignore[method-assign]
    indexer.tree.apply = spied_apply  # type: ignore[method-assign]
    return indexer
