"""Notes of rows that go: what only the tables held of them is there again when the rows come back.

A note is made before tables without a row replace tables that have it. Rows of a database need no note.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from alfwatchd.tables.columns import dataset_paths
from alfwatchd.tables.earlier import NO_SESSION, Earlier, EarlierDataset, EarlierSession
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot


@dataclass(frozen=True, slots=True)
class Note:
    """What only the tables held of one session, or of some of its datasets.

    Parameters
    ----------
    key : str
        ``(lab/)subject/date/number`` as the tables told it.
    lab : str
        What the tables held as the lab of sessions in no lab folder.
    session : EarlierSession
    datasets : mapping of str to EarlierDataset
        By rel_path.
    is_removed : bool
        Whether a person removed what was set of the session: an earlier note of it does not count any more.
    """

    key: str
    lab: str
    session: EarlierSession
    datasets: Mapping[str, EarlierDataset]
    is_removed: bool = False


def note_all(snapshot: Snapshot, rules: TableRules) -> Iterator[Note]:
    """Yield a note of each session and dataset that earlier tables knew and new tables will lack.

    The columns of sessions that a database knows are noted too: the database may lose these sessions again.
    """
    earlier = rules.known.earlier
    if not earlier.shows:
        return
    here = {earlier.key_of(session.key): session for session in snapshot.sessions.values()}
    lost = _lost({key: here.get(key) for key in earlier.datasets}, earlier)
    for key in earlier.sessions.keys() | lost.keys():
        session = here.get(key)
        goes = session is None or rules.is_adopted(session)
        columns = earlier.sessions.get(key, NO_SESSION) if goes else NO_SESSION
        yield from _note(key, columns, lost.get(key, {}), rules)
    yield from _removed(earlier)


def _removed(earlier: Earlier) -> Iterator[Note]:
    """Yield what a person set and removed again: an older note would bring it back with the next return of a path."""
    rows, datasets = earlier.datasets.rows, dict[int, dict[str, EarlierDataset]]()
    is_empty = (rows.qc == 0) & ~rows.ids.any(axis=1)
    for row in np.flatnonzero(is_empty).tolist() if is_empty.any() else ():
        datasets.setdefault(int(rows.numbers[row]), {})[rows.path_of(row).decode()] = noted(None, 0)
    emptied = {key: datasets[number] for key, number in earlier.datasets.numbers.items() if number in datasets}
    sessions = [key for key, columns in earlier.sessions.items() if columns == NO_SESSION]
    for key in dict.fromkeys([*sessions, *emptied]):
        is_removed = earlier.sessions.get(key) == NO_SESSION
        yield Note(key, earlier.lab, NO_SESSION, emptied.get(key, {}), is_removed)


def note_changes(
    gone: Iterable[tuple[bytes, Session]], changed: Iterable[Session], odd: Mapping[str, bytes], rules: TableRules
) -> Iterator[Note]:
    """Yield the notes that are needed when some sessions change.

    Parameters
    ----------
    gone : iterable of (bytes, Session)
        Eid and session of those that new tables will lack.
    changed : iterable of Session
        Sessions that may have lost datasets, as they are now.
    odd : mapping of str to bytes
        `Eids.odd`.
    rules : TableRules
    """
    earlier = rules.known.earlier
    left = [(eid, session, earlier.key_of(session.key)) for eid, session in gone]
    lost = _lost({key: None for *_, key in left}, earlier)
    for eid, session, key in left:
        columns = earlier.sessions.get(key, NO_SESSION)
        if odd.get(session.key.eid_path) == eid:
            columns = replace(columns, eid=eid)
        is_known = key in earlier.sessions or key in earlier.datasets
        yield from _note(key if is_known else rules.filled_path(session), columns, lost.get(key, {}), rules)
    lost = _lost({earlier.key_of(session.key): session for session in changed}, earlier) if earlier.datasets else {}
    for key, rows in lost.items():
        yield from _note(key, NO_SESSION, rows, rules)


def _note(key: str, columns: EarlierSession, lost: Mapping[str, EarlierDataset], rules: TableRules) -> Iterator[Note]:
    earlier = rules.known.earlier
    if columns != NO_SESSION or lost:
        is_known = key in earlier.sessions or key in earlier.datasets
        yield Note(key, earlier.lab if is_known else rules.lab, columns, lost)


def _lost(here: Mapping[str, Session | None], earlier: Earlier) -> dict[str, dict[str, EarlierDataset]]:
    """Return the rows of some sessions whose datasets are not here.

    Parameters
    ----------
    here : mapping of str to Session or None
        Key of each session that earlier tables may know -> what it is now; None if it is gone.
    earlier : Earlier
    """
    datasets = earlier.datasets
    known = {key: session for key, session in here.items() if key in datasets}
    if not known:
        return {}
    stays = {key: session for key, session in known.items() if session is not None}
    paths, counts = dataset_paths([*stays.values()])
    is_lost = np.zeros(len(datasets.rows), np.bool_)
    for key in known:
        span = datasets.span(key)
        is_lost[span.start : span.stop] = True
    places = datasets.find([*stays], counts, paths)
    is_lost[places[places >= 0]] = False
    keys = {datasets.numbers[key]: key for key in known}
    lost: dict[str, dict[str, EarlierDataset]] = {}
    rows = np.flatnonzero(is_lost)
    for row, number in zip(rows.tolist(), datasets.rows.numbers[rows].tolist(), strict=True):
        own = datasets.row(row)
        lost.setdefault(keys[number], {})[datasets.rows.path_of(row).decode()] = noted(own.id, own.qc)
    return lost


def noted(own_id: bytes | None, qc: int) -> EarlierDataset:
    """Return what a note holds of a dataset; one object for all that have the same qc and no id of their own."""
    return _of_qc(qc) if own_id is None else EarlierDataset(own_id, qc)


@lru_cache
def _of_qc(qc: int) -> EarlierDataset:
    return EarlierDataset(None, qc)


def key_now(note: Note, lab: str) -> str:
    """Return the key of the session of a note in tables that hold another lab for sessions in no lab folder."""
    bare = note.key.removeprefix(f"{note.lab}/") if note.lab else note.key
    if bare.count("/") != 2:  # it lies in the folder of another lab
        return note.key
    return f"{lab}/{bare}" if lab else bare


def with_notes(
    earlier: Earlier,
    notes: Sequence[Note],
    listed: Mapping[str, Set[str]],
    taken: Mapping[bytes, str],
    adopted: Container[str] = (),
) -> Earlier:
    """Return what earlier tables know together with what was noted of rows that they do not list.

    Parameters
    ----------
    earlier : Earlier
        What the tables know, and no database.
    notes : sequence of Note
        The latest last.
    listed : mapping of str to set of str
        Key of a session that the tables list -> rel_paths of its datasets. It has the keys of all notes, and those that
        `key_now` gives: if the lab has changed since a note, both mean the same session.
        Then the row in the tables counts.
    taken : mapping of bytes to str
        Eid in some note -> key of the session that has it in the tables.
    adopted : container of str
        Keys of the sessions that a database knew when the tables were written. The tables list what the database told
        of them. As it may have lost them since, the note of such a session counts.
    """
    sessions = dict(earlier.sessions)
    datasets: dict[str, dict[str, EarlierDataset]] = defaultdict(dict)
    relisted: set[str] = set()
    for note in notes:
        key, now = note.key, key_now(note, earlier.lab)
        if now != key and now in listed:
            relisted.add(now.removeprefix(f"{earlier.lab}/"))
            key = key if key in listed else now
        if note.is_removed:
            for each in (key, now, now.removeprefix(f"{earlier.lab}/") if earlier.lab else now):
                if each not in listed or each in adopted:  # what the tables list was set after the removal
                    sessions.pop(each, None)
        elif note.session != NO_SESSION and (key not in listed or key in adopted):
            eid = note.session.eid
            is_taken = eid is not None and taken.get(eid, key) != key
            sessions[key] = replace(note.session, eid=None if is_taken else eid)
        lost = {path: row for path, row in note.datasets.items() if path not in listed.get(key, ())}
        if lost:
            datasets[key].update(lost)
    return replace(
        earlier,
        sessions=sessions,
        datasets=earlier.datasets.updated(datasets),
        other_labs=tuple(dict.fromkeys(note.lab for note in notes if note.lab != earlier.lab)),
        relisted=frozenset(relisted),
        is_noted=not earlier.shows,
    )


def has_earlier(snapshot: Snapshot, rules: TableRules, odd: Mapping[str, bytes]) -> bool:
    """Tell whether the next run must read the tables, since some of their rows follow from nothing else."""
    known, earlier = rules.known, rules.known.rest
    if odd:
        return True
    if not earlier.shows:
        return False
    sessions = snapshot.sessions.values()
    if known.adoption.digest and earlier.lab != rules.lab:  # the keys do not tell what is adopted
        rows = ((known.key_of(each.key), each) for each in sessions)
        return any(
            key in earlier.datasets or (key in earlier.sessions and not rules.is_adopted(each)) for key, each in rows
        )
    if not earlier.is_noted:
        return True
    labs = {earlier.lab, *earlier.other_labs}
    keys = (*earlier.sessions, *earlier.datasets)
    return any(path in snapshot.sessions for key in keys for path in _paths(key, labs))


def _paths(key: str, labs: Set[str]) -> Iterator[str]:
    """Yield the paths that a session of a key may have."""
    *lab, subject, date, number = key.split("/")
    numbers = dict.fromkeys([number, number.lstrip("0") or "0", f"{int(number):02d}"]) if number.isdigit() else [number]
    for spelled in numbers:
        if lab:
            yield f"{lab[0]}/Subjects/{subject}/{date}/{spelled}"
        if not lab or lab[0] in labs:
            yield f"{subject}/{date}/{spelled}"
