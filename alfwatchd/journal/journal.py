"""Writes the journal: what each flush changed, and how far back it can tell."""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, takewhile
from pathlib import Path
from threading import Lock

from alfwatchd.journal import segments as files
from alfwatchd.journal.days import DayCounts, add_rows, read_rows
from alfwatchd.journal.entries import Batch, Cursor, count_labs
from alfwatchd.journal.pending import Pending
from alfwatchd.journal.reading import (
    NO_JOURNAL,
    Extent,
    Matches,
    Page,
    fresh_page,
    make_page,
    must_take_all,
    read_batches,
    read_heads,
)
from alfwatchd.journal.segments import FOLDER, Segment
from alfwatchd.tree.session_changes import SessionChange

_log = logging.getLogger(__name__)

MOST_AT_ONCE = 100_000
"""A flush that changes more sessions is told as a new beginning: readers take the tables as a whole."""
_MOST_IN_MEMORY = 20_000
"""How many changes the latest batches may hold, for readers that are only a little behind."""
_N_TRIES = 5


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a journal keeps, in seconds and in bytes."""

    seconds: float = 30 * 86400.0
    n_bytes: int = 256_000_000


class Feed:
    """The journal for readers in this process. Any thread may call these methods.

    Parameters
    ----------
    folder : Path
        Of the journal.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._extent = NO_JOURNAL
        self._latest: deque[Batch] = deque()
        self._latest_floor = 0
        self._n_latest = 0
        self._listeners: list[Callable[[], None]] = []
        self.pending = Pending()
        """What is not in the journal yet."""

    @property
    def extent(self) -> Extent:
        """What the journal covers."""
        with self._lock:
            return self._extent

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have a function called after each change of the journal, by the thread that changed it; it must not block.

        Returns
        -------
        callable
            Ends it.
        """
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._forget(listener)

    def _forget(self, listener: Callable[[], None]) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def publish(self, extent: Extent, batch: Batch | None) -> None:
        """Note what the journal covers now, and the batch that was added; None if it begins again."""
        with self._lock:
            self._extent = extent
            if batch is None:
                self._latest.clear()
                self._latest_floor, self._n_latest = extent.last, 0
            else:
                self._latest.append(batch)
                self._n_latest += len(batch.changes)
                while self._n_latest > _MOST_IN_MEMORY and self._latest:
                    oldest = self._latest.popleft()
                    self._latest_floor, self._n_latest = oldest.generation, self._n_latest - len(oldest.changes)
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def page(self, since: Cursor, limit: int, matches: Matches = lambda _: True, *, sums_up: bool = True) -> Page:
        """Return what changed since a place in the journal; see `reading.make_page`.

        Raises
        ------
        OSError
            The files of the journal cannot be read.
        """
        page = self.page_in_memory(since, limit, matches, sums_up=sums_up)
        for n_left in range(_N_TRIES if page is None else 0, 0, -1):  # a file can be replaced by a compressed one
            try:
                batches = read_batches(self._folder, since.generation, stops_at_gap=True)
                page = make_page(self.extent, since, batches, limit, matches, sums_up=sums_up)
                break
            except FileNotFoundError:
                if n_left == 1:
                    raise
        assert page is not None
        return page

    def page_in_memory(
        self, since: Cursor, limit: int, matches: Matches = lambda _: True, *, sums_up: bool = True
    ) -> Page | None:
        """Return the same without a look at files; None if files are needed."""
        with self._lock:
            extent, floor = self._extent, self._latest_floor
            newer = list(takewhile(lambda each: each.generation > since.generation, reversed(self._latest)))
        if must_take_all(extent, since):
            return fresh_page(extent)
        if since.generation < floor:
            return None
        return make_page(extent, since, reversed(newer), limit, matches, sums_up=sums_up)


class Journal:
    """What changed in each generation of the tables. One thread at a time; `feed` is for the others.

    Failures of the disk are logged and do no more harm than that the journal begins again: the tables come first.

    Parameters
    ----------
    state_dir : Path
    bounds : Bounds
    wall_clock : callable
        Seconds since 1970.
    """

    def __init__(self, state_dir: Path, bounds: Bounds, wall_clock: Callable[[], float] = time.time) -> None:
        self.folder = state_dir / FOLDER
        self.bounds = bounds
        self._clock = wall_clock
        self.feed = Feed(self.folder)
        self._days = DayCounts()
        self._segments: list[Segment] = []
        self._size = 0
        """Bytes of the last segment that are whole."""
        self._last = 0
        self._has_gap = True
        self.id = ""
        self._load()

    @property
    def last(self) -> int:
        """The latest generation that the journal tells of; 0 if it is empty."""
        return self._last

    @property
    def extent(self) -> Extent:
        """What it covers."""
        return Extent(self.id, self._segments[0].floor, self._last) if self._segments else NO_JOURNAL

    def follow(self, journal: str, generation: int) -> None:
        """Note which tables are on disk. If the journal does not lead up to these, it begins again with the next flush.

        Parameters
        ----------
        journal : str
            Id of the journal that they name; empty if they name none, or are no pair.
        generation : int
        """
        self._has_gap = not self._segments or (journal, generation) != (self.id, self._last)

    def record(self, generation: int, seen_at: datetime, changes: Sequence[SessionChange] | None) -> None:
        """Add what changed, after the tables of a generation are on disk.

        Parameters
        ----------
        generation : int
            Higher than all before, or, if nothing changed, the last one.
        seen_at : datetime
            When the flush began.
        changes : sequence of SessionChange or None
            None if it is not known what changed.
        """
        try:
            if self._has_gap or changes is None or len(changes) > MOST_AT_ONCE:
                self._begin(generation)
            elif generation != self._last:
                stamp = seen_at.astimezone(UTC).isoformat(timespec="milliseconds")
                self._add(Batch.of(generation, stamp, changes))
        except OSError as error:
            self._has_gap = True
            _log.warning("what changed is not in the journal, readers take the whole tables error=%s", error)

    def _begin(self, generation: int) -> None:
        """Begin again behind a generation: what changed before is forgotten, except for the rows of days."""
        old = self._segments
        if self._days.rows:
            self._seal(self._last)
        new = files.begin_segment(self.folder, self.id, generation)
        files.remove(each for each in old if each.path != new.path)
        self._segments, self._last, self._has_gap = [new], generation, False
        self._size = files.size_of(new)
        self.feed.publish(self.extent, None)

    def _add(self, batch: Batch) -> None:
        if self._days.has_other_day(batch.seen_at[:10]):
            self._seal(self._last)
            self._end_segment()
        elif self._size > files.FULL_BYTES:
            self._end_segment()
        self._size = files.append(self._segments[-1], batch, self._size)
        self._last = batch.generation
        self._days.add(batch.seen_at, count_labs(batch.changes))
        self.feed.publish(self.extent, batch)

    def _end_segment(self) -> None:
        """Compress the last file, begin another one, and remove what is too old or too much."""
        if self._segments[-1].floor == self._last:
            return  # it holds nothing yet
        self._segments[-1] = files.compress(self._segments[-1])
        self._segments.append(files.begin_segment(self.folder, self.id, self._last))
        self._size = files.size_of(self._segments[-1])
        sizes = [files.size_of(each) for each in self._segments]
        oldest = self._clock() - self.bounds.seconds
        n_removed = 0
        while n_removed < len(sizes) - 1 and (
            sum(sizes[n_removed:]) > self.bounds.n_bytes or self._segments[n_removed].path.stat().st_mtime < oldest
        ):
            n_removed += 1
        if n_removed:
            self._seal(self._last)
            files.remove(self._segments[:n_removed])
            del self._segments[:n_removed]

    def _seal(self, through: int) -> None:
        add_rows(self.folder, self._days.take(through))

    def _load(self) -> None:
        """Take over what earlier processes left: at most the last batch is torn, and is overwritten."""
        try:
            self._take_over()
        except OSError as error:
            _log.warning("the journal cannot be read and begins again error=%s", error)
            self._segments = []
        if not self._segments:
            self.id = secrets.token_hex(4)
        self.feed.publish(self.extent, None)

    def _take_over(self) -> None:
        found = files.list_segments(self.folder)
        self.id = (files.id_of(found[-1]) if found else None) or ""
        is_other = [not self.id or files.id_of(each) != self.id for each in found]
        n_other = max((number + 1 for number, other in enumerate(is_other) if other), default=0)
        files.remove(found[:n_other])
        found = found[n_other:]
        if not found:
            return
        self._last = found[0].floor
        counted = max((row.through for row in read_rows(self.folder)), default=0)
        for head in read_heads(self.folder, counted):
            self._days.add(head.seen_at, head.labs)
        for head in files.read_heads(found[-1]):
            self._last = head.generation
        last = found[-1]
        self._last = max(self._last, last.floor)
        if last.is_full:  # killed before the next file was begun
            found.append(files.begin_segment(self.folder, self.id, self._last))
        self._segments, self._size = found, files.whole_size(found[-1])


def read_days(folder: Path) -> list[tuple[str, str, int, int, int]]:
    """Return (day, lab, arrived, removed, bytes) of each day and lab, also of days that are not over."""
    rows = read_rows(folder)
    counted = max((row.through for row in rows), default=0)
    sums: dict[tuple[str, str], list[int]] = {}
    open_days = DayCounts()
    for head in read_heads(folder, counted):
        open_days.add(head.seen_at, head.labs)
    for row in chain(rows, open_days.take(0)):
        counts = sums.setdefault((row.day, row.lab), [0, 0, 0])
        for place, value in enumerate((row.arrived, row.removed, row.n_bytes)):
            counts[place] += value
    return [(day, lab, *counts) for (day, lab), counts in sorted(sums.items())]  # type: ignore[misc]
