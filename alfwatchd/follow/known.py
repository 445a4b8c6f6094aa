"""Up to which moment the tables on disk show all that happened. Pure."""

from __future__ import annotations

from alfwatchd.api import Status
from alfwatchd.follow.follower import seconds_of

UNKNOWN = float("-inf")
_TRUSTED = ("live", "polled", "held")


def known_until(status: Status, now: float) -> float:
    """Return the moment up to which every change that the daemon can know is in the tables on disk.

    A session is quiet only if this moment is far enough behind its last change: a daemon that has just started, or
    that has lost events, does not know yet what has changed.

    Parameters
    ----------
    status : Status
    now : float
        When the daemon was asked, in seconds since 1970.

    Returns
    -------
    float
        Minus infinity if nothing is known.
    """
    if status.state not in _TRUSTED:
        return UNKNOWN
    until = now - (status.oldest_unflushed_seconds or 0.0)
    if status.state == "polled":
        scans = (seconds_of(each.started) for each in status.rescans if each.seconds is not None)
        until = min(until, max(scans, default=UNKNOWN))
    return until
