"""Which dataset gets which id, where earlier tables or a database have a say: no two of a session the same one.

An id of the database comes first, then one of earlier tables, then the first of `ids.dataset_ids` that neither of them
has for any dataset of the session, be it here or not: so no id changes when another file comes or goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alfwatchd.alf import ids
from alfwatchd.tables.adoption import AdoptedSession
from alfwatchd.tables.earlier import EarlierDatasets
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


def use_kept(
    sessions: Sequence[Members],
    rel_paths: Sequence[bytes],
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
    is_own : numpy.ndarray of bool
        Rows that get no id of the database.
    own_ids, qc : numpy.ndarray
        Columns, changed in place: ids of shape (n_datasets, 16).
    rules : TableRules
    """
    kept = rules.kept.datasets
    if not kept and rules.adopted is None:
        return
    keys = [rules.kept_key(each.session.key) if kept else "" for each in sessions]
    has_id = _put_kept(kept, keys, sessions, rel_paths, own_ids, qc)
    for each, key in zip(sessions, keys, strict=True):
        known = kept.span(key)
        if each.adopted is None and not known:
            continue
        here = slice(each.rows.start, each.rows.stop)
        taken = _of_database(each, rules, all_of_them=bool(has_id[here].any()))
        rows = (np.flatnonzero(is_own[here]) + here.start).tolist()
        free = [row for row in rows if not has_id[row]]
        free += [row for row in rows if has_id[row] and own_ids[row].tobytes() in taken] if taken else []
        taken |= _begin_as(each.base, kept.rows.ids[known.start : known.stop]) if free else set()
        for row in free if taken else ():
            if own_ids[row].tobytes() not in taken and not has_id[row]:
                continue
            new = next(own for own in ids.dataset_ids(each.base, rel_paths[row].decode()) if own not in taken)
            own_ids[row] = np.frombuffer(new, np.uint8)


def _put_kept(
    kept: EarlierDatasets,
    keys: Sequence[str],
    sessions: Sequence[Members],
    rel_paths: Sequence[bytes],
    own_ids: Ids,
    qc: npt.NDArray[np.int8],
) -> npt.NDArray[np.bool_]:
    """Put what earlier tables know into the rows; return for each row whether it got an id of them."""
    places = kept.find(keys, [len(each.rows) for each in sessions], rel_paths)
    known = np.flatnonzero(places >= 0)
    qc[known] = kept.rows.qc[places[known]]
    found = kept.rows.ids[places[known]]
    is_id = found.any(axis=1)
    own_ids[known[is_id]] = found[is_id]
    has_id = np.zeros(len(rel_paths), np.bool_)
    has_id[known[is_id]] = True
    return has_id


def _of_database(each: Members, rules: TableRules, *, all_of_them: bool) -> set[bytes]:
    """Return the ids that a database has for datasets of a session; as a rule only those that could be its own ones."""
    if each.adopted is None or rules.adopted is None:
        return set()
    found = rules.adopted.rows.ids[each.adopted.first : each.adopted.last]
    return set(map(bytes, found)) if all_of_them else _begin_as(each.base, found)


def _begin_as(eid: bytes, own_ids: Ids) -> set[bytes]:
    """Return those of some ids that datasets of a session of this eid could be given: they begin as it does."""
    return set(map(bytes, own_ids[(own_ids[:, :8] == np.frombuffer(eid[:8], np.uint8)).all(axis=1)]))
