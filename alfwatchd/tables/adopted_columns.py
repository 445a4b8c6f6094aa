"""Dataset rows as disk and earlier tables tell them -> the same with what a database knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from alfwatchd.tables.adoption import AdoptedSession, Adoption
from alfwatchd.tables.default_revision import choose_defaults, may_have_revisions
from alfwatchd.tables.matching import RowNumbers


@dataclass(frozen=True, slots=True)
class DatasetColumns:
    """Dataset rows of some sessions; `n_datasets` of each.

    Parameters
    ----------
    paths : list of bytes
        rel_path of each.
    sessions : numpy.ndarray of int64
        Number of the session of each, from 0.
    ids, digests : numpy.ndarray of uint8
        Shape (n_datasets, 16); a digest of zeros is not known.
    file_sizes : numpy.ndarray of uint64
        Bytes.
    qc : numpy.ndarray of int8
        Index into `QC_CATEGORIES`.
    exists, defaults : numpy.ndarray of bool
        Whether the file is here; whether it is the default revision.
    """

    paths: list[bytes]
    sessions: npt.NDArray[np.int64]
    ids: npt.NDArray[np.uint8]
    file_sizes: npt.NDArray[np.uint64]
    digests: npt.NDArray[np.uint8]
    qc: npt.NDArray[np.int8]
    exists: npt.NDArray[np.bool_]
    defaults: npt.NDArray[np.bool_]


def take_over(
    columns: DatasetColumns,
    places: RowNumbers,
    sessions: Sequence[AdoptedSession | None],
    adoption: Adoption,
    *,
    with_digests: bool,
) -> tuple[DatasetColumns, RowNumbers]:
    """Put what a database knows into the rows, and add those whose file is not here, if they are to be kept.

    Parameters
    ----------
    columns : DatasetColumns
        In the order of sessions; the ids of known rows may be anything.
    places : RowNumbers
        Which rows of the database stand for them.
    sessions : sequence of AdoptedSession or None
        By number of the session; None if the database does not know it.
    adoption : Adoption
    with_digests : bool
        Whether files that are here may have the digest that the database tells: not where they are hashed here.

    Returns
    -------
    tuple
        The rows, those that were added after all others, and which rows of the database stand for them.
    """
    columns = _with_known(columns, places, adoption, with_digests=with_digests)
    if adoption.keep_missing:
        columns, places = _with_missing(columns, places, sessions, adoption)
    return replace(columns, defaults=_defaults(columns, places, adoption)), places


def _with_known(
    columns: DatasetColumns, places: RowNumbers, adoption: Adoption, *, with_digests: bool
) -> DatasetColumns:
    """Take ids and qc of the rows that are known, and digests where the size agrees, or where the database has none."""
    known = np.flatnonzero(places >= 0)
    rows, places = adoption.rows, places[known]
    own_ids, qc, digests = columns.ids.copy(), columns.qc.copy(), columns.digests.copy()
    own_ids[known], qc[known] = rows.ids[places], rows.qc[places]
    if with_digests:
        sizes = rows.file_sizes[places]
        is_same = (sizes < 0) | (sizes == columns.file_sizes[known].astype(np.int64))
        digests[known[is_same]] = rows.digests[places[is_same]]
    return replace(columns, ids=own_ids, qc=qc, digests=digests)


def _with_missing(
    columns: DatasetColumns,
    places: RowNumbers,
    sessions: Sequence[AdoptedSession | None],
    adoption: Adoption,
) -> tuple[DatasetColumns, RowNumbers]:
    """Add the rows whose file is not here, after all others."""
    added: list[int] = []
    numbers: list[int] = []
    counts = np.bincount(columns.sessions, minlength=len(sessions))
    ends = np.cumsum(counts)
    for number, session in enumerate(sessions):
        if session is not None and session.last - session.first > 0:
            missing = adoption.missing(session, places[ends[number] - counts[number] : ends[number]])
            added += missing
            numbers += [number] * len(missing)
    more, rows = np.array(added, np.int64), adoption.rows
    joined = DatasetColumns(
        paths=[*columns.paths, *map(adoption.path_of, added)],
        sessions=np.concatenate([columns.sessions, np.array(numbers, np.int64)]),
        ids=np.concatenate([columns.ids, rows.ids[more]]),
        file_sizes=np.concatenate([columns.file_sizes, np.maximum(rows.file_sizes[more], 0).astype(np.uint64)]),
        digests=np.concatenate([columns.digests, rows.digests[more]]),
        qc=np.concatenate([columns.qc, rows.qc[more]]),
        exists=np.concatenate([columns.exists, np.zeros(len(more), np.bool_)]),
        defaults=np.concatenate([columns.defaults, np.ones(len(more), np.bool_)]),
    )
    return joined, np.concatenate([places, more])


def _defaults(columns: DatasetColumns, places: RowNumbers, adoption: Adoption) -> npt.NDArray[np.bool_]:
    """Choose the default revisions again where the database tells another one, or where rows were added."""
    told = np.where(places >= 0, adoption.rows.defaults[places] if len(adoption.rows.keys) else -1, -1)
    is_open = (told == 1) & ~columns.defaults | ~columns.exists
    defaults = columns.defaults.copy()
    for number in np.unique(columns.sessions[is_open]).tolist():
        rows = np.flatnonzero(columns.sessions == number)
        paths = [columns.paths[row] for row in rows.tolist()]
        if any(map(may_have_revisions, paths)):
            defaults[rows] = choose_defaults(paths, columns.exists[rows].tolist(), told[rows].tolist())
    return defaults
