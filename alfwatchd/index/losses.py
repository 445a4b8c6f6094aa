"""Whether so many sessions are gone that a person must say whether this was meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

LEAST_LOST = 10
"""The loss of fewer sessions is never too much, unless no session is left."""


class Loss(NamedTuple):
    """Sessions that are gone.

    Parameters
    ----------
    n_gone : int
    n_known : int
        All that were known before, those that are gone included.
    n_new : int
        Sessions that came meanwhile: a renamed lab folder is gone and new.
    since : str
        Since when, for a person.
    """

    n_gone: int
    n_known: int
    n_new: int
    since: str

    def __str__(self) -> str:
        return f"{self.n_gone} of {self.n_known} sessions are gone and {self.n_new} are new since {self.since}"


def say_held(loss: Loss) -> str:
    """Return what a person should know and do while rows of lost sessions are held."""
    return (
        f"{loss}; their rows are kept. If a disk is missing, mount it. If the sessions were really removed, run "
        "alfwatchd rescan --accept-root (without a daemon: alfwatchd --once --accept-root)"
    )


def is_too_much(gone: Collection[str], n_known: int, staying: Iterable[str], max_fraction: float) -> bool:
    """Tell whether so many sessions are gone that their rows must be held.

    Parameters
    ----------
    gone : collection of str
        Paths of session folders.
    n_known : int
        Number of all that were known before.
    staying : iterable of str
        Paths of the known ones that are still there; read only where the other rules do not decide.
    max_fraction : float
        Part of all sessions, 0 to 1, that may go.
    """
    if not gone or (len(gone) < LEAST_LOST and len(gone) < n_known):
        return False
    if len(gone) >= n_known or len(gone) > max_fraction * n_known:
        return True
    return bool(set(map(lab_of, gone)) - set(map(lab_of, staying)))


def lab_of(path: str) -> str:
    """Return the lab folder of a session path; empty if it has none."""
    return path.partition("/")[0] if path.count("/") == 4 else ""
