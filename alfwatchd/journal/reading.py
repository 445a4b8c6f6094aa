"""Reads a journal from a place in it: which sessions changed since then, each once, with its latest state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from alfwatchd.journal.entries import Batch, Cursor, merge
from alfwatchd.journal.segments import list_segments, read_segment
from alfwatchd.tree.session_changes import SessionChange

MOST_CHANGES = 10_000
"""Most sessions in one page."""

Matches = Callable[[SessionChange], bool]


class Extent(NamedTuple):
    """What a journal covers: the changes behind `floor`, up to `last`."""

    journal: str
    floor: int
    last: int


NO_JOURNAL = Extent("", 0, 0)


@dataclass(frozen=True, slots=True)
class Told:
    """One changed session.

    Parameters
    ----------
    generation : int
        Of the tables that show its latest state.
    seen_at : str
        When the flush of that generation began: UTC, ISO 8601.
    change : SessionChange
        All that happened to it since the place from which the journal was read.
    """

    generation: int
    seen_at: str
    change: SessionChange


@dataclass(frozen=True, slots=True)
class Page:
    """What changed since a place in the journal.

    Parameters
    ----------
    is_fresh : bool
        Whether the journal cannot tell: the reader must take the tables as a whole.
    journal : str
        Id of the journal.
    generation : int
        The latest in the journal; the tables on disk are at least as new.
    next : Cursor
        Where to read on.
    told : tuple of Told
        The oldest first.
    """

    is_fresh: bool
    journal: str
    generation: int
    next: Cursor
    told: tuple[Told, ...] = ()

    @property
    def is_last(self) -> bool:
        """Whether there is nothing behind this page yet."""
        return self.next.generation == self.generation


def make_page(extent: Extent, since: Cursor, batches: Iterable[Batch], limit: int, matches: Matches) -> Page:
    """Make a page of batches.

    Parameters
    ----------
    extent : Extent
    since : Cursor
    batches : iterable of Batch
        At least all of later generations than that of `since`; they are read as far as needed.
    limit : int
        Most sessions on the page.
    matches : callable
        Tells which changes are wanted.
    """
    if must_take_all(extent, since):
        return fresh_page(extent)
    told: dict[str, Told] = {}
    place = Cursor(extent.journal, since.generation)
    for batch in batches:
        if batch.generation <= since.generation:
            continue
        if batch.generation > extent.last:
            break  # added meanwhile
        n_skipped = since.n_told if place.generation == since.generation else 0
        for number, change in enumerate(batch.changes[n_skipped:], n_skipped):
            if matches(change) and not _take(told, Told(batch.generation, batch.seen_at, change), limit):
                here = Cursor(extent.journal, place.generation, number)
                return Page(False, extent.journal, extent.last, here, tuple(told.values()))  # noqa: FBT003 - a field
        place = Cursor(extent.journal, batch.generation)
    return Page(False, extent.journal, extent.last, Cursor(extent.journal, extent.last), tuple(told.values()))  # noqa: FBT003


def must_take_all(extent: Extent, since: Cursor) -> bool:
    """Tell whether the journal does not cover what happened since a place."""
    is_other = since.journal not in ("", extent.journal) or not extent.journal
    return is_other or not extent.floor <= since.generation <= extent.last


def fresh_page(extent: Extent) -> Page:
    """Return the page of a reader that must take the tables as a whole."""
    return Page(True, extent.journal, extent.last, Cursor(extent.journal, extent.last))  # noqa: FBT003 - a field


def _take(told: dict[str, Told], new: Told, limit: int) -> bool:
    """Add a change behind the others; False if it is of one session too many."""
    path = new.change.path
    before = told.get(path)
    if before is None:
        if len(told) >= limit:
            return False
        told[path] = new
        return True
    del told[path]  # what changed last stands last
    merged = merge(before.change, new.change)
    if merged is not None:
        told[path] = Told(new.generation, new.seen_at, merged)
    return True


def read_extent(folder: Path) -> Extent:
    """Return what the journal in a folder covers, from its files; `NO_JOURNAL` if there is none."""
    segments = list_segments(folder)
    if not segments:
        return NO_JOURNAL
    try:
        journal, *batches = read_segment(segments[-1])
    except (OSError, ValueError):
        return NO_JOURNAL
    last = batches[-1].generation if batches and isinstance(batches[-1], Batch) else segments[-1].floor
    return Extent(str(journal), segments[0].floor, last)


def read_batches(folder: Path, after: int) -> Iterator[Batch]:
    """Yield the batches of later generations than `after`, the oldest first.

    Raises
    ------
    OSError
        A file was replaced or removed meanwhile.
    """
    segments = list_segments(folder)
    for number, segment in enumerate(segments):
        if number + 1 < len(segments) and segments[number + 1].floor <= after:
            continue
        for found in read_segment(segment, after):
            if isinstance(found, Batch):
                yield found
