"""One small row for each day and lab: how many sessions arrived and went, and bytes. These are kept for ever.

A row is added when its day is over, or before the batches that it counts are removed. Rows of one day and lab add up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.files import open_regular, open_regular_fd
from alfwatchd.journal.entries import Batch
from alfwatchd.tree.session_changes import SessionChange

NAME = "days.jsonl"
_SUBJECTS = "/Subjects/"


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

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        day = batch.seen_at[:10]
        for change in batch.changes:
            counts = self.rows.setdefault((day, lab_of(change)), [0, 0, 0])
            counts[0] += change.kind == "added" and not change.renamed_from
            counts[1] += change.kind == "removed" and not change.renamed_to
            counts[2] += change.n_bytes

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


def lab_of(change: SessionChange) -> str:
    """Return the name of the lab folder that a session is in; empty for none."""
    lab, subjects, _ = change.path.partition(_SUBJECTS)
    return lab if subjects else ""


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
        size = os.fstat(fd).st_size
        torn = size and os.pread(fd, 1, size - 1) != b"\n"  # a process was killed while it wrote
        os.write(fd, b"\n" + content if torn else content)
    finally:
        os.close(fd)
