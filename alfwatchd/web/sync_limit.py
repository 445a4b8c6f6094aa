"""How often a user without control rights may ask for a sync: on a polled tree, each one costs a scan."""

from __future__ import annotations

from collections import OrderedDict

SYNC_SECONDS = 10.0
"""Least time between two syncs of a user."""
MOST_USERS = 4096
"""Of how many users the last sync is remembered."""


class SyncLimit:
    """Counts the syncs of each user; time is passed in. Used by one thread.

    Parameters
    ----------
    seconds : float
        Least time between two syncs of a user.
    most_users : int
        If more users ask within this time, some of them have to wait, so that the memory stays bounded.
    """

    def __init__(self, seconds: float = SYNC_SECONDS, most_users: int = MOST_USERS) -> None:
        self._seconds = seconds
        self._most_users = most_users
        self._asked: OrderedDict[int, float] = OrderedDict()
        """User -> when it last asked, the earliest first."""

    def take(self, uid: int, now: float) -> float:
        """Let a user sync now, or return how many seconds it has to wait; 0 means that it may.

        A request that has to wait does not count.
        """
        while self._asked and self._left(next(iter(self._asked)), now) <= 0:
            self._asked.popitem(last=False)
        if uid in self._asked:
            return self._left(uid, now)
        if len(self._asked) >= self._most_users:
            return self._left(next(iter(self._asked)), now)
        self._asked[uid] = now
        return 0.0

    def _left(self, uid: int, now: float) -> float:
        return self._asked[uid] + self._seconds - now
