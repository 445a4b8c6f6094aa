"""Sessions and datasets that a reference nearly lists: under another spelling, lab, subject, number or id.

Each may be the one that is listed, under the name that it had then. So prune keeps it and says why.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from alfwatchd.alf import ids
from alfwatchd.prune.reference import Reference, fold_path, without_lab
from alfwatchd.tables.matching import CODE_BITS, composed, folded, split_uuid
from alfwatchd.tree.packed import unpack_signature
from alfwatchd.tree.rows import Session

HOMELESS = "listed without its session"
NEAR = "near miss"
_ALIKE = 0.5
"""Part of the datasets of a session that must be listed for another session of its date, for both to be the same."""


class NearMisses:
    """Says of a session or a dataset that is not listed which listed one it may be.

    Parameters
    ----------
    reference : Reference
    sessions : mapping of str to Session
        Session path -> session, all that are on disk.
    eids : mapping of str to bytes
        `SessionKey.eid_path` -> 16 bytes of the id that our own tables have for this session.
    namespace : uuid.UUID
        Namespace of the ids that paths give.
    """

    def __init__(
        self, reference: Reference, sessions: Mapping[str, Session], eids: Mapping[str, bytes], namespace: uuid.UUID
    ) -> None:
        self._reference = reference
        self._sessions = sessions
        self._eids = eids
        self._namespace = namespace

    def of_session(self, session: Session) -> str:
        """Return why a session that is not listed may be one that is listed; empty if nothing suggests that."""
        reference, path = self._reference, session.key.eid_path
        if other := reference.folded.get(folded(path)):
            return f"{NEAR}: the reference spells this session {other}"
        if other := reference.folded_labs.get(without_lab(folded(path))):
            return f"{NEAR}: the reference has this session in another lab, as {reference.folded[other]}"
        for eid in (self._eids.get(path), ids.session_id(path, self._namespace)):
            if eid is not None and (other := reference.session_ids.get(eid)):
                return f"{NEAR}: the reference has this session as {other}"
        if other := self._alike(session):
            return f"{NEAR}: the reference has {other}, which is not here, with the same datasets"
        return ""

    def of_dataset(self, numbers: Sequence[int], rel_path: str) -> str:
        """Return why a dataset that is not listed may be one that is listed; empty if nothing suggests that.

        Parameters
        ----------
        numbers : sequence of int
            `Reference.numbers_of` its session; empty if the session is not listed.
        rel_path : str
            Relative to the session.
        """
        reference = self._reference
        bare, own_id = split_uuid(composed(rel_path).encode())
        if bare in reference.homeless or own_id in reference.homeless_ids:
            return HOMELESS
        if own_id is not None and own_id in reference.dataset_ids:
            return "its id is listed: the reference has it for another path"
        for code in reference.folded_paths.get(fold_path(bare), ()) if numbers else ():
            if any(reference.rows.place(number, code) >= 0 for number in numbers):
                return f"{NEAR}: the reference spells it {reference.rows.paths[code].decode()}"
        return ""

    def _alike(self, session: Session) -> str:
        """Return a listed session of this lab and date that is not on disk and has at least half of these datasets."""
        day = (session.key.lab, session.key.date.isoformat())
        missing = self._missing_by_day.get(day, ())
        if not missing:
            return ""
        rows, sizes = self._reference.rows, self._reference.file_sizes
        named = [(rows.codes.get(composed(name).encode(), -1), value) for name, value in session.datasets()]
        codes = np.array([code for code, _ in named], np.int64)
        own_sizes = np.array([unpack_signature(value).file_size for _, value in named], np.int64)
        for path in missing:
            for number in self._reference.sessions[path]:
                wanted = (number << CODE_BITS) | codes
                places = np.minimum(np.searchsorted(rows.keys, wanted), len(rows.keys) - 1)
                is_listed = (codes >= 0) & (rows.keys[places] == wanted)
                is_equal = is_listed & ((sizes[places] <= 0) | (sizes[places] == own_sizes))
                if len(named) and is_equal.sum() >= _ALIKE * len(named):
                    return path
        return ""

    @cached_property
    def _missing_by_day(self) -> Mapping[tuple[str, str], Sequence[str]]:
        """(lab, date) -> sessions of the reference that are not on disk; no lab where a tree has no lab folders."""
        here = {number for session in self._sessions.values() for number in self._reference.numbers_of(session.key)}
        labs = {session.key.lab for session in self._sessions.values()}
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for path, numbers in self._reference.sessions.items():
            if here.isdisjoint(numbers):
                lab = path.partition("/")[0] if path.count("/") == 3 else ""
                date = path.split("/")[-2]
                for each in {lab, ""} if lab else labs:
                    found[each, date].append(path)
        return found
