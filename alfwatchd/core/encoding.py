"""How rows become columns: which ids, and what is taken over from earlier tables and from a database."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace

import numpy as np

from alfwatchd.core import alf, ids
from alfwatchd.core.adoption import AdoptedSession, Adoption
from alfwatchd.core.rows import NOTHING_KEPT, Kept, KeptSession, Session
from alfwatchd.core.tables import Snapshot

_NO_SESSION = KeptSession(None, "", "")


@dataclass(frozen=True, slots=True)
class Encoding:
    """How rows become columns.

    Parameters
    ----------
    namespace : uuid.UUID
        Namespace of the eids.
    lab : str
        Lab of sessions in no lab folder; empty for none.
    with_hashes : bool
        Whether the hash column holds md5 (null where not known yet); if not, it is of null type.
    kept : Kept
        Columns carried over from earlier tables.
    adopted : Adoption or None
        What is taken over from a database, before all else.
    """

    namespace: uuid.UUID = ids.NAMESPACE
    lab: str = ""
    with_hashes: bool = False
    kept: Kept = field(default=NOTHING_KEPT, compare=False)
    adopted: Adoption | None = field(default=None, compare=False)

    def kept_key(self, key: alf.SessionKey) -> str:
        """Return the key under which `kept` knows a session: tables hold the filled-in lab, paths do not."""
        filled = alf.SessionKey(key.lab or self.kept.lab, key.subject, key.date, key.number).eid_path
        return filled if filled in self.kept.sessions or filled in self.kept.datasets else key.eid_path

    def eids(self, snapshot: Snapshot) -> dict[str, bytes]:
        """Return session path -> eid, 16 bytes, in the order of paths.

        The eid of a database, or one that was kept, goes to one session only: first to the one whose folder is that of
        the database's session, then to one in a folder of its lab.
        """
        if not self.has_shared_eids:
            return {path: self.eid(snapshot.sessions[path]) for path in sorted(snapshot.sessions)}
        sessions = sorted(snapshot.sessions.values(), key=self._claim)
        eids: dict[str, bytes] = {}
        taken: set[bytes] = set()
        for session in sessions:
            if (adopted := self._adopted(session)) and adopted.eid not in taken:
                eids[session.path] = adopted.eid
                taken.add(adopted.eid)
        for session in sessions:
            if session.path not in eids:
                kept = self.kept_session(session).eid
                eid = kept if kept and kept not in taken else self.given_eid(session)
                eids[session.path] = eid
                taken.add(eid)
        return dict(sorted(eids.items()))

    def kept_session(self, session: Session) -> KeptSession:
        """Return what earlier tables know of a session."""
        return self.kept.sessions.get(self.kept_key(session.key), _NO_SESSION) if self.kept.sessions else _NO_SESSION

    @property
    def has_kept(self) -> bool:
        """Whether anything is carried over from earlier tables that the next run must find there again."""
        return self.kept.shows

    @property
    def has_shared_eids(self) -> bool:
        """Whether an eid may follow from more than the path of its session: two may ask for the same."""
        may_share = self.adopted is not None and bool(self.lab or self.adopted.elsewhere)
        return may_share or any(session.eid for session in self.kept.sessions.values())

    @property
    def shows_hashes(self) -> bool:
        """Whether the hash column holds md5."""
        return self.with_hashes or (self.adopted is not None and self.adopted.has_digests)

    def eid(self, session: Session) -> bytes:
        """Return the eid, 16 bytes, of a session that shares it with no other."""
        adopted = self._adopted(session)
        return adopted.eid if adopted else self.given_eid(session)

    def given_eid(self, session: Session) -> bytes:
        """Return the eid, 16 bytes, that the path of a session gives."""
        return ids.session_id(session.key.eid_path, self.namespace)

    def adopted_session(self, eid: bytes, session: Session) -> AdoptedSession | None:
        """Return what the database knows of a session, if that is the one whose eid it has."""
        adopted = self._adopted(session)
        return adopted if adopted is not None and adopted.eid == eid else None

    def n_rows(self, session: Session) -> int:
        """Return about how many rows a session has in both tables."""
        adopted = self._adopted(session) if self.adopted is not None and self.adopted.keep_missing else None
        return 1 + max(session.n_datasets, adopted.last - adopted.first if adopted else 0)

    def filled_path(self, session: Session) -> str:
        """Return ``(lab/)subject/date/number`` as the tables tell it: with the lab that the setting gives."""
        key = session.key
        return (key if key.lab or not self.lab else replace(key, lab=self.lab)).eid_path

    def adopt(self, adopted: Adoption) -> Encoding:
        """Return the same with what a newer state of a database knows."""
        return replace(self, adopted=adopted, kept=adopted.without_adopted(self.kept))

    def complete(self, snapshot: Snapshot) -> Snapshot:
        """Add the sessions of the database of which nothing is here, if these are to be kept."""
        if self.adopted is None or not self.adopted.keep_missing:
            return snapshot
        known = self.adopted.sessions
        here = {each.eid for session in snapshot.sessions.values() if (each := self._adopted(session))}
        missing = {row.path: row for path, row in self.adopted.placeholders.items() if known[path].eid not in here}
        return Snapshot(snapshot.generation, {**missing, **snapshot.sessions})

    def has_datasets(self, snapshot: Snapshot) -> bool:
        """Tell whether the datasets table has any row."""
        sessions = snapshot.sessions.values()
        if any(session.n_datasets for session in sessions):
            return True
        if self.adopted is None or not self.adopted.keep_missing:
            return False
        known = (adopted for session in sessions if (adopted := self._adopted(session)))
        return any(self.adopted.missing(each, np.empty(0, np.int64)) for each in known)

    def makes_same_columns(self, other: Encoding) -> bool:
        """Tell whether equal rows become equal columns."""
        digests = [each.adopted.digest if each.adopted else "" for each in (self, other)]
        return self == other and self.kept is other.kept and digests[0] == digests[1]

    def _claim(self, session: Session) -> tuple[bool, bool, str]:
        """Return by what sessions that ask for one eid are sorted."""
        is_elsewhere = self.adopted is not None and self.filled_path(session) in self.adopted.elsewhere
        return is_elsewhere, not session.key.lab, session.path

    def _adopted(self, session: Session) -> AdoptedSession | None:
        return self.adopted.session_at(self.filled_path(session)) if self.adopted is not None else None
