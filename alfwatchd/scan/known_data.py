"""Looks for known sessions on disk: if no identity tells whether it is the right disk, the data decide."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from alfwatchd.scan.place import Seen
from alfwatchd.tree.known_sample import KnownSession, sample


class Known(Protocol):
    """What sessions there should be."""

    def is_empty(self) -> bool:
        """Tell whether none is known."""

    def sample(self, belongs: Callable[[str], bool]) -> Sequence[KnownSession]:
        """Return some of those whose path, below the root, fits; always nearly the same ones."""


class Listed:
    """Known sessions that are listed one by one.

    Parameters
    ----------
    sessions : iterable of KnownSession
    """

    def __init__(self, sessions: Iterable[KnownSession] = ()) -> None:
        self._sessions = list(sessions)

    def is_empty(self) -> bool:
        """Tell whether none is known."""
        return not self._sessions

    def sample(self, belongs: Callable[[str], bool]) -> Sequence[KnownSession]:
        """Return some of those whose path fits."""
        return sample(each for each in self._sessions if belongs(each.spellings[0]))


def look_for(root: str, sessions: Iterable[KnownSession]) -> Seen:
    """Count which of the sessions are there; one that cannot be looked at counts as missing."""
    n_known = n_named = n_numbered = n_same = 0
    for session in sessions:
        n_known += 1
        about = next(filter(None, (_look(f"{root}/{path}") for path in session.spellings)), None)
        if about is None:
            continue
        n_named += 1
        if session.ino and stat.S_ISDIR(about.st_mode):
            n_numbered += 1
            n_same += session.ino == about.st_ino
    return Seen(n_known, n_named, n_numbered, n_same)


def _look(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (OSError, ValueError):
        return None
