"""Which ids a new version of the tables changes, so that a user who has an old id can find the new one."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from alfwatchd.api import IdStep
from alfwatchd.tables import arrow
from alfwatchd.tables.adopted_columns import DatasetColumns
from alfwatchd.tables.adoption import AdoptedSession, Adoption
from alfwatchd.tables.columns import dataset_columns, dataset_paths
from alfwatchd.tables.raw_ids import Ids, raw_ids
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.rows import Session

SCHEMA = pa.schema(
    [
        ("old", pa.string()),
        ("new", pa.string()),
        ("path", pa.string()),
        ("when", pa.timestamp("us", tz="UTC")),
        ("reason", pa.string()),
    ]
)
"""Old and new id; path of the session or dataset relative to the root; when the change was made, and why."""

REASONS = ("database", "moved", "renamed", "recomputed")
"""Why ids change: the database has other ids or sessions; a session came that has the id, or the one that had it went;
the session folder has another name; a person asked for new ids."""


@dataclass(frozen=True, slots=True)
class IdChanges:
    """What a new version of the tables changes.

    Parameters
    ----------
    changes : pyarrow.Table
        Of `SCHEMA`, `n_changes` rows.
    n_sessions, n_datasets : int
        Rows that a database knows.
    reason : str
        One of `REASONS`.
    """

    changes: pa.Table
    n_sessions: int
    n_datasets: int
    reason: str = "database"


class Change(NamedTuple):
    """A session that has another eid than before, or that another session has become, for example by a rename."""

    old_eid: bytes
    old: Session
    new_eid: bytes
    new: Session


def describe_changes(changes: Sequence[Change], rules: TableRules, when: datetime, reason: str) -> IdChanges:
    """Tell which ids some sessions and their datasets lose, and what these become.

    Parameters
    ----------
    changes : sequence of Change
    rules : TableRules
        Makes the ids of both sides.
    when : datetime
        With its time zone.
    reason : str
        One of `REASONS`.
    """
    olds: list[bytes] = []
    news: list[bytes] = []
    told: list[bytes] = []
    for change in changes:
        path = change.new.path.encode()
        if change.old_eid != change.new_eid:
            olds.append(change.old_eid)
            news.append(change.new_eid)
            told.append(path)
        before, now = (_own_ids(*side, rules) for side in (change[:2], change[2:]))
        rows = [(before[rel_path], own, rel_path) for rel_path, own in now.items() if rel_path in before]
        for old, new, rel_path in rows:
            if old != new:
                olds.append(old)
                news.append(new)
                told.append(path + b"/" + rel_path)
    table = _table(raw_ids(olds), raw_ids(news), told, when, reason)
    return IdChanges(table, 0, 0, reason)


def _own_ids(eid: bytes, session: Session, rules: TableRules) -> dict[bytes, bytes]:
    """Return the rel_path and id of each dataset that is here."""
    columns, _ = dataset_columns([(eid, session)], [rules.adopted_session(eid, session)], rules)
    rows = zip(columns.paths, columns.ids, columns.exists.tolist(), strict=True)
    return {path: own.tobytes() for path, own, exists in rows if exists}


def compare_ids(
    before: Adoption | None,
    lab: str,
    groups: Sequence[Sequence[tuple[bytes, Session]]],
    rules: TableRules,
    when: datetime,
    reason: str = "database",
) -> IdChanges:
    """Compare the ids that tables held with those that they are about to hold.

    Parameters
    ----------
    before : Adoption or None
        The tables as they are, read as if they were to be adopted; None if there are none.
    lab : str
        What these hold as the lab of sessions in no lab folder.
    groups : sequence of sequence of (bytes, Session)
        Eid and session of all that is about to be written, in parts, to bound what is in memory at once.
    rules : TableRules
    when : datetime
        With its time zone.
    reason : str
        One of `REASONS`.
    """
    parts = [_table(raw_ids([]), raw_ids([]), [], when, reason)]
    n_sessions = n_datasets = 0
    known = _known_before(before, groups, replace(rules, lab=lab)) if before is not None else {}
    for group in groups:
        adopted = [rules.adopted_session(eid, session) for eid, session in group]
        n_sessions += sum(session is not None for session in adopted)
        if before is not None:
            columns, places = dataset_columns(group, adopted, rules)
            parts.append(_changes(before, known, group, columns, when, reason))
        elif any(adopted):
            paths, counts = dataset_paths([session for _, session in group])
            places = rules.known.adoption.find(adopted, counts, paths)
        else:
            continue
        n_datasets += int((places[: sum(session.n_datasets for _, session in group)] >= 0).sum())
    return IdChanges(pa.concat_tables(parts), n_sessions, n_datasets, reason)


def _known_before(
    before: Adoption, groups: Sequence[Sequence[tuple[bytes, Session]]], rules: TableRules
) -> dict[str, AdoptedSession]:
    """Return by path what tables held of each session: where it may be of two, of the one that has its eid still.

    Parameters
    ----------
    before : Adoption
    groups : sequence of sequence of (bytes, Session)
    rules : TableRules
        With the lab of these tables.
    """
    known, stays = {}, {}
    for eid, session in chain.from_iterable(groups):
        if (found := before.sessions.get(rules.filled_path(session))) is not None:
            known[session.path] = found
            if found.eid == eid:
                stays[found.number] = session.path
    return {path: found for path, found in known.items() if stays.get(found.number, path) == path}


def _changes(
    before: Adoption,
    known_before: Mapping[str, AdoptedSession],
    group: Sequence[tuple[bytes, Session]],
    columns: DatasetColumns,
    when: datetime,
    reason: str,
) -> pa.Table:
    """Return the changes in a group of sessions."""
    known = [known_before.get(session.path) for _, session in group]
    old = [each.eid if each else eid for each, (eid, _) in zip(known, group, strict=True)]
    new = [eid for eid, _ in group]
    paths = [session.path.encode() for _, session in group]
    is_other = [was != now for was, now in zip(old, new, strict=True)]
    order = np.argsort(columns.sessions, kind="stable")  # rows whose file is not here come last
    numbers = columns.sessions[order]
    rel_paths = [columns.paths[row] for row in order.tolist()]
    places = before.find(known, np.bincount(numbers, minlength=len(group)).tolist(), rel_paths)
    ids = columns.ids[order]
    rows = np.flatnonzero(places >= 0)
    rows = rows[(before.rows.ids[places[rows]] != ids[rows]).any(axis=1)]
    olds = np.concatenate([raw_ids(_chosen(old, is_other)), before.rows.ids[places[rows]]])
    news = np.concatenate([raw_ids(_chosen(new, is_other)), ids[rows]])
    told = _chosen(paths, is_other) + [paths[numbers[row]] + b"/" + rel_paths[row] for row in rows.tolist()]
    return _table(olds, news, told, when, reason)


def _table(olds: Ids, news: Ids, paths: Sequence[bytes], when: datetime, reason: str) -> pa.Table:
    moment = np.full(len(paths), int(when.timestamp() * 1e6), np.int64)
    columns = [arrow.uuids(olds), arrow.uuids(news), arrow.strings(paths)]
    columns += [arrow.numbers(moment, SCHEMA.field("when").type), arrow.strings([reason] * len(paths))]
    return pa.table(columns, schema=SCHEMA)


def _chosen(values: Sequence[bytes], is_chosen: Sequence[bool]) -> list[bytes]:
    return [value for value, chosen in zip(values, is_chosen, strict=True) if chosen]


def follow(changes: Sequence[Mapping[str, object]], old: str, held: Mapping[str, str]) -> list[IdStep]:
    """Return how an id changed, one step after the other; empty if it never did, or if tables hold it again.

    Of several changes of one id, the last counts: an earlier one may have been recorded but never made, for example
    because a flush failed. Two rows may have had one id, one after the other. So after each step, the last change of
    the same row counts. If the tables hold an id, it is the answer, even if a row lost it and another row has it now.
    If they hold several of the ids on the way, the answer is the last one whose row is where the change says, else the
    last one.

    Parameters
    ----------
    changes : sequence of mapping
        Rows of `SCHEMA` for all ids that may be met on the way, in the order in which they were recorded. (The clock
        may have been set back meanwhile.) Changes with equal times were made together.
    old : str
        Any id that tables once held.
    held : mapping of str to str
        Those of all these ids that tables hold now -> end of the path that has it.
    """
    if old in held:
        return []
    steps: list[IdStep] = []
    places: dict[object, list[int]] = defaultdict(list)
    for place, row in enumerate(changes):
        places[row["old"]].append(place)
    current, first = old, 0
    while later := [place for place in places[current] if place >= first]:
        of_row = [place for place in later if steps and changes[place]["path"] == steps[-1].path]
        chosen = (of_row or later)[-1]
        row = changes[chosen]
        when = row["when"]
        assert isinstance(when, datetime), "a column of times"
        current = str(row["new"])
        told = when.isoformat(timespec="seconds")
        steps.append(IdStep(str(row["old"]), current, str(row["path"]), told, str(row.get("reason", ""))))
        first = next((n for n in range(chosen, len(changes)) if changes[n]["when"] != when), len(changes))
    ends = [n for n, step in enumerate(steps, 1) if step.new in held]
    ends = [n for n in ends if f"/{steps[n - 1].path}".endswith(f"/{held[steps[n - 1].new]}")] or ends
    return steps[: ends[-1]] if ends else steps


def parse(text: str) -> str | None:
    """Return an id as tables hold it, lower case with hyphens; None if it is not a UUID."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
