"""What earlier tables in the output folder know that cannot be derived from the disk, and that is carried over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from alfwatchd.alf import grammar
from alfwatchd.tables.known_rows import KnownRows
from alfwatchd.tables.matching import CODE_BITS, RowNumbers
from alfwatchd.tables.raw_ids import raw_ids

QC_CATEGORIES = ("NOT_SET", "PASS", "WARNING", "FAIL", "CRITICAL")
"""``one.alf.cache.QC_TYPE``: One compares them in this order, so all five must be there, ordered."""

_NO_ID = bytes(16)


@dataclass(frozen=True, slots=True)
class EarlierSession:
    """Columns of a session that are carried over.

    Parameters
    ----------
    eid : bytes or None
        16 bytes; None if it is the id that the path gives anyway.
    task_protocol, projects : str
    """

    eid: bytes | None
    task_protocol: str
    projects: str


@dataclass(frozen=True, slots=True)
class EarlierDataset:
    """Columns of a dataset that are carried over.

    Parameters
    ----------
    id : bytes or None
        16 bytes; None if it is the id that the path gives anyway.
    qc : int
        Index into `QC_CATEGORIES`.
    """

    id: bytes | None
    qc: int


class EarlierDatasets(Mapping[str, Mapping[str, EarlierDataset]]):
    """Datasets of earlier tables by `SessionKey.eid_path`, then rel_path: columns, and single rows on request.

    A million of them take 40 MB as columns, and ten times that as objects: look up many at once with `find`.

    Parameters
    ----------
    numbers : mapping of str to int
        `SessionKey.eid_path` -> number of the session in `rows`; of sessions that have rows.
    rows : KnownRows
    """

    def __init__(self, numbers: Mapping[str, int], rows: KnownRows) -> None:
        self.numbers = numbers
        self.rows = rows

    @classmethod
    def of(cls, datasets: Mapping[str, Mapping[str, EarlierDataset]]) -> EarlierDatasets:
        """Return the columns of rows that are given one by one."""
        return NO_DATASETS.updated(datasets)

    def __getitem__(self, key: str) -> Mapping[str, EarlierDataset]:
        span = self.rows.span(self.numbers[key])
        return {self.rows.path_of(row).decode(): self.row(row) for row in span}

    def __contains__(self, key: object) -> bool:
        return key in self.numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def row(self, row: int) -> EarlierDataset:
        """Return one row by its number."""
        own_id = self.rows.ids[row].tobytes()
        return EarlierDataset(own_id if own_id != _NO_ID else None, int(self.rows.qc[row]))

    def span(self, key: str) -> range:
        """Return the numbers of the rows of a session."""
        number = self.numbers.get(key)
        return self.rows.span(number) if number is not None else range(0)

    def find(self, keys: Sequence[str], counts: Sequence[int], paths: Sequence[bytes]) -> RowNumbers:
        """Tell which rows stand for which datasets; see `KnownRows.find_exact`."""
        return self.rows.find_exact([self.numbers.get(key, -1) for key in keys], counts, paths)

    def where(self, stays: npt.NDArray[np.bool_]) -> EarlierDatasets:
        """Return some of the rows only; each session stays known by its key, even with no row left."""
        if stays.all():
            return self
        rows = self.rows
        return EarlierDatasets(self.numbers, KnownRows(rows.keys[stays], rows.paths, rows.ids[stays], rows.qc[stays]))

    def without_ids(self) -> EarlierDatasets:
        """Return what is left where ids are not to be kept."""
        rows = self.rows
        plain = KnownRows(rows.keys, rows.paths, np.zeros_like(rows.ids), rows.qc)
        return _without_empty_sessions(EarlierDatasets(self.numbers, plain).where(rows.qc != 0))

    def updated(self, datasets: Mapping[str, Mapping[str, EarlierDataset]]) -> EarlierDatasets:
        """Return the same with some rows added, or replaced."""
        numbers, rows = dict(self.numbers), self.rows
        codes, next_number = dict(rows.codes), max(self.numbers.values(), default=-1) + 1
        keys: list[int] = []
        for key, of_session in datasets.items():
            number = numbers.setdefault(key, next_number) if of_session else -1
            next_number += number == next_number
            keys += [number << CODE_BITS | codes.setdefault(path.encode(), len(codes)) for path in of_session]
        if not keys:
            return self
        new = [row for of_session in datasets.values() for row in of_session.values()]
        columns = (
            np.concatenate([rows.keys, np.array(keys, np.int64)]),
            np.concatenate([rows.ids, raw_ids([row.id or _NO_ID for row in new])]),
            np.concatenate([rows.qc, np.array([row.qc for row in new], np.int8)]),
        )
        last = last_of_each(columns[0])
        keys_now, ids_now, qc_now = (column[last] for column in columns)
        return EarlierDatasets(numbers, KnownRows(keys_now, [*codes], ids_now, qc_now))


def _without_empty_sessions(datasets: EarlierDatasets) -> EarlierDatasets:
    numbers = {*np.unique(datasets.rows.numbers).tolist()}
    left = {key: number for key, number in datasets.numbers.items() if number in numbers}
    return EarlierDatasets(left, datasets.rows)


def last_of_each(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return an order of rows in which their keys are sorted; of several rows with one key it has the last only."""
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    return order[np.append(in_order[1:] != in_order[:-1], [True])] if len(order) else order


NO_DATASETS = EarlierDatasets(
    {}, KnownRows(np.zeros(0, np.int64), (), np.zeros((0, 16), np.uint8), np.zeros(0, np.int8))
)


@dataclass(frozen=True)
class Earlier:
    """What earlier tables in the output folder know that cannot be derived from the disk.

    Parameters
    ----------
    sessions : mapping of str to EarlierSession
        By `SessionKey.eid_path`.
    datasets : EarlierDatasets
        Only what differs from the default is here.
    lab : str
        Lab that the earlier tables hold for sessions in no lab folder; the `lab` setting may be another one now.
    other_labs : tuple of str
        Labs that still earlier tables held for them.
    relisted : frozenset of str
        ``subject/date/number`` of sessions in no lab folder that earlier tables list, and that older tables had with
        another lab. What is kept for that other lab does not count for them.
    is_noted : bool
        Whether all of it comes from notes of rows that the earlier tables did not list any more; see `tables.notes`.
    n_lost_ids : int
        Number of datasets whose id could not be taken over: several had it, or it was none that One accepts.
    """

    sessions: Mapping[str, EarlierSession]
    datasets: EarlierDatasets
    lab: str = ""
    other_labs: tuple[str, ...] = ()
    relisted: frozenset[str] = frozenset()
    is_noted: bool = False
    n_lost_ids: int = field(default=0, compare=False)

    @property
    def shows(self) -> bool:
        """Whether rows differ from those of a fresh index."""
        return bool(self.sessions) or len(self.datasets.rows) > 0

    @cached_property
    def has_eids(self) -> bool:
        """Whether any session has another eid than the one that its path gives."""
        return any(session.eid is not None for session in self.sessions.values())

    def key_of(self, key: grammar.SessionKey) -> str:
        """Return the key under which a session is known here: tables hold the filled-in lab, paths do not."""
        own = key.eid_path
        other_labs = self.other_labs if own not in self.relisted else ()
        for lab in (self.lab, *other_labs) if not key.lab else ():
            filled = f"{lab}/{own}" if lab else own
            if filled in self.sessions or filled in self.datasets:
                return filled
        return own

    def updated(
        self, sessions: Mapping[str, EarlierSession], datasets: Mapping[str, Mapping[str, EarlierDataset]]
    ) -> Earlier:
        """Return the same with some rows added, or replaced."""
        return replace(
            self, sessions={**self.sessions, **sessions}, datasets=self.datasets.updated(datasets), is_noted=False
        )

    def without_ids(self) -> Earlier:
        """Return what is left where ids are not to be kept."""
        sessions = {key: replace(row, eid=None) for key, row in self.sessions.items()}
        sessions = {key: row for key, row in sessions.items() if row != NO_SESSION}
        return replace(self, sessions=sessions, datasets=self.datasets.without_ids())


NO_SESSION = EarlierSession(None, "", "")
NO_DATASET = EarlierDataset(None, 0)
NOTHING_EARLIER = Earlier({}, NO_DATASETS)
