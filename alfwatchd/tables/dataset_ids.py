"""Which dataset gets which id if earlier tables or a database have ids, too; two of a session never get the same one.

An id of the database comes first, then one of earlier tables, then the first of `ids.dataset_ids` that neither of them
has for any dataset of the session, whether its file is here or not. So no id changes when another file comes or goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alfwatchd.alf import ids
from alfwatchd.tables.adoption import AdoptedSession
from alfwatchd.tables.matching import RowNumbers
from alfwatchd.tables.raw_ids import Ids
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.rows import Session


class Members(NamedTuple):
    """One session among those whose datasets are made into rows.

    Parameters
    ----------
    session : Session
    adopted : AdoptedSession or None
    base : bytes
        The eid that its own dataset ids are made from.
    rows : range
        Its datasets.
    """

    session: Session
    adopted: AdoptedSession | None
    base: bytes
    rows: range


class KeptRows(NamedTuple):
    """What earlier tables know of the datasets of some sessions.

    Parameters
    ----------
    keys : sequence of str
        Key of each session in `TableRules.kept`.
    places : RowNumbers
        For each dataset its row in ``kept.datasets``.
    has_id : numpy.ndarray of bool
        Whether that row has an id.
    """

    keys: Sequence[str]
    places: RowNumbers
    has_id: npt.NDArray[np.bool_]


def find_kept(
    sessions: Sequence[Session], counts: Sequence[int], rel_paths: Sequence[bytes], rules: TableRules
) -> KeptRows:
    """Look up the datasets of some sessions in earlier tables.

    Parameters
    ----------
    sessions : sequence of Session
    counts : sequence of int
        Number of datasets of each.
    rel_paths : sequence of bytes
        Of all datasets, session after session.
    rules : TableRules
    """
    kept, has_id = rules.kept.datasets, np.zeros(len(rel_paths), np.bool_)
    if not kept:
        return KeptRows([""] * len(sessions), np.full(len(rel_paths), -1, np.int64), has_id)
    keys = [rules.kept_key(session.key) for session in sessions]
    places = kept.find(keys, counts, rel_paths)
    is_known = places >= 0
    has_id[is_known] = kept.rows.ids[places[is_known]].any(axis=1)
    return KeptRows(keys, places, has_id)


def use_kept(
    sessions: Sequence[Members],
    rel_paths: Sequence[bytes],
    found: KeptRows,
    is_own: npt.NDArray[np.bool_],
    own_ids: Ids,
    qc: npt.NDArray[np.int8],
    rules: TableRules,
) -> None:
    """Put ids and qc of earlier tables into the rows that they belong to, and make all ids of a session differ.

    Parameters
    ----------
    sessions : sequence of Members
    rel_paths : sequence of bytes
        By row.
    found : KeptRows
        What `find_kept` says of these sessions.
    is_own : numpy.ndarray of bool
        Rows that get no id of the database.
    own_ids, qc : numpy.ndarray
        Columns, changed in place: ids of shape (n_datasets, 16).
    rules : TableRules
    """
    kept = rules.kept.datasets
    if not kept and rules.adopted is None:
        return
    is_known = found.places >= 0
    qc[is_known] = kept.rows.qc[found.places[is_known]]
    own_ids[found.has_id] = kept.rows.ids[found.places[found.has_id]]
    for each, key in zip(sessions, found.keys, strict=True):
        if each.adopted is not None or key in kept:
            _tell_apart(each, kept.span(key), rel_paths, found.has_id, is_own, own_ids, rules)


def _tell_apart(
    each: Members,
    known: range,
    rel_paths: Sequence[bytes],
    has_id: npt.NDArray[np.bool_],
    is_own: npt.NDArray[np.bool_],
    own_ids: Ids,
    rules: TableRules,
) -> None:
    """Give other ids to the datasets of a session whose id the database, or earlier tables, have for another one.

    `known` are the rows of the session in earlier tables.
    """
    here = slice(each.rows.start, each.rows.stop)
    taken = _of_database(each, rules, all_of_them=bool(has_id[here].any()))
    rows = (np.flatnonzero(is_own[here]) + here.start).tolist()
    free = [row for row in rows if not has_id[row]]
    free += [row for row in rows if has_id[row] and own_ids[row].tobytes() in taken] if taken else []
    taken |= _begin_as(each.base, rules.kept.datasets.rows.ids[known.start : known.stop]) if free else set()
    for row in free if taken else ():
        if own_ids[row].tobytes() not in taken and not has_id[row]:
            continue
        new = next(own for own in ids.dataset_ids(each.base, rel_paths[row].decode()) if own not in taken)
        own_ids[row] = np.frombuffer(new, np.uint8)


def _of_database(each: Members, rules: TableRules, *, all_of_them: bool) -> set[bytes]:
    """Return the ids that a database has for datasets of a session; as a rule only those that could be its own ones."""
    if each.adopted is None or rules.adopted is None:
        return set()
    found = rules.adopted.rows.ids[each.adopted.first : each.adopted.last]
    return set(map(bytes, found)) if all_of_them else _begin_as(each.base, found)


def _begin_as(eid: bytes, own_ids: Ids) -> set[bytes]:
    """Return those of some ids that datasets of a session of this eid could be given: they begin as it does."""
    return set(map(bytes, own_ids[(own_ids[:, :8] == np.frombuffer(eid[:8], np.uint8)).all(axis=1)]))
