"""What is already known of sessions and datasets, by a database and by earlier tables: one answer for ids and columns.

The database comes first. Of what earlier tables know, only what the database does not know better counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alfwatchd.alf.grammar import SessionKey
from alfwatchd.tables.adoption import NO_ADOPTION, AdoptedSession, Adoption
from alfwatchd.tables.earlier import NO_SESSION, NOTHING_EARLIER, Earlier, EarlierDataset, EarlierSession
from alfwatchd.tables.matching import RowNumbers
from alfwatchd.tree.rows import Session


class FoundRows(NamedTuple):
    """Which rows stand for the datasets of some sessions.

    Parameters
    ----------
    keys : sequence of str
        Key of each session in earlier tables.
    adopted : RowNumbers
        For each dataset its row in the database.
    earlier : RowNumbers
        For each dataset its row in ``KnownColumns.rest.datasets``.
    has_id : numpy.ndarray of bool
        Whether that row of earlier tables has an id.
    """

    keys: Sequence[str]
    adopted: RowNumbers
    earlier: RowNumbers
    has_id: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class KnownColumns:
    """Which ids and columns are known of sessions and datasets. Frozen: any thread may read it. `of` makes it.

    Parameters
    ----------
    earlier : Earlier
        All that earlier tables know, also where the database knows better: the database may lose it again.
    adoption : Adoption
        What the database knows; it comes first.
    rest : Earlier
        What counts of `earlier`: what the database does not know better.
    """

    earlier: Earlier
    adoption: Adoption
    rest: Earlier

    @classmethod
    def of(cls, earlier: Earlier = NOTHING_EARLIER, adoption: Adoption = NO_ADOPTION) -> KnownColumns:
        """Put a database before earlier tables. This takes seconds where both know a million datasets."""
        return cls(earlier, adoption, _rest(earlier, adoption))

    def adopt(self, adoption: Adoption) -> KnownColumns:
        """Return the same with another state of the database."""
        return self.of(self.earlier, adoption)

    def without_ids(self) -> KnownColumns:
        """Return the same without the ids of earlier tables."""
        earlier = self.earlier.without_ids()
        rest = earlier if self.rest is self.earlier else self.rest.without_ids()
        return KnownColumns(earlier, self.adoption, rest)

    def updated(
        self, sessions: Mapping[str, EarlierSession], datasets: Mapping[str, Mapping[str, EarlierDataset]]
    ) -> KnownColumns:
        """Return the same with other columns of some rows that the database does not know, by their key here."""
        earlier = self.earlier.updated(sessions, datasets)
        rest = earlier if self.rest is self.earlier else self.rest.updated(sessions, datasets)
        return KnownColumns(earlier, self.adoption, rest)

    @property
    def has_eids(self) -> bool:
        """Whether a session may have another eid than the one that its path gives."""
        return bool(self.adoption.digest) or self.rest.has_eids

    def gives_same(self, other: KnownColumns) -> bool:
        """Tell whether both give the same ids and columns; a copy of the rest counts as another one."""
        return self.rest is other.rest and self.adoption.digest == other.adoption.digest

    def key_of(self, key: SessionKey) -> str:
        """Return the key under which earlier tables know a session, whatever the database knows of it."""
        return self.earlier.key_of(key)

    def earlier_session(self, key: SessionKey) -> EarlierSession:
        """Return what counts of what earlier tables know of a session."""
        return self.rest.sessions.get(self.key_of(key), NO_SESSION) if self.rest.sessions else NO_SESSION

    def earlier_datasets(self, key: SessionKey) -> Mapping[str, EarlierDataset]:
        """Return what counts of what earlier tables know of the datasets of a session, by rel_path."""
        return self.rest.datasets.get(self.key_of(key), {}) if self.rest.datasets else {}

    def find(
        self,
        sessions: Sequence[Session],
        adopted: Sequence[AdoptedSession | None],
        counts: Sequence[int],
        rel_paths: Sequence[bytes],
    ) -> FoundRows:
        """Look up the datasets of some sessions, all at once.

        Parameters
        ----------
        sessions : sequence of Session
        adopted : sequence of AdoptedSession or None
            What the database knows of each; None where it is not to be asked.
        counts : sequence of int
            Number of datasets of each.
        rel_paths : sequence of bytes
            Of all datasets, session after session.
        """
        nowhere, has_id = np.full(len(rel_paths), -1, np.int64), np.zeros(len(rel_paths), np.bool_)
        of_database = self.adoption.find(adopted, counts, rel_paths) if any(adopted) else nowhere
        known = self.rest.datasets
        if not known:
            return FoundRows([""] * len(sessions), of_database, nowhere, has_id)
        keys = [self.key_of(session.key) for session in sessions]
        places = known.find(keys, counts, rel_paths)
        has_id[places >= 0] = known.rows.ids[places[places >= 0]].any(axis=1)
        return FoundRows(keys, of_database, places, has_id)


def _rest(earlier: Earlier, adoption: Adoption) -> Earlier:
    """Return what earlier tables know without what the database knows better.

    The path of such a row may differ from the path in the database by a UUID in the file name. Then the row may belong
    to another file than the adopted one, so it is left out only if it already has the id that the database gives.
    """
    if not adoption.sessions:
        return earlier
    sessions = {path: row for path, row in earlier.sessions.items() if adoption.own_session(path) is None}
    known = earlier.datasets
    here = {number: found.number for path, number in known.numbers.items() if (found := adoption.own_session(path))}
    numbers = np.full(max(known.numbers.values(), default=-1) + 1, -1, np.int64)
    numbers[[*here]] = [*here.values()]
    wanted = numbers[known.rows.numbers]
    rows = np.flatnonzero(wanted >= 0)
    stays = np.ones(len(known.rows), np.bool_)
    paths, own_ids = known.rows.row_paths(rows), adoption.rows.ids
    places = adoption.find_rows(wanted[rows], paths)
    is_same = (own_ids[places] == known.rows.ids[rows]).all(axis=1) if len(own_ids) else False
    stays[rows] = (places < 0) | ((adoption.rows.exact(wanted[rows], paths) < 0) & ~np.asarray(is_same))
    datasets = known.where(stays)
    if datasets is known and len(sessions) == len(earlier.sessions):
        return earlier
    return replace(earlier, sessions=sessions, datasets=datasets)


NOTHING_KNOWN = KnownColumns.of()
