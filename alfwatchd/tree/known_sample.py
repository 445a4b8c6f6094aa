"""Chooses the known sessions to look for at a start: nearly the same ones each time, and never more than 1000."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable
from typing import NamedTuple

MOST_KNOWN = 1000
"""Number of sessions that are looked for; each costs one ``stat``."""


class KnownSession(NamedTuple):
    """A session that should be there.

    Parameters
    ----------
    spellings : tuple of str
        Paths relative to the root that it may have.
    ino : int
        Inode of its folder when it was last seen; 0 if it is not known.
    """

    spellings: tuple[str, ...]
    ino: int = 0


def sample(sessions: Iterable[KnownSession], most: int = MOST_KNOWN) -> list[KnownSession]:
    """Return at most `most` sessions, always the same: first those with a known inode, then by a digest of the path."""
    return heapq.nsmallest(most, sessions, key=_rank)


def _rank(session: KnownSession) -> tuple[bool, int, str]:
    path = session.spellings[0]
    return not session.ino, zlib.crc32(path.encode("utf-8", "surrogateescape")), path
