"""Where a database contradicts itself: rows that are not adopted, and which of two sessions of one path is meant."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from alfwatchd.tables.database_columns import DatabaseSessions


class Conflict(NamedTuple):
    """What a database says in two ways.

    Parameters
    ----------
    session : str
        ``(lab/)subject/date/number`` with three digits.
    rel_path : str
        Of a dataset; empty for the session itself.
    message : str
        What is wrong, and what to do.
    """

    session: str
    rel_path: str
    message: str


KnownSession = tuple[bytes, str, str]
"""eid, task_protocol and projects."""


def choose_sessions(
    found: DatabaseSessions, n_datasets: Mapping[bytes, int]
) -> tuple[dict[str, KnownSession], list[Conflict]]:
    """Choose the session of each path.

    Of several sessions of one path it is the one with datasets, if no other one has any: registering a session twice
    leaves an empty one.

    Parameters
    ----------
    found : DatabaseSessions
    n_datasets : mapping of bytes to int
        Eid -> number of its datasets.

    Returns
    -------
    sessions : dict of str to tuple
        ``(lab/)subject/date/number`` -> eid, task_protocol, projects.
    conflicts : list of Conflict
        One for each path that has no session for that reason.
    """
    by_path: dict[str, dict[bytes, KnownSession]] = defaultdict(dict)
    columns = zip(found.keys, found.eids, found.task_protocols, found.projects, strict=True)
    for key, raw, protocol, projects in columns:
        if key is not None:
            eid = raw.tobytes()
            by_path[key.eid_path][eid] = eid, protocol, projects
    n_paths = Counter(eid for told in by_path.values() for eid in told)
    known: dict[str, KnownSession] = {}
    conflicts: list[Conflict] = []
    for path, told in by_path.items():
        filled = [eid for eid in told if any(eid) and n_datasets.get(eid)]
        eid = filled[0] if len(filled) == 1 else next(iter(told))
        if len(told) > 1 and len(filled) != 1:
            message = _say_double(told, n_datasets)
        elif not any(eid):
            message = "the database gives this session an id that ONE does not accept; it keeps its own"
        elif n_paths[eid] > 1:
            message = (
                f"the database has {n_paths[eid]} sessions of this id, {uuid.UUID(bytes=eid)}: none is adopted; give "
                "each of them an id of its own"
            )
        else:
            known[path] = told[eid]
            continue
        conflicts.append(Conflict(path, "", message))
    return known, conflicts


def _say_double(told: Mapping[bytes, object], n_datasets: Mapping[bytes, int]) -> str:
    listed = [f"{uuid.UUID(bytes=eid)} ({n_datasets.get(eid, 0)} datasets)" for eid in told]
    return (
        f"the database has {len(told)} sessions of this path, {' and '.join(listed)}: none is adopted; move the "
        "datasets of one to the other in the database, and delete the empty one"
    )
