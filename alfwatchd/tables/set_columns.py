"""Columns that a person sets without a database: which rows are meant, and what is known of them from then on.

What was set is what earlier tables know: it stays over flushes and restarts, and comes back with a path that was gone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace

from alfwatchd.alf import grammar
from alfwatchd.alf.printable import printable
from alfwatchd.errors import UsageError
from alfwatchd.tables.database_columns import sorted_projects
from alfwatchd.tables.earlier import NO_DATASET, QC_CATEGORIES
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot

_OF_SESSIONS = ("projects", "task_protocol")
NAMES = ("qc", *_OF_SESSIONS)
"""Columns that can be set."""
_MOST_CHARACTERS = 4096
"""Longest text."""


@dataclass(frozen=True, slots=True)
class NewColumns:
    """What is to be set; None leaves a column as it is.

    Parameters
    ----------
    qc : int or None
        Index into `QC_CATEGORIES`, of datasets.
    projects, task_protocol : str or None
        Of the session.
    """

    qc: int | None = None
    projects: str | None = None
    task_protocol: str | None = None

    @classmethod
    def of(cls, qc: str | None, projects: str | None, task_protocol: str | None) -> NewColumns:
        """Take the values as a person writes them.

        Raises
        ------
        UsageError
            There is none, or one of them makes no sense.
        """
        if qc is projects is task_protocol is None:
            raise UsageError(f"nothing to set: give {', '.join(f'{name}=...' for name in NAMES)}, or some of them")
        if qc is not None and qc.upper() not in QC_CATEGORIES:
            advice = "" if qc else "; qc=NOT_SET removes what was set"
            raise UsageError(f"qc={printable(qc)}: is none of {', '.join(QC_CATEGORIES)}{advice}")
        for name, text in (("projects", projects), ("task_protocol", task_protocol)):
            _check_text(name, text or "")
        names = {name.strip() for name in (projects or "").split(",")} - {""}
        return cls(
            None if qc is None else QC_CATEGORIES.index(qc.upper()),
            None if projects is None else sorted_projects(",".join(names)),
            task_protocol,
        )


def _check_text(name: str, text: str) -> None:
    """Refuse what a table cannot hold, and what no person would mean."""
    told = f"{name}={printable(text[:80])}"
    if len(text) > _MOST_CHARACTERS:
        raise UsageError(f"{told}...: has {len(text)} characters; at most {_MOST_CHARACTERS} are allowed")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise UsageError(f"{told}: has a control character, or is not valid UTF-8; leave that character out")


def set_columns(rules: TableRules, snapshot: Snapshot, path: str, new: NewColumns) -> tuple[TableRules, str, int]:
    """Set columns of a session, or of some of its datasets.

    Parameters
    ----------
    rules : TableRules
    snapshot : Snapshot
        What is here.
    path : str
        Of a session, relative to the root or ``lab/subject/date/number``; with the rel_path of a dataset or of a folder
        behind it, only these datasets are meant.
    new : NewColumns

    Returns
    -------
    rules : TableRules
        With what was set.
    path : str
        Of the session.
    n_datasets : int
        How many datasets got a qc.

    Raises
    ------
    UsageError
        Nothing of this path is here, or a database knows the session.
    """
    session, below = _find(rules, snapshot.sessions, path)
    if rules.is_adopted(session):
        raise UsageError(f"{session.path}: the database knows this session, and its values count: set them there")
    if below and new.qc is None:
        raise UsageError(f"{below}: {' and '.join(_OF_SESSIONS)} belong to the session: leave the path in it out")
    rel_paths = [each for each, _ in session.datasets() if not below or f"{each}/".startswith(f"{below}/")]
    if below and not rel_paths:
        raise UsageError(f"{session.path}: no dataset here is {below} or lies in a folder of that name")
    known, key = rules.known, rules.known.key_of(session.key)
    columns = known.earlier_session(session.key)
    changes = {name: value for name in _OF_SESSIONS if (value := getattr(new, name)) is not None}
    before = known.earlier_datasets(session.key)
    datasets = (
        {each: replace(before.get(each, NO_DATASET), qc=new.qc) for each in rel_paths} if new.qc is not None else {}
    )
    sessions = {key: replace(columns, **changes)} if changes else {}
    return replace(rules, known=known.updated(sessions, {key: datasets})), session.path, len(datasets)


def _find(rules: TableRules, sessions: Mapping[str, Session], path: str) -> tuple[Session, str]:
    """Return the session of a path, and what the path has behind it."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    starts = ["/".join(parts[:n_parts]) for n_parts in range(3, 6)]
    if exact := next((start for start in starts if start in sessions), ""):
        return sessions[exact], "/".join(parts)[len(exact) + 1 :]
    keys = {key for start in starts if (key := grammar.parse_session(start)) is not None}  # 1 means 001
    found = {
        session.path: (session, own.count("/") + 1)
        for session in sessions.values()
        for own in (session.key.eid_path, rules.filled_path(session), session.path)
        if own in starts or (own == session.path and session.key in keys)
    }
    if not found:
        raise UsageError(
            f"{printable(path)}: no session of this path is here; give it relative to the root, as "
            "lab/Subjects/subject/date/number, or give its eid. After a change on the disk, run `alfwatchd sync` first"
        )
    if len(found) > 1:
        several = " and ".join(sorted(found))
        raise UsageError(f"{printable(path)}: {several} are both this session: give the path of one of them")
    [(session, n_parts)] = found.values()
    return session, "/".join(parts[n_parts:])
