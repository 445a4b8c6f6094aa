"""How rows become columns: which ids, and what is taken over from earlier tables and from a database."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

import numpy as np

from alfwatchd.alf import grammar, ids
from alfwatchd.tables.adoption import AdoptedSession, Adoption
from alfwatchd.tables.earlier import NO_SESSION, NOTHING_EARLIER, Earlier, EarlierSession
from alfwatchd.tables.eids import NO_EIDS, Claim, Eids, assign
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
    kept : Earlier
        Columns carried over from earlier tables.
    adopted : Adoption or None
        What is taken over from a database; it comes before `kept`.
    carried : Earlier or None
        What earlier tables know, also where a database knows better; None if that is `kept`.
    n_recomputed : int
        How often a person asked for new ids, which ignore the ids that were given out before.
    """

    namespace: uuid.UUID = ids.NAMESPACE
    lab: str = ""
    with_hashes: bool = False
    kept: Earlier = field(default=NOTHING_EARLIER, compare=False)
    adopted: Adoption | None = field(default=None, compare=False)
    carried: Earlier | None = field(default=None, compare=False)
    n_recomputed: int = 0

    def kept_key(self, key: grammar.SessionKey) -> str:
        """Return the key under which `kept` knows a session: tables hold the filled-in lab, paths do not."""
        return self.kept.key_of(key)

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

        The eid of a database, or one that was kept, goes to the session in the folder that the database names; if there
        is none, to one in a folder of its lab.
        """
        path, key = self.filled_path(session), session.key
        adopted = self.adopted.session_at(path) if self.adopted is not None else None
        is_elsewhere = self.adopted is not None and path in self.adopted.elsewhere
        kept = self.kept_session(session).eid
        rank = (is_elsewhere, not key.lab, session.path)
        return Claim(session.path, key.eid_path, path, adopted.eid if adopted else None, kept, rank)

    def kept_session(self, session: Session) -> EarlierSession:
        """Return what earlier tables know of a session."""
        return self.kept.sessions.get(self.kept_key(session.key), NO_SESSION) if self.kept.sessions else NO_SESSION

    @property
    def may_collide(self) -> bool:
        """Whether two sessions may claim one eid: it may follow from more than the path."""
        return self.adopted is not None or bool(self.lab) or self.kept.has_eids

    @property
    def shows_hashes(self) -> bool:
        """Whether the hash column holds md5."""
        return self.with_hashes or (self.adopted is not None and self.adopted.has_digests)

    def given_eid(self, session: Session) -> bytes:
        """Return the eid, 16 bytes, that follows from the path of a session."""
        return ids.session_id(self.filled_path(session), self.namespace)

    def adopted_session(self, eid: bytes, session: Session) -> AdoptedSession | None:
        """Return what the database knows of a session; None if the session has another eid than in the database."""
        adopted = self._adopted(session)
        return adopted if adopted is not None and adopted.eid == eid else None

    def is_adopted(self, session: Session) -> bool:
        """Tell whether the database knows a session, even if another folder has its eid."""
        return self._adopted(session) is not None

    def n_rows(self, session: Session) -> int:
        """Return about how many rows a session has in both tables."""
        adopted = self._adopted(session) if self.adopted is not None and self.adopted.keep_missing else None
        return 1 + max(session.n_datasets, adopted.last - adopted.first if adopted else 0)

    def filled_path(self, session: Session) -> str:
        """Return ``(lab/)subject/date/number`` as the tables tell it: with the lab that the setting gives."""
        key = session.key
        return (key if key.lab or not self.lab else replace(key, lab=self.lab)).eid_path

    def adopt(self, adopted: Adoption) -> TableRules:
        """Return the same with what a newer state of a database knows."""
        return self.agree_with(adopted, adopted.without_adopted(self.all_kept))

    def agree_with(self, adopted: Adoption, kept: Earlier) -> TableRules:
        """Do what `adopt` does, with `kept` made beforehand: that takes seconds where there are a million datasets."""
        if self.n_recomputed:  # it may have been made before the person asked
            kept = kept.without_ids()
        return replace(self, adopted=adopted, kept=kept, carried=self.all_kept)

    @property
    def all_kept(self) -> Earlier:
        """What earlier tables know, also where a database knows better."""
        return self.kept if self.carried is None else self.carried

    def without_kept_ids(self) -> TableRules:
        """Return the same rules without the ids of earlier tables: ids follow from the paths and the database."""
        carried = self.all_kept.without_ids()
        kept = self.adopted.without_adopted(carried) if self.adopted is not None else carried
        return replace(self, kept=kept, carried=carried, n_recomputed=self.n_recomputed + 1)

    def complete(self, snapshot: Snapshot) -> Snapshot:
        """Add the sessions that only the database knows, if rows without a file are to be kept."""
        if self.adopted is None or not self.adopted.keep_missing:
            return snapshot
        known = self.adopted.sessions
        here = {each.eid for session in snapshot.sessions.values() if (each := self._adopted(session))}
        missing = {row.path: row for path, row in self.adopted.placeholders.items() if known[path].eid not in here}
        return replace(snapshot, sessions={**missing, **snapshot.sessions})

    def has_datasets(self, snapshot: Snapshot) -> bool:
        """Tell whether the datasets table has any row."""
        sessions = snapshot.sessions.values()
        if any(session.n_datasets for session in sessions):
            return True
        if self.adopted is None or not self.adopted.keep_missing:
            return False
        known = (adopted for session in sessions if (adopted := self._adopted(session)))
        return any(self.adopted.missing(each, np.empty(0, np.int64)) for each in known)

    def makes_same_columns(self, other: TableRules) -> bool:
        """Tell whether equal rows become equal columns."""
        digests = [each.adopted.digest if each.adopted else "" for each in (self, other)]
        return self == other and self.kept is other.kept and digests[0] == digests[1]

    def _adopted(self, session: Session) -> AdoptedSession | None:
        return self.adopted.session_at(self.filled_path(session)) if self.adopted is not None else None
