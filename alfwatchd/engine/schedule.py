"""When to flush, and how the last flush ended. Times are on the caller's clock, in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from alfwatchd.figures import Durations

_SHORTEST_RETRY, _LONGEST_RETRY = 1.0, 60.0


@dataclass(slots=True)
class FlushSchedule:
    """Flushes at most every `interval` seconds, at once when a request waits, and less and less often after failures.

    Parameters
    ----------
    generation : int
        Generation of the tables on disk.
    interval : float
        Seconds between two flushes.
    written : int
        How many changes of rows the tables on disk hold; see `Snapshot.n_changes`.
    submitted : int or None
        How many the tables hold that are being written; None while nothing is written.
    last : float or None
        When the last flush succeeded; None if none has yet.
    last_seconds : float or None
        How long it took.
    error : str or None
        Why the last flush failed; None if it succeeded.
    changed_since : float or None
        When the tables in memory began to differ from those on disk; None if they do not.
    is_forced : bool
        Whether to write the tables even if all changes are on disk: another program replaced the files, or the same
        rows now give other columns.
    durations : Durations
        Of the flushes that succeeded.
    n_failures : int
        How many flushes failed.
    failing_since : float or None
        When the first flush failed of those after the last success; None if the last one succeeded.
    """

    generation: int
    interval: float
    written: int = 0
    submitted: int | None = None
    last: float | None = None
    last_seconds: float | None = None
    error: str | None = None
    changed_since: float | None = None
    is_forced: bool = False
    durations: Durations = field(default_factory=Durations)
    n_failures: int = 0
    failing_since: float | None = None
    _changed_later: float | None = None
    """When the tables in memory began to differ from those that are being written."""
    _is_rewriting: bool = False
    _n_failed: int = 0
    _last_failed: float = 0.0
    _not_before: float = 0.0

    def note(self, n_changes: int, now: float) -> None:
        """Note how many changes the tables in memory hold."""
        if n_changes != self.written and self.changed_since is None:
            self.changed_since = now
        if self.submitted is not None and n_changes != self.submitted and self._changed_later is None:
            self._changed_later = now

    def is_wanted(self, n_changes: int) -> bool:
        """Tell whether the tables should be written. Tables that an earlier process wrote are always written again."""
        return self.submitted is None and (self.is_forced or self.last is None or n_changes != self.written)

    def due(self, n_changes: int, *, awaited: bool) -> float | None:
        """Return when to flush; None if there is nothing to write.

        A request that waits (`awaited`) gets an attempt soon, also after a failure.
        """
        if not self.is_wanted(n_changes):
            return None
        if not awaited:
            return self._not_before
        return 0.0 if self.error is None else min(self._not_before, self._last_failed + _SHORTEST_RETRY)

    def force(self) -> None:
        """Have the tables written even if all changes are on disk."""
        self.is_forced = True

    def change_interval(self, seconds: float) -> None:
        """Set the seconds between two flushes; counts from the next flush."""
        self.interval = seconds

    def begin(self, n_changes: int, now: float) -> None:
        """Note that a snapshot was handed to the flusher."""
        self.submitted = n_changes
        self._is_rewriting, self.is_forced = self.is_forced, False
        self._not_before = now + self.interval

    def succeed(self, generation: int, seconds: float, now: float) -> None:
        """Note that the tables that were submitted are on disk, as this generation."""
        self.generation, self.written = generation, self.written if self.submitted is None else self.submitted
        self.submitted = None
        self.last, self.last_seconds = now, seconds
        self.changed_since, self._changed_later = self._changed_later, None
        self._is_rewriting = False
        self.error, self.failing_since, self._n_failed = None, None, 0
        self.durations.add(seconds)

    def fail(self, error: str, now: float) -> float:
        """Note that the tables could not be written; return the seconds until the next attempt."""
        wait = min(_LONGEST_RETRY, _SHORTEST_RETRY * 2.0 ** min(self._n_failed, 10))
        self.submitted, self.error, self.is_forced = None, error, True
        self.changed_since = now if self.changed_since is None else self.changed_since
        self._changed_later, self._is_rewriting = None, False
        self.failing_since = now if self.failing_since is None else self.failing_since
        self.n_failures += 1
        self._n_failed += 1
        self._last_failed, self._not_before = now, now + wait
        return wait

    def retry_now(self) -> None:
        """Try a failed flush again at once."""
        self._last_failed = self._not_before = -_SHORTEST_RETRY

    def has_reached(self, n_changes: int) -> bool:
        """Tell whether the tables on disk hold so many changes, and this process wrote them."""
        is_stale = self.last is None or self.is_forced or self._is_rewriting
        return not is_stale and self.written >= n_changes


class Timers:
    """When each of several things is due next, by name."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def is_due(self, name: str, now: float, interval: float) -> bool:
        """Tell whether something is due, and if so plan its next time.

        It is due for the first time `interval` seconds after the first call.
        """
        if now < self._due.setdefault(name, now + interval):
            return False
        self._due[name] = now + interval
        return True

    def make_due(self, name: str, now: float) -> None:
        """Make something due at `now`."""
        self._due[name] = now
