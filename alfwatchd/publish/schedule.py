"""When a target is to be brought up to date, and tried again. Times are seconds on the monotonic clock."""

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
        Least seconds between two publications, and most between two attempts.
    """

    interval_seconds: float
    changed_since: float | None = None
    """When the oldest change was flushed that no attempt has begun with."""
    begun_with: float | None = None
    """The same, of the attempt that is under way."""
    not_before: float = float("-inf")
    clean_at: float | None = None
    """When a replaced generation is old enough to go."""
    n_failures: int = 0

    def wake(self, now: float) -> None:
        """Take notice of a flush."""
        if self.changed_since is None:
            self.changed_since = now

    def seconds_left(self, now: float) -> float | None:
        """Return how long there is nothing to do; 0 if there is something, None if not before the next flush."""
        times = [max(self.changed_since, self.not_before)] if self.changed_since is not None else []
        times += [max(self.clean_at, self.not_before)] if self.clean_at is not None else []
        return max(0.0, min(times) - now) if times else None

    @property
    def must_publish(self) -> bool:
        """Whether there is a change; if not, an attempt only removes what is old."""
        return self.changed_since is not None

    def begin(self, now: float) -> None:
        """Begin an attempt; flushes from now on are for the next one."""
        self.begun_with, self.changed_since, self.clean_at = self.changed_since, None, None
        if self.begun_with is not None:
            self.not_before = now + self.interval_seconds

    def finish(self, now: float, next_removal_seconds: float | None) -> None:
        """Note that the target is up to date."""
        self.begun_with, self.n_failures = None, 0
        self.clean_at = now + next_removal_seconds if next_removal_seconds is not None else None

    def fail(self, now: float, chance: float) -> float:
        """Note that it could not be done, and return in how many seconds it is tried again.

        Parameters
        ----------
        now : float
        chance : float
            From 0 to 1, so that two publishers who were in each other's way do not meet again.
        """
        if self.begun_with is None:  # only what is old was to be removed
            self.clean_at = now
        else:
            self.changed_since, self.begun_with = self.begun_with, None
        seconds = _FIRST_RETRY_SECONDS * float(1 << min(self.n_failures, _MOST_DOUBLINGS))
        seconds = min(seconds, self.interval_seconds) * (0.5 + chance / 2)
        self.n_failures += 1
        self.not_before = now + seconds
        return seconds

    def lag_seconds(self, now: float) -> float | None:
        """Return the age of the oldest flush that is not at the target; None if there is none."""
        times = [time for time in (self.begun_with, self.changed_since) if time is not None]
        return now - min(times) if times else None

    def next_attempt(self) -> float | None:
        """Return when a change is to be published next; None where none waits, or an attempt is under way."""
        if self.begun_with is not None or self.changed_since is None:
            return None
        return max(self.changed_since, self.not_before)
