"""Which sessions share a row group, and which row groups a new snapshot changes.

Sessions are grouped by the first bits of their eid: the table stays in the order of eids, a session never moves to
another group, and all groups have about the same size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alfwatchd.core.encode import Encoding
from alfwatchd.core.rows import Session
from alfwatchd.core.tables import Snapshot

ROWS_PER_GROUP = 1 << 14
"""What a group should hold: as little as possible to encode again, enough for Parquet to compress well."""

_MOST_BITS = 12


@dataclass(frozen=True, slots=True)
class Partition:
    """What the file in force holds.

    Parameters
    ----------
    n_bits : int
        There are ``2 ** n_bits`` groups.
    sessions : mapping of str to Session
        By session path.
    eids : mapping of str to bytes
        Session path -> eid, 16 bytes.
    """

    n_bits: int
    sessions: Mapping[str, Session]
    eids: Mapping[str, bytes]

    def group_of(self, path: str) -> int:
        """Return the number of the group that a session is in."""
        return int.from_bytes(self.eids[path][:2]) >> (16 - self.n_bits)


def plan_groups(
    old: Partition | None, snapshot: Snapshot, encoding: Encoding
) -> tuple[Partition, dict[int, list[tuple[bytes, Session]]]]:
    """Say which groups must be written, and with what.

    Parameters
    ----------
    old : Partition or None
        What the file in force holds; None to write everything.
    snapshot : Snapshot
    encoding : Encoding
        Gives the eids.

    Returns
    -------
    Partition
        What the file will hold.
    dict of int to list of (bytes, Session)
        Group -> its sessions with their eids, in the order of eids; empty for a group to be removed.
    """
    has_same_sessions = old is not None and old.sessions.keys() == snapshot.sessions.keys()
    eids = old.eids if old is not None and has_same_sessions else encoding.eids(snapshot)
    n_rows = sum(session.n_datasets for session in snapshot.sessions.values())
    if old is not None and not _fits(old.n_bits, n_rows):
        old = None
    n_bits = old.n_bits if old is not None else min(_MOST_BITS, max(0, (n_rows // ROWS_PER_GROUP)).bit_length())
    new = Partition(n_bits, snapshot.sessions, eids)
    if old is None:
        changed = set(range(1 << n_bits))
    else:
        before = old.sessions
        changed = {new.group_of(path) for path, each in new.sessions.items() if before.get(path) is not each}
        changed |= {old.group_of(path) for path in before.keys() - new.sessions.keys()}
    groups: dict[int, list[tuple[bytes, Session]]] = {group: [] for group in sorted(changed)}
    for path, session in new.sessions.items() if changed else ():
        members = groups.get(new.group_of(path))
        if members is not None:
            members.append((eids[path], session))
    for members in groups.values():
        members.sort(key=lambda member: member[0])
    return new, groups


def _fits(n_bits: int, n_rows: int) -> bool:
    """Tell whether groups are neither so large that a flush is slow nor so small that readers are."""
    average = n_rows >> n_bits
    return average <= 2 * ROWS_PER_GROUP and (n_bits == 0 or 4 * average >= ROWS_PER_GROUP)
