"""The messages of the watcher: look there, or events were lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class FolderEvents:
    """What happened in one watched folder.

    Parameters
    ----------
    names : set of str
        Files that came, went or changed.
    rewritten : set of str
        Those whose content was written to.
    listing : bool
        Whether sub-folders or the folder itself came, went or moved.
    attributes : set of str
        Those for which events told only that attributes changed: mode, owner, times.
    gone : set of str
        Sub-folders that were removed or moved away.
    """

    names: set[str] = field(default_factory=set)
    rewritten: set[str] = field(default_factory=set)
    listing: bool = False
    attributes: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class PathsChanged:
    """File-system events, joined per watch descriptor. Messages come in the order of the kernel's queue."""

    folders: Mapping[int, FolderEvents]
    cookies: tuple[str, ...] = ()
    """Names of sync cookies: all events before them are in this message or in earlier ones."""
    unwatched: tuple[int, ...] = ()
    """Descriptors whose watch the kernel removed."""
    n_events: int = 0
    """Number of events about folders that were joined."""


@dataclass(frozen=True, slots=True)
class EventsLost:
    """Events are missing, so any folder may differ from the tables."""

    reason: str
    reader_alive: bool = True


@dataclass(frozen=True, slots=True)
class EventsRead:
    """File-system events as the kernel told them; `parse` makes messages of them, in the engine's thread.

    The reader only reads: while it took events apart itself, it shared the interpreter with the engine for so long that
    a burst of 90,000 files per second overflowed the kernel's queue.
    """

    buffer: bytes
    parse: Callable[[bytes], list[PathsChanged | EventsLost]]
