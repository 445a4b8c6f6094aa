"""What the daemon counts, beside its status: the values behind the metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from alfwatchd.api import Request, Status
from alfwatchd.tree.sessions import Counts

BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
"""Upper bounds of the classes of durations, in seconds; longer ones have a class of their own."""

MOST_LABS = 50
"""The most labs with figures of their own: each is a series that a monitoring system keeps for months."""
OTHER_LABS = "other"
"""Name under which all further labs are put together."""


@dataclass(slots=True)
class Durations:
    """How often something was done, and how long it took. Changed by one thread; others get a `copy`.

    Parameters
    ----------
    counts : list of int
        One for each of `BOUNDS`, and one for what took longer.
    seconds : float
        Sum of all durations.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def copy(self) -> Durations:
        """Return the same counts, which do not change any more."""
        return replace(self, counts=self.counts.copy())


@dataclass(frozen=True, slots=True)
class Figures:
    """The status, and what else the daemon counts since it started."""

    status: Status
    labs: Mapping[str, Counts] = field(default_factory=dict)
    """Name of a lab -> its rows; see `limit_labs`."""
    problems: Mapping[str, int] = field(default_factory=dict)
    """Kind of a problem -> number of all such problems."""
    n_events: int = 0
    """File-system events."""
    scans: Mapping[str, Durations] = field(default_factory=dict)
    """Why a scan began, one of `index.scan_reasons.KINDS` -> the scans that ended."""
    flushes: Durations = field(default_factory=Durations)
    """Flushes that succeeded."""
    n_failed_flushes: int = 0
    unsaved_seconds: float = 0.0
    """How long flushes have been failing; 0 if the last one succeeded."""


@dataclass(frozen=True, slots=True)
class FiguresRequest(Request):
    """Answered at once with `Figures`."""


def limit_labs(labs: Mapping[str, Counts], most: int = MOST_LABS) -> dict[str, Counts]:
    """Return the labs with the most bytes by name, and all others together as `OTHER_LABS`.

    Parameters
    ----------
    labs : mapping of str to Counts
    most : int
        How many names to return, the one for the others included.
    """
    names = sorted(labs, key=lambda name: (-labs[name].n_bytes, name))
    if len(names) <= most:
        return {name: labs[name] for name in sorted(names)}
    kept = [name for name in names[: most - 1] if name != OTHER_LABS]
    rest = [labs[name] for name in names if name not in kept]
    return {name: labs[name] for name in sorted(kept)} | {OTHER_LABS: add_up(rest)}


def add_up(counts: Iterable[Counts]) -> Counts:
    """Return the totals over several labs."""
    columns = [(each.n_sessions, each.n_datasets, each.n_bytes) for each in counts]
    return Counts(*map(sum, zip(*columns, strict=True)))
