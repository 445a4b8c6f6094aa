"""Known sessions to look for: a sample that is nearly the same one each time, however many sessions there are."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable
from typing import NamedTuple

MOST_KNOWN = 1000
"""Sessions that are looked for; one look at each."""


class KnownSession(NamedTuple):
    """A session that should be there.

    Parameters
    ----------
    spellings : tuple of str
        Paths below the root that it may have.
    ino : int
        Inode of its folder when it was last seen; 0 if that is not known.
    """

    spellings: tuple[str, ...]
    ino: int = 0


def sample(sessions: Iterable[KnownSession], most: int = MOST_KNOWN) -> list[KnownSession]:
    """Return some of the sessions: those with a known inode, then by their path, so that the next one is the same."""
    return heapq.nsmallest(most, sessions, key=_rank)


def _rank(session: KnownSession) -> tuple[bool, int, str]:
    path = session.spellings[0]
    return not session.ino, zlib.crc32(path.encode("utf-8", "surrogateescape")), path
