"""Finds one session, and lists its datasets."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from alfwatchd.alf import grammar
from alfwatchd.alf.printable import printable
from alfwatchd.errors import AlfwatchdError, UsageError
from alfwatchd.query.conditions import Conditions
from alfwatchd.query.sessions import SessionRow, find_sessions
from alfwatchd.query.tables import Tables


class DatasetRow(NamedTuple):
    """A dataset of a session; the names are those of the table.

    Parameters
    ----------
    rel_path : str
    file_size : int or None
        Bytes.
    hash : str or None
        md5, None if it is not known.
    exists : bool
        Whether the file is here.
    qc : str or int or None
    default_revision : bool or None
    id : str or None
    """

    rel_path: str
    file_size: int | None
    hash: str | None
    exists: bool
    qc: str | int | None
    default_revision: bool | None
    id: str | None


def list_datasets(tables: Tables, session: SessionRow, below: str = "") -> list[DatasetRow]:
    """Return the datasets of a session by their paths, also those that are not here.

    Parameters
    ----------
    tables : Tables
    session : SessionRow
    below : str
        A dataset, or a folder of the session to which the list is limited; empty for all.

    Raises
    ------
    AlfwatchdError
        The session has no dataset below `below`.
    """
    datasets = [_make_row(row) for row in tables.datasets_of(session.eid, DatasetRow._fields)]
    if below:
        datasets = [each for each in datasets if f"{each.rel_path}/".startswith(f"{below}/")]
        if not datasets:
            raise AlfwatchdError(
                f"{printable(below)}: the session has no such dataset, and none in a folder of this name"
            )
    return sorted(datasets, key=lambda each: each.rel_path)


def _make_row(row: dict[str, Any]) -> DatasetRow:
    """Return a row of any table; other programs write numbers as fractions, and NaN for what is not known."""
    values: dict[str, Any] = {
        name: None if isinstance(value := row.get(name), float) and not math.isfinite(value) else value
        for name in DatasetRow._fields
    }
    values["exists"] = bool(row.get("exists", True))
    if values["file_size"] is not None:
        values["file_size"] = int(values["file_size"])
    return DatasetRow(**values)


def find_session(tables: Tables, text: str, others: Iterable[str] = ()) -> tuple[SessionRow, str]:
    """Return the session that a text names, and what a path has behind the session.

    Parameters
    ----------
    tables : Tables
    text : str
        An eid, or a path relative to the root. ``lab/subject/date/number`` counts, too.
    others : iterable of str
        The same path as it may be meant, too: relative to the root, where `text` is relative to another folder.

    Raises
    ------
    UsageError
        The text is empty.
    AlfwatchdError
        There is no such session, or there are several.
    """
    if not text.strip():
        raise UsageError("the path or eid of the session is empty; is a variable not set?")
    sessions = find_sessions(tables, Conditions())
    try:
        eid = str(uuid.UUID(text))
    except ValueError:
        return _find_by_path(sessions, text, others)
    if found := next((session for session in sessions if session.eid == eid), None):
        return found, ""
    raise AlfwatchdError(f"{text}: no session has this eid; `alfwatchd ids {text}` shows whether the eid has changed")


def _find_by_path(sessions: Sequence[SessionRow], text: str, others: Iterable[str]) -> tuple[SessionRow, str]:
    for key, below in (each for path in (text, *others) for each in _keys(path)):
        found = [
            session
            for session in sessions
            if (session.subject, session.date, session.number) == (key.subject, key.date, key.number)
            and key.lab in ("", session.lab)
        ]
        if len(found) > 1:
            labs = " and ".join(session.lab or "no lab" for session in found)
            raise AlfwatchdError(f"{printable(text)}: several sessions have this path, of {labs}; give the eid of one")
        if found:
            return found[0], below
    raise AlfwatchdError(
        f"{printable(text)}: the tables have no session of this path; give it relative to the root, as "
        "lab/Subjects/subject/date/number, or give the eid. --subject NAME lists the sessions of a subject"
    )


def _keys(path: str) -> Iterator[tuple[grammar.SessionKey, str]]:
    """Yield what sessions a path may lead to, each with what is behind it."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    spellings = {5: parts[:5], 4: [*parts[:1], "Subjects", *parts[1:4]], 3: parts[:3]}
    for n_parts, spelling in spellings.items():
        if len(parts) >= n_parts and (key := grammar.parse_session("/".join(spelling))):
            yield key, "/".join(parts[n_parts:])
