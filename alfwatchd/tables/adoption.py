"""What a database knows of sessions and datasets, and which of its rows stand for which files."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alfwatchd.alf import grammar, ids
from alfwatchd.tables.conflicts import Conflict, choose_sessions
from alfwatchd.tables.database_columns import DatabaseDatasets, read_datasets, read_sessions, session_paths
from alfwatchd.tables.known_rows import KnownRows
from alfwatchd.tables.matching import CODE_BITS, RowNumbers, split_uuid
from alfwatchd.tree.rows import Session


class AdoptedSession(NamedTuple):
    """What a database knows of one session; its datasets are the rows `first` to `last` of `DatabaseRows`."""

    eid: bytes
    """16 bytes."""
    task_protocol: str
    projects: str
    number: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class DatabaseRows(KnownRows):
    """Datasets of all adopted sessions, in the order of (session, path); `n_rows` of each.

    Parameters
    ----------
    digests : numpy.ndarray of uint8
        md5, shape (n_rows, 16); zeros where unknown.
    file_sizes : numpy.ndarray of int64
        Bytes; -1 where unknown.
    defaults : numpy.ndarray of int8
        Whether it is the default revision: 0, 1, or -1 where unknown.
    """

    digests: npt.NDArray[np.uint8]
    file_sizes: npt.NDArray[np.int64]
    defaults: npt.NDArray[np.int8]


@dataclass(frozen=True)
class Adoption:
    """What is taken over from one version of a database. Frozen: any thread may read it.

    Parameters
    ----------
    digest : str
        Equal for equal content; empty only for `NO_ADOPTION`.
    sessions : mapping of str to AdoptedSession
        By ``(lab/)subject/date/number`` with three digits.
    elsewhere : mapping of str to AdoptedSession
        By folder: sessions whose datasets lie in this folder, and not in their own, as the database says.
    rows : DatabaseRows
    conflicts : tuple of Conflict
        Rows in which the database contradicts itself. They are not adopted.
    keep_missing : bool
        Whether the tables also get the rows whose file is not here.
    """

    digest: str
    sessions: Mapping[str, AdoptedSession]
    elsewhere: Mapping[str, AdoptedSession]
    rows: DatabaseRows
    conflicts: tuple[Conflict, ...]
    keep_missing: bool

    def find(
        self, sessions: Sequence[AdoptedSession | None], counts: Sequence[int], paths: Sequence[bytes]
    ) -> RowNumbers:
        """Tell which rows stand for which datasets.

        Parameters
        ----------
        sessions : sequence of AdoptedSession or None
            None for a session that the database does not know.
        counts : sequence of int
            Number of datasets of each of these sessions.
        paths : sequence of bytes
            rel_path of each dataset, session after session.

        Returns
        -------
        numpy.ndarray
            `RowNumbers`, of the length of `paths`. No row stands for two datasets.
        """
        known = [each.number if each else -1 for each in sessions]
        return self.find_rows(np.repeat(np.array(known, np.int64), counts), paths)

    def find_rows(self, numbers: npt.NDArray[np.int64], paths: Sequence[bytes]) -> RowNumbers:
        """Do what `find` does, where the number of the session of each dataset is given; -1 for none."""
        places = self.rows.exact(numbers, paths)
        taken: set[int] | None = None
        for row in np.flatnonzero((numbers >= 0) & (places < 0)).tolist():
            found = self._find_by_uuid(int(numbers[row]), paths[row])
            if found >= 0:
                taken = set(places.tolist()) if taken is None else taken
                places[row] = -1 if found in taken else found
                taken.add(found)
        return places

    def session_at(self, path: str) -> AdoptedSession | None:
        """Return what the database knows of the session of a path, ``(lab/)subject/date/number``.

        A path without a lab may have any lab in the database, if only one lab there has such a session.
        """
        return self.sessions.get(path) or self.elsewhere.get(path) or self._alone.get(path)

    def own_session(self, path: str) -> AdoptedSession | None:
        """Do what `session_at` does, except for folders that belong to a session of another path."""
        return self.sessions.get(path) or self._alone.get(path)

    @cached_property
    def has_digests(self) -> bool:
        """Whether the md5 of any dataset is known."""
        return bool(self.rows.digests.any())

    @cached_property
    def placeholders(self) -> Mapping[str, Session]:
        """Sessions with datasets, by their key in `sessions`, as if their folders were here and empty.

        Each look returns the same objects. Sessions that ONE could not open are left out.
        """
        found = {}
        for key, session in self.sessions.items():
            *lab, subject, date, number = key.split("/")
            path = "/".join([*lab, *(["Subjects"] if lab else []), subject, date, number])
            if session.last > session.first and grammar.parse_session(path) is not None:
                found[key] = Session(path)
        return found

    @cached_property
    def labs(self) -> Mapping[str, Set[str]]:
        """``subject/date/number`` -> labs that have such a session, also those whose session is in a conflict."""
        labs: dict[str, set[str]] = defaultdict(set)
        for path in {*self.sessions, *(conflict.session for conflict in self.conflicts)}:
            rest = without_lab(path)
            if rest != path:
                labs[rest].add(path.partition("/")[0])
        return labs

    @cached_property
    def _alone(self) -> Mapping[str, AdoptedSession]:
        """``subject/date/number`` -> the session, if only one lab has such a one."""
        found = {
            rest: self.sessions.get(f"{next(iter(labs))}/{rest}") for rest, labs in self.labs.items() if len(labs) == 1
        }
        return {rest: session for rest, session in found.items() if session is not None}

    def missing(self, session: AdoptedSession, places: RowNumbers) -> list[int]:
        """Return the rows of a session that stand for none of these datasets, and whose path is valid."""
        here = set(places.tolist())
        return [row for row in range(session.first, session.last) if row not in here and self._is_valid(row)]

    def path_of(self, row: int) -> bytes:
        """Return the rel_path of a row."""
        return self.rows.path_of(row)

    def _is_valid(self, row: int) -> bool:
        """Tell whether a file of this path can lie in a session: ALF alone would also allow ``../a.b.c``."""
        path = self.path_of(row).decode()
        return grammar.is_rel_path(path) and not {"", ".", ".."} & {*path.split("/")}

    def _find_by_uuid(self, number: int, path: bytes) -> int:
        """Return the row of a dataset that has its UUID in the file name here, or there; -1 if that is not sure."""
        _, own_id = split_uuid(path)
        found = [*self.rows.by_uuid(number, path)]
        if own_id is not None:  # a name that tells another dataset is no match
            found = [place for place in found if self.rows.ids[place].tobytes() == own_id]
        return found[0] if len(found) == 1 else -1


_NO_ROWS = DatabaseRows(
    np.zeros(0, np.int64),
    (),
    ids=np.zeros((0, 16), np.uint8),
    qc=np.zeros(0, np.int8),
    digests=np.zeros((0, 16), np.uint8),
    file_sizes=np.zeros(0, np.int64),
    defaults=np.zeros(0, np.int8),
)
NO_ADOPTION = Adoption("", {}, {}, _NO_ROWS, (), keep_missing=False)
"""Where no database was read."""


def without_lab(path: str) -> str:
    """Return the ``subject/date/number`` in ``(lab/)subject/date/number``."""
    return path.partition("/")[2] if path.count("/") == 3 else path


def adopt(sessions: pa.Table, datasets: pa.Table, *, keep_missing: bool = False) -> Adoption:
    """Take over the tables of a database.

    Parameters
    ----------
    sessions, datasets : pyarrow.Table
        As any version of ONE since 1.13 writes them, with their index as plain columns; see `tables.database_columns`.
    keep_missing : bool
        Whether rows whose file is not here are rows of the tables, too.
    """
    found = read_datasets(datasets)
    n_datasets = np.bincount(found.eid_codes[found.eid_codes >= 0], minlength=len(found.eids)).tolist()
    of_eids = {eid.tobytes(): n for eid, n in zip(found.eids, n_datasets, strict=True)}
    known, conflicts = choose_sessions(read_sessions(sessions), of_eids)
    by_eid = {eid: path for path, (eid, *_) in known.items()}
    numbers = {eid: number for number, (eid, *_) in enumerate(known.values())}
    of_eid = np.array([*(numbers.get(eid.tobytes(), -1) for eid in found.eids), -1], np.int64)
    rows, firsts = _sort_rows(found, of_eid[found.eid_codes], [*known], conflicts)
    adopted = {
        path: AdoptedSession(eid, protocol, projects, number, int(firsts[number]), int(firsts[number + 1]))
        for number, (path, (eid, protocol, projects)) in enumerate(known.items())
    }
    elsewhere = {
        path: adopted[known_as]
        for eid, path in session_paths(datasets).items()
        if (known_as := by_eid.get(eid)) is not None and path not in adopted
    }
    digest = ids.md5(b"\0".join(found.paths) + repr((*adopted.items(), *elsewhere.items(), keep_missing)).encode())
    for column in (rows.keys, rows.ids, rows.digests, rows.file_sizes, rows.qc, rows.defaults):
        digest.update(column.data)
    return Adoption(
        digest.hexdigest(),
        adopted,
        elsewhere,
        rows,
        tuple(conflicts),
        keep_missing,
    )


def _sort_rows(
    found: DatabaseDatasets, numbers: npt.NDArray[np.int64], sessions: Sequence[str], conflicts: list[Conflict]
) -> tuple[DatabaseRows, npt.NDArray[np.int64]]:
    """Return the rows that can be adopted, and where those of each session begin, and the last one ends."""
    usable = (numbers >= 0) & (found.path_codes >= 0) & found.ids.any(axis=1)
    keys = (numbers << CODE_BITS) | found.path_codes
    order = np.flatnonzero(usable)
    order = order[np.argsort(keys[order], kind="stable")]
    keys = keys[order]
    is_again = np.concatenate([[False], keys[1:] == keys[:-1]]) if len(keys) else np.zeros(0, np.bool_)
    if is_again.any():
        keep = _keep_unambiguous(found, keys, order, is_again, sessions, conflicts)
        keys, order = keys[keep], order[keep]
    rows = DatabaseRows(
        keys,
        found.paths,
        ids=found.ids[order],
        qc=found.qc[order],
        digests=found.digests[order],
        file_sizes=found.file_sizes[order],
        defaults=found.defaults[order],
    )
    return rows, np.searchsorted(keys, np.arange(len(sessions) + 1, dtype=np.int64) << CODE_BITS)


def _keep_unambiguous(
    found: DatabaseDatasets,
    keys: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    is_again: npt.NDArray[np.bool_],
    sessions: Sequence[str],
    conflicts: list[Conflict],
) -> npt.NDArray[np.bool_]:
    """Tell which rows stay where several have one path: the first if they agree on the id, none if they do not."""
    keep = ~is_again
    for key in np.unique(keys[is_again]).tolist():
        rows = np.flatnonzero(keys == key)
        if len({found.ids[order[row]].tobytes() for row in rows}) > 1:
            keep[rows] = False
            path = found.paths[key & ((1 << CODE_BITS) - 1)].decode()
            told = " and ".join(str(uuid.UUID(bytes=found.ids[order[row]].tobytes())) for row in rows[:2].tolist())
            message = f"the database has {len(rows)} datasets of this path, {told}: none is adopted; delete all but one"
            conflicts.append(Conflict(sessions[key >> CODE_BITS], path, message))
    return keep
