"""Reads a journal from a place in it: which sessions changed since then, each once, with its latest state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from alfwatchd.journal.entries import Batch, Cursor, Head, merge
from alfwatchd.journal.segments import Segment, list_segments, read_segment
from alfwatchd.journal.segments import read_heads as segments_heads
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
        All that happened to it since the place from which the journal was read; on a page of single changes, only what
        happened in this generation.
    cursor : Cursor
        A reader that goes on from here misses nothing behind this change. If a session further down the page had
        changed before it as well, the reader is told some changes again; not on a page of single changes.
    is_new : bool
        Whether the session was not there at first, although it may be told as removed.
    """

    generation: int
    seen_at: str
    change: SessionChange
    cursor: Cursor
    is_new: bool = False


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


def make_page(
    extent: Extent,
    since: Cursor,
    batches: Iterable[Batch],
    limit: int,
    matches: Matches,
    *,
    sums_up: bool = True,
) -> Page:
    """Make a page of batches.

    Parameters
    ----------
    extent : Extent
    since : Cursor
    batches : iterable of Batch
        At least all of later generations than that of `since`; they are read as far as needed.
    limit : int
        Most sessions on the page, or most changes.
    matches : callable
        Tells which changes are wanted.
    sums_up : bool
        Whether a session is told once, with all that happened to it, or each change on its own.
    """
    if must_take_all(extent, since):
        return fresh_page(extent)
    told: dict[object, Told] = {}
    place, end = Cursor(extent.journal, since.generation), Cursor(extent.journal, extent.last)
    for batch in batches:
        if batch.generation <= since.generation:
            continue
        if batch.generation > extent.last:
            break  # added meanwhile
        n_skipped = since.n_told if place.generation == since.generation else 0
        for number, change in enumerate(batch.changes[n_skipped:], n_skipped):
            here = Cursor(extent.journal, place.generation, number)
            key = change.path if sums_up else here
            if matches(change) and not _take(told, key, Told(batch.generation, batch.seen_at, change, here), limit):
                return Page(False, extent.journal, extent.last, here, _with_cursors(told, here))  # noqa: FBT003 - a field
        place = Cursor(extent.journal, batch.generation)
    if place.generation != extent.last:
        return fresh_page(extent)  # a file is damaged, and what it held is not known
    return Page(False, extent.journal, extent.last, end, _with_cursors(told, end))  # noqa: FBT003


def must_take_all(extent: Extent, since: Cursor) -> bool:
    """Tell whether the journal does not cover what happened since a place."""
    is_other = since.journal not in ("", extent.journal) or not extent.journal
    return is_other or not extent.floor <= since.generation <= extent.last


def fresh_page(extent: Extent) -> Page:
    """Return the page of a reader that must take the tables as a whole."""
    return Page(True, extent.journal, extent.last, Cursor(extent.journal, extent.last))  # noqa: FBT003 - a field


def _take(told: dict[object, Told], key: object, new: Told, limit: int) -> bool:
    """Add a change behind the others; False if it is of one session too many. `cursor` is the place before it yet.

    A session that came and went is told as removed, for readers that stopped in between, and go on before it came.
    """
    before = told.get(key)
    if before is None:
        if len(told) >= limit:
            return False
        told[key] = new
        return True
    del told[key]  # what changed last stands last
    has_come_and_gone = before.is_new and before.change.kind == "removed"
    merged = merge(before.change, new.change) if not has_come_and_gone else None
    is_new = before.is_new or before.change.kind == "added"
    told[key] = Told(new.generation, new.seen_at, merged if merged is not None else new.change, before.cursor, is_new)
    return True


def _with_cursors(told: dict[object, Told], end: Cursor) -> tuple[Told, ...]:
    """Return changes, each with the place behind it instead of the one before it."""
    found = []
    for each in reversed(told.values()):
        found.append(replace(each, cursor=end))
        end = min(end, each.cursor)
    return tuple(reversed(found))


def read_batches(folder: Path, after: int, *, stops_at_gap: bool = False) -> Iterator[Batch]:
    """Yield the batches of later generations than `after`, the oldest first.

    Parameters
    ----------
    folder : Path
    after : int
    stops_at_gap : bool
        Whether to stop behind a file that is damaged, so that it does not lead to the next one.

    Raises
    ------
    OSError
        A file was replaced or removed meanwhile.
    """
    reached = after
    for segment in _with_later(folder, after):
        if stops_at_gap and segment.floor > reached:
            return
        for found in read_segment(segment, after):
            if isinstance(found, Batch):
                reached = found.generation
                yield found


def read_heads(folder: Path, after: int) -> Iterator[Head]:
    """Yield the heads of the batches that `read_batches` yields, in a fraction of the time; raises as that."""
    for segment in _with_later(folder, after):
        yield from segments_heads(segment, after)


def _with_later(folder: Path, after: int) -> list[Segment]:
    """Return the files that may hold later generations."""
    segments = list_segments(folder)
    ends = [each.floor for each in segments[1:]]
    return [each for each, end in zip(segments, [*ends, None], strict=True) if end is None or end > after]
