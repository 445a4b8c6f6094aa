"""Finds the sessions that fit conditions."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alfwatchd.alf.patterns import DatasetPattern, short_name
from alfwatchd.alf.printable import printable
from alfwatchd.errors import AlfwatchdError
from alfwatchd.nearest import nearest
from alfwatchd.query.conditions import Conditions, fits, split_projects
from alfwatchd.query.tables import Tables, day_of
from alfwatchd.tables import arrow


class SessionRow(NamedTuple):
    """A session and what is here of it.

    Parameters
    ----------
    eid : str
    lab, subject : str
        The lab is empty if the table has none.
    date : datetime.date
    number : int
    task_protocol : str
    projects : list of str
    n_datasets : int
        Number of its datasets that are here.
    n_bytes : int
        Size of these datasets together.
    """

    eid: str
    lab: str
    subject: str
    date: datetime.date
    number: int
    task_protocol: str
    projects: list[str]
    n_datasets: int
    n_bytes: int

    @property
    def key(self) -> tuple[str, str, datetime.date, int]:
        """What sessions are sorted by."""
        return self.lab, self.subject, self.date, self.number


def find_sessions(tables: Tables, conditions: Conditions) -> list[SessionRow]:
    """Return the sessions that fit, by lab, subject, date and number.

    Raises
    ------
    AlfwatchdError
        A lab, a subject, a project or a dataset of `having` is in no row: the message suggests the nearest name.
    """
    chosen = np.flatnonzero(choose(tables, conditions))
    counts, sizes = tables.count(), tables.count_bytes()
    rows = tables.sessions.take(arrow.numbers(chosen, pa.int64())).to_pydict()
    found = [
        SessionRow(
            eid,
            lab or "",
            subject,
            day,
            number,
            protocol or "",
            split_projects(projects or ""),
            int(counts[row]),
            sizes[row],
        )
        for row, eid, lab, subject, day, number, protocol, projects in zip(
            chosen.tolist(), *(rows[name] for name in tables.sessions.column_names), strict=True
        )
    ]
    return sorted(found, key=lambda session: session.key)


def choose(tables: Tables, conditions: Conditions) -> npt.NDArray[np.bool_]:
    """Tell for each session whether it fits; raises as `find_sessions`."""
    chosen = np.ones(tables.n_sessions, np.bool_)
    for what, name, wanted in (
        ("lab", "lab", conditions.labs),
        ("subject", "subject", conditions.subjects),
        ("project", "projects", conditions.projects),
    ):
        if wanted:
            chosen &= _named(tables, what, name, wanted)
    days = tables.days
    if conditions.dates.first:
        chosen &= days >= day_of(conditions.dates.first)
    if conditions.dates.last:
        chosen &= days <= day_of(conditions.dates.last)
    if conditions.numbers:
        chosen &= np.isin(tables.numbers, conditions.numbers)
    for pattern in conditions.having:
        has = tables.having(pattern.matches)
        if not has.any():
            raise AlfwatchdError(unknown_dataset(tables, pattern))
        chosen &= has
    for pattern in conditions.lacking:
        chosen &= ~tables.having(pattern.matches)
    return chosen


def unknown_dataset(tables: Tables, pattern: DatasetPattern) -> str:
    """Return the message for a pattern that matches no dataset of the tables."""
    name = nearest(pattern.text, set(map(short_name, tables.rel_paths[1])))
    hint = f"did you mean {printable(name)}?" if name else "`alfwatchd ls EID_OR_PATH` lists the datasets of a session"
    return f"no dataset matches {pattern.text!r}; {hint}"


def _named(tables: Tables, what: str, column: str, wanted: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Tell for each session whether one of the names in a column is wanted."""
    codes, texts = arrow.encode_texts(tables.sessions, column)
    names_of = [split_projects(text) if what == "project" else [text] for text in texts.to_pylist()]
    for each in wanted:
        if not any(fits(name, each) for names in names_of for name in names):
            known = {name for names in names_of for name in names if name}
            near = nearest(each, known)
            hint = f"did you mean {near!r}?" if near else _list(what, known)
            raise AlfwatchdError(f"no session has the {what} {each!r}; {hint}")
    fitting = [any(fits(name, each) for name in names for each in wanted) for names in names_of]
    return np.array([*fitting, False], np.bool_)[codes]


_MOST_NAMES = 10


def _list(what: str, known: set[str]) -> str:
    if not known:
        return f"no session has a {what}"
    if len(known) <= _MOST_NAMES:
        return f"there are: {', '.join(sorted(map(printable, known)))}"
    return "`alfwatchd report` lists labs and subjects" if what != "project" else "`alfwatchd ls --json` shows projects"
