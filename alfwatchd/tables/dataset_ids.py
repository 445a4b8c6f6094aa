"""Which dataset gets which id, where earlier tables or a database have a say: no two of a session the same one.

An id of the database comes first, then one of earlier tables, then the first of `ids.dataset_ids` that neither of them
has for any dataset of the session, be it here or not: so no id changes when another file comes or goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alfwatchd.alf import ids
from alfwatchd.tables.adoption import AdoptedSession
from alfwatchd.tables.earlier import NO_DATASET, EarlierDataset
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.rows import Session

_NOTHING: Mapping[str, EarlierDataset] = {}


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
    own_ids: npt.NDArray[np.uint8],
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
    if not rules.kept.datasets and rules.adopted is None:
        return
    for each in sessions:
        kept = _NOTHING
        if rules.kept.datasets:
            kept = rules.kept.datasets.get(rules.kept_key(each.session.key), _NOTHING)
        kept_rows = _put_kept(each, kept, rel_paths, own_ids, qc)
        if each.adopted is None and not kept:
            continue
        taken = _of_database(each, rules, all_of_them=bool(kept_rows))
        free = [row for row in each.rows if is_own[row] and row not in kept_rows]
        free += [row for row in kept_rows if is_own[row] and own_ids[row].tobytes() in taken]
        taken |= {row.id for row in kept.values() if row.id is not None}
        for row in free if taken else ():
            if own_ids[row].tobytes() not in taken and row not in kept_rows:
                continue
            new = next(own for own in ids.dataset_ids(each.base, rel_paths[row].decode()) if own not in taken)
            own_ids[row] = np.frombuffer(new, np.uint8)


def _put_kept(
    each: Members,
    kept: Mapping[str, EarlierDataset],
    rel_paths: Sequence[bytes],
    own_ids: npt.NDArray[np.uint8],
    qc: npt.NDArray[np.int8],
) -> set[int]:
    """Put what earlier tables know into the rows of a session; return those that got an id of them."""
    found = set()
    for row in each.rows if kept else ():
        known = kept.get(rel_paths[row].decode(), NO_DATASET)
        qc[row] = known.qc
        if known.id is not None:
            own_ids[row] = np.frombuffer(known.id, np.uint8)
            found.add(row)
    return found


def _of_database(each: Members, rules: TableRules, *, all_of_them: bool) -> set[bytes]:
    """Return the ids that a database has for datasets of a session; as a rule only those that could be its own ones."""
    if each.adopted is None or rules.adopted is None:
        return set()
    found = rules.adopted.rows.ids[each.adopted.first : each.adopted.last]
    if not all_of_them:
        found = found[(found[:, :8] == np.frombuffer(each.base[:8], np.uint8)).all(axis=1)]
    return set(map(bytes, found))
