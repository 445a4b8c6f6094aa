"""Reads all records of an endpoint of Alyx, each at least once, though a page holds only some of them.

Alyx sorts sessions by their start time and by nothing else, and datasets by nothing. PostgreSQL may order equal ones in
another way for each page, so that some records are on two pages and others on none. A part that fits on one page has no
such gap: so what does not fit is divided, by date and then by id, until each part does.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, TypeAlias

Record: TypeAlias = dict[str, Any]
Ask: TypeAlias = Callable[[str], tuple[list[Record], int]]
"""Given a query, as ``limit=1000&offset=0``, returns the records of this page, and how many all its pages have."""

PAGE_ROWS = 1000
"""The most that Alyx gives at once."""
_SHARES = (1.0, 0.91, 0.83, 0.73, 0.61, 0.53, 0.47, 0.37)
"""Of the largest page: with pages of another size, other records fall into the gaps."""
_LAST_ID = (1 << 128) - 1


class Unsteady(Exception):
    """Records went, or moved from one part to another, while they were read: begin again."""


class Hidden(Exception):
    """Alyx says that there are more records than it shows."""


@dataclass(frozen=True, slots=True)
class Part:
    """Records between two dates and two ids, both included.

    Parameters
    ----------
    first, last : date or None
        Of the start of sessions; None for all records, also those without a date.
    low, high : int
        Ids as numbers.
    """

    first: date | None = None
    last: date | None = None
    low: int = 0
    high: int = _LAST_ID

    @property
    def query(self) -> str:
        """What asks Alyx for these records: both filters are its own."""
        asked = []
        if self.first is not None and self.last is not None:
            asked.append(f"date_range={self.first.isoformat()},{self.last.isoformat()}&")
        if (self.low, self.high) != (0, _LAST_ID):
            asked.append(f"django=id__gte,{uuid.UUID(int=self.low)},id__lte,{uuid.UUID(int=self.high)}&")
        return "".join(asked)

    def halves(self) -> tuple[Part, Part]:
        """Divide by date; a single day, and what has no dates, by id."""
        if self.first is not None and self.last is not None and self.first < self.last:
            middle = date.fromordinal((self.first.toordinal() + self.last.toordinal()) // 2)
            return replace(self, last=middle), replace(self, first=date.fromordinal(middle.toordinal() + 1))
        between = (self.low + self.high) // 2
        return replace(self, high=between), replace(self, low=between + 1)

    def __str__(self) -> str:
        return f" of {self.first}" if self.first is not None and self.first == self.last else ""


ALL_DATES = Part(date.min, date.max)


def read_sessions(ask: Ask) -> Iterator[list[Record]]:
    """Yield all sessions that have a date, some at a time.

    Raises
    ------
    Unsteady, Hidden
    """
    records, count = ask(f"limit={PAGE_ROWS}&offset=0")
    if len(records) >= count:
        yield records
    else:
        yield from _read(ask, ALL_DATES)


def read_datasets(ask: Ask) -> Iterator[list[Record]]:
    """Yield all datasets, some at a time; some may come twice.

    In pages they are complete as long as PostgreSQL happens to group them by id, as it does; this is found out.

    Raises
    ------
    Unsteady, Hidden
    """
    found: set[str] = set()
    n_told = 0
    for records, count in _pages(ask, Part(), PAGE_ROWS):
        found |= {_name(record) for record in records}
        n_told = count
        yield records
    if len(found) < n_told:
        yield from _read(ask, Part())


def _read(ask: Ask, part: Part) -> Iterator[list[Record]]:
    records, count = ask(f"{part.query}limit={PAGE_ROWS}&offset=0")
    if len(records) >= count:
        yield records
    else:
        yield from _read_divided(ask, part, count)


def _read_divided(ask: Ask, part: Part, count: int) -> Iterator[list[Record]]:
    """Yield the records of a part of which one page shows only some."""
    halves = part.halves()
    answers = [ask(f"{half.query}limit={PAGE_ROWS}&offset=0") for half in halves]
    counts = [n_records for _, n_records in answers]
    if counts == [count, count]:  # Alyx does not know the filter
        yield _read_pages(ask, part)
        return
    if sum(counts) < count:
        raise Unsteady
    for half, (records, n_records) in zip(halves, answers, strict=True):
        if len(records) >= n_records:
            yield records
        else:
            yield from _read_divided(ask, half, n_records)


def _read_pages(ask: Ask, part: Part) -> list[Record]:
    """Return all records of a part that cannot be divided, from pages of several sizes."""
    found: dict[str, Record] = {}
    most_rows, before = PAGE_ROWS, 0
    for share in _SHARES:
        n_largest = count = 0
        for records, count in _pages(ask, part, max(1, int(share * most_rows))):
            if before not in (0, count):
                found.clear()  # what was found may be gone
            before, n_largest = count, max(n_largest, len(records))
            found |= {_name(record): record for record in records}
        if len(found) >= count:
            return [*found.values()]
        most_rows = min(most_rows, n_largest) if share == 1.0 else most_rows
    raise Hidden(f"{part}: Alyx has {before} and shows {len(found)} on its pages, which are in no lasting order")


def _pages(ask: Ask, part: Part, rows: int) -> Iterator[tuple[list[Record], int]]:
    """Yield the records of each page, and how many there are on all of them, as told with it."""
    offset, count = 0, 1
    while offset < count:
        before = count
        records, count = ask(f"{part.query}limit={rows}&offset={offset}")
        if offset and count < before:  # another record may have slipped through between the two pages
            raise Unsteady
        yield records, count
        if not records:
            return
        offset += len(records)


def _name(record: Record) -> str:
    return str(record.get("id") or record["url"])
