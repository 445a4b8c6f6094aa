"""Reference tables, as far as prune needs them: which sessions and datasets are listed.

A row that is unclear protects all that it may stand for. (Adoption, for the same reason, leaves such rows out.)
"""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alfwatchd.alf import grammar
from alfwatchd.errors import PruneRefused
from alfwatchd.tables import carry_over, database_columns
from alfwatchd.tables.matching import CODE_BITS, Rows, composed, folded, split_uuid, without_no_revision
from alfwatchd.tables.raw_ids import Ids

K = TypeVar("K")
V = TypeVar("V")

MOST_ODD = 0.01
"""Largest fraction of rows, 0 to 1, that may make no sense before the tables are refused."""
_NEEDED_OF_SESSIONS, _NEEDED_OF_DATASETS = {"subject", "date", "number"}, {"rel_path"}
_ANY_UUID = re.compile(r"\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=\.\w+$)")
"""A UUID of any version before the extension, also of those versions that ONE does not accept as ids."""
_HALVES = {"id": {"id_0", "id_1"}, "eid": {"eid_0", "eid_1"}}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where reference tables come from.

    Parameters
    ----------
    source : str
        The folder, or what else to call them in messages.
    date : datetime.datetime or None
        The earliest time at which they may have been made, with a zone; None if it is not known.
    generation : int or None
        None if another program wrote them.
    """

    source: str
    date: datetime.datetime | None = None
    generation: int | None = None

    @property
    def iso_date(self) -> str:
        """The date in UTC, ISO 8601; empty if it is not known."""
        return self.date.isoformat(timespec="seconds") if self.date is not None else ""

    def __str__(self) -> str:
        told = [f"of {self.iso_date}" if self.date is not None else "of unknown date"]
        if self.generation is not None:
            told.append(f"generation {self.generation}")
        return f"{self.source} ({', '.join(told)})"


@dataclass(frozen=True)
class Reference:
    """The sessions and datasets that reference tables list.

    Parameters
    ----------
    origin : Origin
    sessions : mapping of str to tuple of int
        ``(lab/)subject/date/number`` with three digits, in composed Unicode form -> numbers in `rows` of all sessions
        that may be meant.
    rows : Rows
        The datasets; their paths in composed form. Equal keys may occur several times.
    ids : numpy.ndarray of uint8, shape (n_rows, 16)
        Id of each row; zeros where it is not a UUID.
    file_sizes : numpy.ndarray of int64, shape (n_rows,)
        Size of each row's file in bytes; -1 where unknown.
    session_ids : mapping of bytes to str
        Eid -> key in `sessions`.
    homeless : set of bytes
        rel_paths, without a UUID in the name, of the rows whose session is not in the sessions table.
    homeless_ids : set of bytes
        Ids of these rows.
    """

    origin: Origin
    sessions: Mapping[str, tuple[int, ...]]
    rows: Rows
    ids: Ids
    file_sizes: npt.NDArray[np.int64]
    session_ids: Mapping[bytes, str] = field(default_factory=dict)
    homeless: AbstractSet[bytes] = frozenset()
    homeless_ids: AbstractSet[bytes] = frozenset()

    def numbers_of(self, key: grammar.SessionKey) -> tuple[int, ...]:
        """Return the numbers of the listed sessions that a session on disk may be; empty if it is not listed.

        A session in no lab folder may have any lab in the tables: the `lab` setting may have given it one.
        """
        path = composed(key.eid_path)
        if key.lab:
            return self.sessions.get(path, ())
        return tuple(number for each in self.labs.get(path, ()) for number in self.sessions[each])

    @cached_property
    def labs(self) -> Mapping[str, tuple[str, ...]]:
        """``subject/date/number`` -> the keys in `sessions` that end in it, of any lab."""
        return _gather((without_lab(path), path) for path in self.sessions)

    @cached_property
    def folded(self) -> Mapping[str, str]:
        """Key of `sessions` without difference of case and Unicode form -> the key itself."""
        return {folded(path): path for path in self.sessions}

    @cached_property
    def folded_labs(self) -> Mapping[str, str]:
        """``subject/date/number``, likewise -> a key in `folded` of any lab."""
        return {without_lab(path): path for path in self.folded}

    @cached_property
    def folded_paths(self) -> Mapping[bytes, tuple[int, ...]]:
        """Result of `fold_path` -> codes in `rows` of the rel_paths that give it."""
        return _gather((fold_path(path), code) for code, path in enumerate(self.rows.paths))

    @cached_property
    def dataset_ids(self) -> frozenset[bytes]:
        """Ids of all datasets."""
        raw = self.ids.tobytes()
        return frozenset(raw[at : at + 16] for at in range(0, len(raw), 16)) - {bytes(16)}

    def __len__(self) -> int:
        return len(self.rows.keys)


def make_reference(origin: Origin, sessions: pa.Table, datasets: pa.Table) -> Reference:
    """Make a reference from tables.

    Parameters
    ----------
    origin : Origin
    sessions, datasets : pyarrow.Table
        As any version of ONE since 1.13 writes them, or alfwatchd, with their index as plain columns.

    Raises
    ------
    PruneRefused
        They make no sense as a whole, so that what they were meant to protect would be deleted.
    """
    _check_columns(origin, sessions, datasets)
    numbers: dict[bytes, int] = {}
    paths: dict[str, list[int]] = defaultdict(list)
    session_ids: dict[bytes, str] = {}
    n_odd = 0
    id_codes, own_ids = database_columns.id_codes(sessions, "id")
    for row, (key, code) in enumerate(zip(carry_over.session_keys(sessions), id_codes.tolist(), strict=True)):
        own_id = own_ids[code] if code >= 0 else b"\0%d" % row  # a session without id has no datasets
        if key is None:
            n_odd += 1
            continue
        path = composed(key.eid_path)
        paths[path].append(numbers.setdefault(own_id, len(numbers)))
        session_ids.setdefault(own_id, path)
    _check_odd(origin, n_odd, len(sessions), "sessions table have no subject, date or number")
    for own_id, folder in database_columns.told_folders(datasets):
        if own_id in numbers:
            paths[composed(folder)].append(numbers[own_id])
    found = {path: tuple(dict.fromkeys(each)) for path, each in paths.items()}
    return _with_datasets(Reference(origin, found, _NO_ROWS, _NO_IDS, _NO_SIZES, session_ids), numbers, datasets)


_NO_ROWS = Rows(np.zeros(0, np.int64), ())
_NO_IDS, _NO_SIZES = np.zeros((0, 16), np.uint8), np.zeros(0, np.int64)


def _with_datasets(reference: Reference, numbers: Mapping[bytes, int], datasets: pa.Table) -> Reference:
    """Add the rows of the datasets table; refuse one that would let every file go, or makes no sense."""
    codes, paths = _composed(*database_columns.rel_paths(datasets))
    eid_codes, eids = database_columns.id_codes(datasets, "eid")
    of_eid = np.array([*(numbers.get(eid, -1) for eid in eids), -1], np.int64)[eid_codes]
    ids, has_path = database_columns.read_ids(datasets), codes >= 0  # ONE itself writes rows without a path
    is_odd = np.array([*(not grammar.is_rel_path(path.decode()) for path in paths), False], np.bool_)[codes]
    _check_odd(reference.origin, int((is_odd & has_path).sum()), int(has_path.sum()), "datasets table have no ALF path")
    n_rows, is_homeless = int(has_path.sum()), has_path & (of_eid < 0)
    if not n_rows:
        raise PruneRefused(
            f"{reference.origin}: the datasets table lists no dataset, so every file would go; nothing was deleted. "
            "Name tables that list what must stay"
        )
    _check_odd(reference.origin, int(is_homeless.sum()), n_rows, "datasets table have no session")
    order = np.flatnonzero(has_path & ~is_homeless)
    keys = (of_eid[order] << CODE_BITS) | codes[order]
    order, keys = order[np.argsort(keys, kind="stable")], np.sort(keys, kind="stable")
    homeless = np.flatnonzero(is_homeless)
    return Reference(
        reference.origin,
        reference.sessions,
        Rows(keys, paths),
        ids[order],
        database_columns.file_sizes(datasets)[order],
        reference.session_ids,
        frozenset(split_uuid(paths[code])[0] for code in codes[homeless].tolist()),
        frozenset(ids[row].tobytes() for row in homeless.tolist()) - {bytes(16)},
    )


def _composed(codes: npt.NDArray[np.int32], texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], list[bytes]]:
    """Return codes and paths in composed form; several texts may have the same one."""
    new: dict[bytes, int] = {}
    of_old = [new.setdefault(composed(text).encode(), len(new)) for text in texts]
    return np.array([*of_old, -1], np.int64)[codes], [*new]


def _check_columns(origin: Origin, sessions: pa.Table, datasets: pa.Table) -> None:
    """Refuse tables without the columns that are needed, and dates that do not name one day."""
    for table, needed, own_id in ((sessions, _NEEDED_OF_SESSIONS, "id"), (datasets, _NEEDED_OF_DATASETS, "eid")):
        columns = set(table.column_names)
        missing = needed - columns | ({own_id} if own_id not in columns and not _HALVES[own_id] <= columns else set())
        if missing:
            raise PruneRefused(
                f"{origin}: the tables lack the columns {', '.join(sorted(missing))}; nothing was deleted"
            )
    date = sessions.schema.field("date").type
    if pa.types.is_timestamp(date) and date.tz is not None:
        raise PruneRefused(
            f"{origin}: the dates of the sessions have a time zone ({date.tz}), so it is not certain which day is "
            "meant; write the column `date` as plain dates. Nothing was deleted"
        )


def _check_odd(origin: Origin, n_odd: int, n_rows: int, what: str) -> None:
    if n_odd > MOST_ODD * n_rows:
        raise PruneRefused(
            f"{origin}: {n_odd} of {n_rows} rows of the {what}: do the two tables belong together? Nothing was deleted"
        )


def without_lab(path: str) -> str:
    """Return the ``subject/date/number`` in a session's ``(lab/)subject/date/number``."""
    return path.partition("/")[2] if path.count("/") == 3 else path


def fold_path(path: bytes) -> bytes:
    """Return a rel_path, for comparing, without UUID in its name and revision `nan`, in one case and Unicode form."""
    return without_no_revision(_ANY_UUID.sub("", folded(path.decode()))).encode()


def _gather(pairs: Iterable[tuple[K, V]]) -> dict[K, tuple[V, ...]]:
    found: dict[K, list[V]] = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return {key: tuple(values) for key, values in found.items()}
