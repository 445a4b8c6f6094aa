"""What is to be done now and then. Times are on the caller's clock, in seconds."""

from __future__ import annotations


class Timers:
    """When each of some things is due next."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def is_due(self, name: str, now: float, interval: float) -> bool:
        """Tell whether something is due, and plan its next time; the first is an interval after the first question."""
        if now < self._due.setdefault(name, now + interval):
            return False
        self._due[name] = now + interval
        return True

    def make_due(self, name: str, now: float) -> None:
        """Let something be due at once."""
        self._due[name] = now
