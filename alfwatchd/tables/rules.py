"""How rows become columns: which ids, and what is taken over from earlier tables and from a database."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

import numpy as np

from alfwatchd.alf import ids
from alfwatchd.tables.adoption import AdoptedSession, Adoption
from alfwatchd.tables.earlier import EarlierSession
from alfwatchd.tables.eids import NO_EIDS, Claim, Eids, assign
from alfwatchd.tables.known_columns import NOTHING_KNOWN, KnownColumns
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot

_PLAIN: tuple[Mapping[str, bytes], Set[str], Set[str]] = ({}, frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class TableRules:
    """How rows become columns.

    Parameters
    ----------
    namespace : uuid.UUID
        Namespace of the eids.
    lab : str
        Lab of sessions in no lab folder; empty for none.
    with_hashes : bool
        Whether the hash column holds md5 (null where not known yet); if not, it is of null type.
    known : KnownColumns
        What a database and earlier tables know; it comes before what paths give.
    n_recomputed : int
        How often a person asked for new ids, which ignore the ids that were given out before.
    """

    namespace: uuid.UUID = ids.NAMESPACE
    lab: str = ""
    with_hashes: bool = False
    known: KnownColumns = field(default=NOTHING_KNOWN, compare=False)
    n_recomputed: int = 0

    def eids(self, snapshot: Snapshot) -> Mapping[str, bytes]:
        """Return session path -> eid, 16 bytes, as if no eid had been given out before."""
        return self.assign_eids(snapshot).eids

    def assign_eids(self, snapshot: Snapshot, before: Eids = NO_EIDS) -> Eids:
        """Give eids to all sessions; see `tables.eids`.

        Parameters
        ----------
        snapshot : Snapshot
        before : Eids
            What was given out last.
        """
        if before is NO_EIDS and not self.may_collide:
            return Eids({path: self.given_eid(snapshot.sessions[path]) for path in sorted(snapshot.sessions)}, *_PLAIN)
        return assign(map(self.claim, snapshot.sessions.values()), before, self.namespace)

    def claim(self, session: Session) -> Claim:
        """Return what counts for a session when eids are given out.

        The eid of a database, or of earlier tables, goes to the session in the folder that the database names; if there
        is none, to one in a folder of its lab.
        """
        path, key = self.filled_path(session), session.key
        adopted, earlier = self.known.adoption.session_at(path), self.known.earlier_session(key)
        rank = (path in self.known.adoption.elsewhere, not key.lab, session.path)
        return Claim(session.path, key.eid_path, path, adopted.eid if adopted else None, earlier.eid, rank)

    @property
    def may_collide(self) -> bool:
        """Whether two sessions may claim one eid: it may follow from more than the path."""
        return bool(self.lab) or self.known.has_eids

    @property
    def shows_hashes(self) -> bool:
        """Whether the hash column holds md5."""
        return self.with_hashes or self.known.adoption.has_digests

    def given_eid(self, session: Session) -> bytes:
        """Return the eid, 16 bytes, that follows from the path of a session."""
        return ids.session_id(self.filled_path(session), self.namespace)

    def adopted_session(self, eid: bytes, session: Session) -> AdoptedSession | None:
        """Return what the database knows of a session; None if the session has another eid than in the database."""
        adopted = self._adopted(session)
        return adopted if adopted is not None and adopted.eid == eid else None

    def known_session(self, eid: bytes, session: Session) -> AdoptedSession | EarlierSession:
        """Return the columns that are known of a session: those of the database, else those of earlier tables."""
        return self.adopted_session(eid, session) or self.known.earlier_session(session.key)

    def is_adopted(self, session: Session) -> bool:
        """Tell whether the database knows a session, even if another folder has its eid."""
        return self._adopted(session) is not None

    def n_rows(self, session: Session) -> int:
        """Return about how many rows a session has in both tables."""
        adopted = self._adopted(session) if self.known.adoption.keep_missing else None
        return 1 + max(session.n_datasets, adopted.last - adopted.first if adopted else 0)

    def filled_path(self, session: Session) -> str:
        """Return ``(lab/)subject/date/number`` as the tables tell it: with the lab that the setting gives."""
        key = session.key
        return (key if key.lab or not self.lab else replace(key, lab=self.lab)).eid_path

    def adopt(self, adoption: Adoption) -> TableRules:
        """Return the same with what a newer state of a database knows."""
        return self.use(self.known.adopt(adoption))

    def use(self, known: KnownColumns) -> TableRules:
        """Do what `adopt` does, with `known` made beforehand from the same earlier tables: that takes seconds."""
        # It may have been made before a person asked for new ids.
        return replace(self, known=known.without_ids() if self.n_recomputed else known)

    def without_earlier_ids(self) -> TableRules:
        """Return the same rules without the ids of earlier tables: ids follow from the paths and the database."""
        return replace(self, known=self.known.without_ids(), n_recomputed=self.n_recomputed + 1)

    def complete(self, snapshot: Snapshot) -> Snapshot:
        """Add the sessions that only the database knows, if rows without a file are to be kept."""
        adoption = self.known.adoption
        if not adoption.keep_missing:
            return snapshot
        here = {each.eid for session in snapshot.sessions.values() if (each := self._adopted(session))}
        missing = {
            row.path: row for path, row in adoption.placeholders.items() if adoption.sessions[path].eid not in here
        }
        return replace(snapshot, sessions={**missing, **snapshot.sessions})

    def has_datasets(self, snapshot: Snapshot) -> bool:
        """Tell whether the datasets table has any row."""
        sessions, adoption = snapshot.sessions.values(), self.known.adoption
        if any(session.n_datasets for session in sessions):
            return True
        if not adoption.keep_missing:
            return False
        adopted = (each for session in sessions if (each := self._adopted(session)))
        return any(adoption.missing(each, np.empty(0, np.int64)) for each in adopted)

    def makes_same_columns(self, other: TableRules) -> bool:
        """Tell whether equal rows become equal columns."""
        return self == other and self.known.gives_same(other.known)

    def _adopted(self, session: Session) -> AdoptedSession | None:
        adoption = self.known.adoption
        return adoption.session_at(self.filled_path(session)) if adoption.sessions else None
