"""Which folders may differ from the tables, and when each is due to be looked at. Time is passed in, in seconds."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class Mark:
    """Why and since when a folder is dirty.

    Parameters
    ----------
    first, last : float
        Times of the first and the last event, in seconds on the caller's clock.
    listing : bool
        Whether the whole folder must be listed again; otherwise looking at `names` is enough.
    names : set of str
        Files to look at.
    rewritten : set of str
        Files whose content changed, whatever their size and time say.
    """

    first: float
    last: float
    listing: bool = False
    names: set[str] = field(default_factory=set)
    rewritten: set[str] = field(default_factory=set)


class DirtySet(Generic[K]):
    """Dirty folders, each due once no event came for `settle` seconds or after `longest_wait` seconds.

    The settle time joins the events of one file being written into one look; the longest wait bounds how late the
    tables can be while a file is written without pause.
    """

    def __init__(self, settle: float, longest_wait: float) -> None:
        self.settle = settle
        self.longest_wait = longest_wait
        self._marks: dict[K, Mark] = {}

    def __len__(self) -> int:
        return len(self._marks)

    def __contains__(self, folder: K) -> bool:
        return folder in self._marks

    @property
    def oldest(self) -> float | None:
        """Time of the oldest event that nobody has looked at, or None."""
        return min((mark.first for mark in self._marks.values()), default=None)

    def mark(self, folder: K, now: float) -> Mark:
        """Mark a folder dirty now and return its mark, for the caller to say what to look at."""
        mark = self._marks.get(folder)
        if mark is None:
            mark = self._marks[folder] = Mark(now, now)
        mark.last = now
        return mark

    def mark_listing(self, folders: Iterable[K], now: float) -> None:
        """Mark folders to be listed again as a whole."""
        for folder in folders:
            self.mark(folder, now).listing = True

    def next_due(self) -> float | None:
        """Return the time at which the next folder is due, or None if none is dirty."""
        return min(map(self._due, self._marks.values()), default=None)

    def pop_due(self, now: float) -> list[tuple[K, Mark]]:
        """Remove and return the folders that are due, oldest first."""
        due = [folder for folder, mark in self._marks.items() if self._due(mark) <= now]
        return [(folder, self._marks.pop(folder)) for folder in due]

    def pop_all(self) -> list[tuple[K, Mark]]:
        """Remove and return all folders, due or not."""
        marks, self._marks = self._marks, {}
        return list(marks.items())

    def _due(self, mark: Mark) -> float:
        return min(mark.last + self.settle, mark.first + self.longest_wait)
