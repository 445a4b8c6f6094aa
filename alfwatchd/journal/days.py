"""One small row for each day and lab: how many sessions arrived and went, and bytes. These are kept for ever.

A row is added when its day is over, or before the batches that it counts are removed. Rows of one day and lab add up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.files import add_lines, open_regular, open_regular_fd

NAME = "days.jsonl"


@dataclass(frozen=True, slots=True)
class DayRow:
    """What happened on one day in one lab.

    Parameters
    ----------
    day : str
        UTC, ISO 8601.
    lab : str
        Name of the lab folder; empty for sessions in none.
    arrived, removed : int
        Number of sessions.
    n_bytes : int
        How many bytes more the datasets have; negative for fewer.
    through : int
        Generation up to which this row counts.
    """

    day: str
    lab: str
    arrived: int = 0
    removed: int = 0
    n_bytes: int = 0
    through: int = 0


@dataclass(slots=True)
class DayCounts:
    """Sums by day and lab of batches for which no row was written yet."""

    rows: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def add(self, seen_at: str, labs: Mapping[str, Sequence[int]]) -> None:
        """Count what a batch changed; see `Head.labs`."""
        for lab, counts in labs.items():
            sums = self.rows.setdefault((seen_at[:10], lab), [0, 0, 0])
            for place, count in enumerate(counts):
                sums[place] += count

    def has_other_day(self, day: str) -> bool:
        """Tell whether a day other than this one was counted."""
        return any(each != day for each, _ in self.rows)

    def take(self, through: int) -> list[DayRow]:
        """Return the rows, which count up to a generation, and forget them."""
        rows = [
            DayRow(day, lab, came, went, n_bytes, through)
            for (day, lab), (came, went, n_bytes) in sorted(self.rows.items())
        ]
        self.rows = {}
        return rows


def read_rows(folder: Path) -> list[DayRow]:
    """Return the rows in a journal's folder; those that are damaged are left out."""
    return list(_read(folder / NAME))


def _read(path: Path) -> Iterator[DayRow]:
    with suppress(OSError), open_regular(path) as file:
        for line in file:
            with suppress(ValueError, TypeError):
                row = DayRow(**parse_json(line))
                if isinstance(row.through, int):
                    yield row


def add_rows(folder: Path, rows: Iterable[DayRow]) -> None:
    """Add rows.

    Raises
    ------
    OSError
        They could not be written.
    """
    content = b"".join(json.dumps(asdict(row), separators=(",", ":")).encode() + b"\n" for row in rows)
    if not content:
        return
    fd = open_regular_fd(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        add_lines(fd, content)
    finally:
        os.close(fd)
