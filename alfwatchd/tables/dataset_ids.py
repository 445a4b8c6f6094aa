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
from alfwatchd.tables.known_columns import FoundRows, KnownColumns
from alfwatchd.tables.raw_ids import Ids
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


def use_known(
    sessions: Sequence[Members],
    rel_paths: Sequence[bytes],
    found: FoundRows,
    own_ids: Ids,
    qc: npt.NDArray[np.int8],
    known: KnownColumns,
) -> None:
    """Put ids and qc of earlier tables into the rows that they belong to, and make all ids of a session differ.

    Rows of a database are left to `adopted_columns.take_over`: here its ids are only kept from other datasets.

    Parameters
    ----------
    sessions : sequence of Members
    rel_paths : sequence of bytes
        By row.
    found : FoundRows
        What `known` finds for them.
    own_ids, qc : numpy.ndarray
        Columns, changed in place: ids of shape (n_datasets, 16).
    known : KnownColumns
    """
    earlier = known.rest.datasets
    is_known = found.earlier >= 0
    qc[is_known] = earlier.rows.qc[found.earlier[is_known]]
    own_ids[found.has_id] = earlier.rows.ids[found.earlier[found.has_id]]
    for each, key in zip(sessions, found.keys, strict=True):
        if each.adopted is not None or key in earlier:
            _tell_apart(each, earlier.span(key), rel_paths, found, own_ids, known)


def _tell_apart(
    each: Members,
    span: range,
    rel_paths: Sequence[bytes],
    found: FoundRows,
    own_ids: Ids,
    known: KnownColumns,
) -> None:
    """Give other ids to the datasets of a session whose id the database, or earlier tables, have for another one.

    `span` are the rows of the session in earlier tables.
    """
    here, has_id = slice(each.rows.start, each.rows.stop), found.has_id
    taken = _of_database(each, known, all_of_them=bool(has_id[here].any()))
    rows = (np.flatnonzero(found.adopted[here] < 0) + here.start).tolist()
    free = [row for row in rows if not has_id[row]]
    free += [row for row in rows if has_id[row] and own_ids[row].tobytes() in taken] if taken else []
    taken |= _begin_as(each.base, known.rest.datasets.rows.ids[span.start : span.stop]) if free else set()
    for row in free if taken else ():
        if own_ids[row].tobytes() not in taken and not has_id[row]:
            continue
        new = next(own for own in ids.dataset_ids(each.base, rel_paths[row].decode()) if own not in taken)
        own_ids[row] = np.frombuffer(new, np.uint8)


def _of_database(each: Members, known: KnownColumns, *, all_of_them: bool) -> set[bytes]:
    """Return the ids that a database has for datasets of a session; as a rule only those that could be its own ones."""
    if each.adopted is None:
        return set()
    found = known.adoption.rows.ids[each.adopted.first : each.adopted.last]
    return set(map(bytes, found)) if all_of_them else _begin_as(each.base, found)


def _begin_as(eid: bytes, own_ids: Ids) -> set[bytes]:
    """Return those of some ids that datasets of a session of this eid could be given: they begin as it does."""
    return set(map(bytes, own_ids[(own_ids[:, :8] == np.frombuffer(eid[:8], np.uint8)).all(axis=1)]))
