"""Which session gets which eid: each has its own, and it changes only where it must.

A session of a database comes first, then one that was given its eid before, then one that earlier tables know, then the
others in the order of paths. Each of the others gets the first of `ids.session_ids` that no other session has.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from alfwatchd.alf import ids


class Claim(NamedTuple):
    """What counts for a session when eids are given out.

    Parameters
    ----------
    path : str
        Of the session folder, relative to the root.
    key : str
        `SessionKey.eid_path`: the same for all spellings of the number.
    own_path : str
        What its own eids are made from: `key` with the lab that the setting gives.
    adopted : bytes or None
        Its eid in a database.
    earlier : bytes or None
        Its eid in earlier tables; None if that follows from its path.
    rank : tuple
        Where several sessions claim one eid of a database or of earlier tables, the one of lowest rank gets it.
    """

    path: str
    key: str
    own_path: str
    adopted: bytes | None
    earlier: bytes | None
    rank: tuple[bool, bool, str]


@dataclass(frozen=True, slots=True)
class Eids:
    """Eids as they were given out.

    Parameters
    ----------
    eids : mapping of str to bytes
        Session path -> eid, 16 bytes.
    odd : mapping of str to bytes
        `Claim.key` -> the eid of a session whose eid neither follows from its path nor comes from a database. Sessions
        that are gone stay here.
    adopted : set of str
        Paths of the sessions whose eid is that of a database.
    losers : set of str
        Paths of sessions whose eid in a database went to another folder.
    """

    eids: Mapping[str, bytes]
    odd: Mapping[str, bytes]
    adopted: Set[str]
    losers: Set[str]

    def own(self, claim: Claim) -> bytes | None:
        """Return the eid of a session if it is not that of a database; else None."""
        return self.eids.get(claim.path) if claim.path not in self.adopted else None


NO_EIDS = Eids({}, {}, frozenset(), frozenset())


def assign(claims: Iterable[Claim], before: Eids, namespace: uuid.UUID) -> Eids:
    """Give eids to all sessions.

    Parameters
    ----------
    claims : iterable of Claim
        Of all sessions.
    before : Eids
        What was given out last.
    namespace : uuid.UUID
    """
    round_ = _Round(before, namespace, frozenset[bytes]().__contains__)
    round_.give(sorted(claims))
    return Eids(round_.eids, round_.all_odd, round_.adopted, round_.losers)


def assign_new(
    came: Iterable[Claim],
    left: Set[str],
    before: Eids,
    holder: Callable[[bytes], str | None],
    namespace: uuid.UUID,
) -> Eids | None:
    """Give eids to some sessions, while all others keep theirs.

    Parameters
    ----------
    came : iterable of Claim
    left : set of str
        Paths of sessions that are gone.
    before : Eids
    holder : callable
        Returns the path of the session that has an eid in `before`, or None.
    namespace : uuid.UUID

    Returns
    -------
    Eids or None
        None if a session that is neither new nor gone may have to change its eid: then use `assign`.
    """

    def is_taken(eid: bytes) -> bool:
        path = holder(eid)
        return path is not None and path not in left

    claims = sorted(came)
    if before.losers and not left.isdisjoint(before.adopted):
        return None
    if any(claim.adopted is not None and is_taken(claim.adopted) for claim in claims):
        return None
    round_ = _Round(before, namespace, is_taken)
    round_.give(claims)
    eids = dict(before.eids)
    for path in left:
        del eids[path]
    eids.update(round_.eids)
    adopted, losers = (
        _patched(old, left, new) for old, new in ((before.adopted, round_.adopted), (before.losers, round_.losers))
    )
    return Eids(eids, round_.all_odd, adopted, losers)


def _patched(old: Set[str], left: Set[str], new: Set[str]) -> Set[str]:
    return old if old.isdisjoint(left) and not new else (old - left) | new


class _Round:
    """One time that eids are given out."""

    def __init__(self, before: Eids, namespace: uuid.UUID, is_taken: Callable[[bytes], bool]) -> None:
        self.eids: dict[str, bytes] = {}
        self.adopted: set[str] = set()
        self.losers: set[str] = set()
        self._before = before
        self._namespace = namespace
        self._is_taken = is_taken
        self._taken: set[bytes] = set()
        self._odd: dict[str, bytes] = {}
        self._no_longer_odd: set[str] = set()

    @property
    def all_odd(self) -> Mapping[str, bytes]:
        """`Eids.odd` of all sessions, also of those that are not here now."""
        old = self._before.odd
        if not (self._odd or self._no_longer_odd):
            return old
        return {**{key: old[key] for key in old.keys() - self._no_longer_odd}, **self._odd}

    def give(self, claims: list[Claim]) -> None:
        """Give eids to sessions, in the order of paths."""
        known = sorted((claim for claim in claims if claim.adopted is not None), key=attrgetter("rank"))
        for claim in known:
            (self.adopted if self._take(claim, claim.adopted) else self.losers).add(claim.path)
        rest = [claim for claim in claims if claim.path not in self.adopted]
        rest = [claim for claim in rest if not self._take_own(claim, self._before.own(claim))]
        rest = [claim for claim in rest if not self._take_own(claim, self._before.odd.get(claim.key))]
        for claim in sorted((claim for claim in rest if claim.earlier is not None), key=attrgetter("rank")):
            self._take_own(claim, claim.earlier)
        for claim in rest:
            if claim.path not in self.eids:
                any(self._take_own(claim, eid) for eid in ids.session_ids(claim.own_path, self._namespace))

    def _take_own(self, claim: Claim, eid: bytes | None) -> bool:
        if not self._take(claim, eid):
            return False
        if eid is not None and eid != ids.session_id(claim.own_path, self._namespace):
            self._odd[claim.key] = eid
        elif claim.key in self._before.odd:
            self._no_longer_odd.add(claim.key)
        return True

    def _take(self, claim: Claim, eid: bytes | None) -> bool:
        if eid is None or eid in self._taken or self._is_taken(eid):
            return False
        self._taken.add(eid)
        self.eids[claim.path] = eid
        return True
