"""The kinds of reasons for which a scan begins: few enough that each can be a series of a monitoring system."""

from __future__ import annotations

_KINDS = {
    "start": "start",
    "once": "start",
    "reconcile": "reconcile",
    "sync": "sync",
    "a sync cookie did not come back": "lost_cookie",
    "sessions are gone that no event told of": "gone_sessions",
    "root is back": "root_back",
    "mounts changed": "mounts",
    "exclude changed": "settings",
}
"""Text of a reason -> its kind."""
_RESCAN, _LOST_EVENTS = "rescan", "lost_events"

KINDS = tuple(sorted({*_KINDS.values(), _RESCAN, _LOST_EVENTS}))
"""All kinds."""


def kind_of(reason: str) -> str:
    """Return the kind of a reason; a text that is not listed here says how events were lost."""
    if reason.partition(" ")[0] == _RESCAN:
        return _RESCAN
    return _KINDS.get(reason, _LOST_EVENTS)
