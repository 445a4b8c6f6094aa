"""What the change feed tells: sessions that changed, and that a reader must take the tables as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ChangeKind = Literal["added", "changed", "removed"]


@dataclass(frozen=True, slots=True)
class Change:
    """A session that changed. Paths are relative to the root; bytes in them that are not UTF-8 are shown as escapes.

    A session that was renamed is two changes: the old path is removed, the new path is added.
    """

    change: ChangeKind
    path: str
    """Of the session."""
    eid: str
    """Empty if it is not known, as of a session that is not on disk yet."""
    eid_before: str | None
    """Null unless the session had another eid before."""
    generation: int | None
    """Of the tables that show its latest state; null if the tables on disk do not show it yet."""
    seen_at: str
    """When the flush of that generation began, or, if there is none, when the change was seen: UTC, ISO 8601."""
    cursor: str
    """Place in the feed: a reader that goes on from here misses nothing behind this change."""
    renamed_from: str | None = None
    """Path before a rename; null if there was none."""
    renamed_to: str | None = None
    """Path after a rename; null if there was none."""
    n_added: int = 0
    n_changed: int = 0
    n_removed: int = 0
    """Number of datasets. One is changed if its size, md5 or id is another one."""
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    """Their rel_paths, together at most a hundred."""
    bytes_before: int = 0
    bytes_after: int = 0
    """Sum of the file sizes."""
    columns: list[str] = field(default_factory=list)
    """Columns of the tables that changed in another way than by files that came, went or changed their size."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """The feed cannot tell what changed: the reader must take the tables as a whole, and then go on at `cursor`.

    The place from which it read is too old, or of a journal that is lost. It has no `path`, so that a program which
    forgets it fails at once, instead of missing changes.
    """

    generation: int
    """The latest generation in the journal; the tables on disk are at least as new."""
    journal: str
    """Id of the journal. It is another one if the state folder was lost."""
    cursor: str
    """Where to read on."""


@dataclass(frozen=True, slots=True)
class ChangesReply:
    """Which sessions changed, the oldest change first, each once, with all that happened to it since the place asked.

    A session that came and went meanwhile is told as removed.
    """

    is_fresh: bool
    """Whether the feed cannot tell: the reader must take the tables as a whole, and then go on at `next`."""
    journal: str
    """Id of the journal. It is another one if the state folder was lost; empty if nothing was written yet."""
    generation: int
    """The latest generation in the journal; the tables on disk are at least as new."""
    next: str
    """Where to read on: the next `since`."""
    is_last: bool
    """Whether there was nothing behind these changes; if false, ask again at once."""
    changes: list[Change] = field(default_factory=list)
