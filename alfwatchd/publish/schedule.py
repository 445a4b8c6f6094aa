"""Decides when a target is brought up to date, and when tried again. Times are in seconds of CLOCK_MONOTONIC."""

from __future__ import annotations

from dataclasses import dataclass

_FIRST_RETRY_SECONDS = 5.0
_MOST_DOUBLINGS = 16


@dataclass(slots=True)
class PublishSchedule:
    """The turns of one target.

    Parameters
    ----------
    interval_seconds : float
        Least time between two publications, and longest time between two attempts.
    """

    interval_seconds: float
    changed_since: float | None = None
    """Time of the oldest flush that no attempt includes; None if there is none."""
    begun_with: float | None = None
    """Time of the oldest flush that the current attempt includes; None between attempts."""
    not_before: float = float("-inf")
    clean_at: float | None = None
    """When a replaced generation is old enough to be removed; None if there is none."""
    n_failures: int = 0

    def wake(self, now: float) -> None:
        """Note a flush."""
        if self.changed_since is None:
            self.changed_since = now

    def seconds_left(self, now: float) -> float | None:
        """Return the time until there is something to do: 0 for now, None for not before the next flush."""
        times = [max(self.changed_since, self.not_before)] if self.changed_since is not None else []
        times += [max(self.clean_at, self.not_before)] if self.clean_at is not None else []
        return max(0.0, min(times) - now) if times else None

    @property
    def must_publish(self) -> bool:
        """Whether there is a change to publish; if not, an attempt only removes old generations."""
        return self.changed_since is not None

    def begin(self, now: float) -> None:
        """Note the begin of an attempt; later flushes are for the next one."""
        self.begun_with, self.changed_since, self.clean_at = self.changed_since, None, None
        if self.begun_with is not None:
            self.not_before = now + self.interval_seconds

    def finish(self, now: float, next_removal_seconds: float | None) -> None:
        """Note that the attempt succeeded, and in how many seconds a generation can be removed (None: never)."""
        self.begun_with, self.n_failures = None, 0
        self.clean_at = now + next_removal_seconds if next_removal_seconds is not None else None

    def fail(self, now: float, chance: float) -> float:
        """Note that the attempt failed, and return in how many seconds the next one begins.

        Parameters
        ----------
        now : float
        chance : float
            Random number from 0 to 1, so that two publishers that collided do not do so again.
        """
        if self.begun_with is None:  # the attempt was only to remove old generations
            self.clean_at = now
        else:
            self.changed_since, self.begun_with = self.begun_with, None
        seconds = _FIRST_RETRY_SECONDS * float(1 << min(self.n_failures, _MOST_DOUBLINGS))
        seconds = min(seconds, self.interval_seconds) * (0.5 + chance / 2)
        self.n_failures += 1
        self.not_before = now + seconds
        return seconds

    def lag_seconds(self, now: float) -> float | None:
        """Return the age in seconds of the oldest flush that is not at the target; None if there is none."""
        times = [time for time in (self.begun_with, self.changed_since) if time is not None]
        return now - min(times) if times else None

    def next_attempt(self) -> float | None:
        """Return when the next attempt to publish begins; None if no change waits, or one is under way."""
        if self.begun_with is not None or self.changed_since is None:
            return None
        return max(self.changed_since, self.not_before)
