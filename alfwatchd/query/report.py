"""Counts what each lab and each subject has, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from alfwatchd.alf.patterns import DatasetPattern
from alfwatchd.query.conditions import Conditions
from alfwatchd.query.sessions import choose
from alfwatchd.query.tables import Tables, date_of
from alfwatchd.tables import arrow


@dataclass(frozen=True, slots=True)
class ReportRow:
    """What some sessions have together.

    Parameters
    ----------
    lab : str or None
        None for the sessions of all labs.
    subject : str or None
        None for those of all subjects.
    n_sessions, n_datasets, n_bytes : int
        Datasets that are here.
    first, last : datetime.date or None
        Days of the first and the last session; None without sessions.
    missing : dict of str to int
        Each required dataset -> number of sessions that lack it.
    n_incomplete : int
        Number of sessions that lack at least one of them.
    """

    lab: str | None
    subject: str | None
    n_sessions: int
    n_datasets: int
    n_bytes: int
    first: date | None
    last: date | None
    missing: dict[str, int]
    n_incomplete: int


@dataclass(frozen=True, slots=True)
class Report:
    """The tables in numbers.

    Parameters
    ----------
    generation : int
        Of the tables; 0 if another program wrote them.
    required : list of str
    total : ReportRow
    labs, subjects : list of ReportRow
        By name.
    """

    generation: int
    required: list[str]
    total: ReportRow
    labs: list[ReportRow]
    subjects: list[ReportRow]


def make_report(tables: Tables, conditions: Conditions, required: Sequence[DatasetPattern]) -> Report:
    """Count what the sessions that fit have.

    Parameters
    ----------
    tables : Tables
    conditions : Conditions
    required : sequence of DatasetPattern
        What each session should have.

    Raises
    ------
    AlfwatchdError
        As `find_sessions`.
    """
    chosen = np.flatnonzero(choose(tables, conditions))
    columns = tables.sessions.select(["lab", "subject"]).take(arrow.numbers(chosen, pa.int64())).to_pydict()
    names = [(lab or "", subject) for lab, subject in zip(columns["lab"], columns["subject"], strict=True)]
    counts = _Counts(
        required=[pattern.text for pattern in required],
        n_datasets=tables.count()[chosen].tolist(),
        n_bytes=np.array(tables.count_bytes(), object)[chosen].tolist(),
        days=tables.days[chosen].tolist(),
        lacks=[(~tables.having(pattern.matches))[chosen].tolist() for pattern in required],
    )
    by_lab: dict[str, list[int]] = {}
    by_subject: dict[tuple[str, str], list[int]] = {}
    for row, (lab, subject) in enumerate(names):
        by_lab.setdefault(lab, []).append(row)
        by_subject.setdefault((lab, subject), []).append(row)
    return Report(
        tables.generation,
        counts.required,
        counts.of(None, None, range(len(names))),
        [counts.of(lab, None, rows) for lab, rows in sorted(by_lab.items())],
        [counts.of(lab, subject, rows) for (lab, subject), rows in sorted(by_subject.items())],
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """What each session has, in one order."""

    required: list[str]
    n_datasets: list[int]
    n_bytes: list[int]
    days: list[int]
    lacks: list[list[bool]]

    def of(self, lab: str | None, subject: str | None, rows: Sequence[int]) -> ReportRow:
        """Add up some sessions."""
        days = [self.days[row] for row in rows]
        return ReportRow(
            lab,
            subject,
            len(rows),
            sum(self.n_datasets[row] for row in rows),
            sum(self.n_bytes[row] for row in rows),
            date_of(min(days)) if days else None,
            date_of(max(days)) if days else None,
            {text: sum(lacks[row] for row in rows) for text, lacks in zip(self.required, self.lacks, strict=True)},
            sum(any(lacks[row] for lacks in self.lacks) for row in rows),
        )
