"""What readers of the change feed are told: which sessions changed, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ChangeKind = Literal["added", "changed", "removed"]


@dataclass(frozen=True, slots=True)
class Change:
    """A session that changed: all that happened to it since the place from which the feed was read.

    A session that was renamed is two changes: the old path is removed, the new path is added.
    """

    change: ChangeKind
    path: str
    """Of the session, relative to the root."""
    eid: str
    eid_before: str | None
    """Null unless the session had another eid before."""
    generation: int | None
    """Of the tables that show its latest state; null if the tables on disk do not show it yet."""
    seen_at: str
    """When the flush of that generation began: UTC, ISO 8601."""
    cursor: str
    """Place in the feed: a reader that goes on from here is told neither this change nor those before it again."""
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
class ChangesReply:
    """Which sessions changed, the oldest change first, each once."""

    is_fresh: bool
    """Whether the feed cannot tell: the reader must take the whole tables, and then go on at `next`."""
    journal: str
    """Id of the journal. It is another one if the state folder was lost."""
    generation: int
    """The latest generation in the journal; the tables on disk are at least as new."""
    next: str
    """Where to read on: the next `since`."""
    changes: list[Change] = field(default_factory=list)
