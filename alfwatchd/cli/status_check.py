"""`alfwatchd status --check`: one line and an exit code, as monitoring plug-ins give them.

The form is that of the Monitoring Plugins Development Guidelines (https://www.monitoring-plugins.org/doc/guidelines.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alfwatchd.api import Status
from alfwatchd.errors import AlfwatchdError, NoDaemon, RequestFailed, WrongRoot

_CODES = {"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": 3}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found: the word for it, and the reason in one sentence."""

    word: Literal["OK", "WARNING", "CRITICAL", "UNKNOWN"]
    reason: str

    @property
    def code(self) -> int:
        """The exit code that stands for the word."""
        return _CODES[self.word]

    def line(self, figures: str = "") -> str:
        """Return the one line of the answer; `figures` is performance data, which a vertical bar divides from it."""
        text = " ".join(f"ALFWATCHD {self.word} - {self.reason}".replace("|", "/").split())
        return f"{text} | {figures}" if figures else text


def judge(status: Status) -> Verdict:
    """Return whether the tables can be trusted: only if they are saved, and the tree is live or polled in time."""
    if not status.saved:
        return Verdict("CRITICAL", f"the tables are not saved: {status.last_flush_error}")
    reason = f"{status.state}: {status.detail}"
    if status.state in ("offline", "held"):
        return Verdict("CRITICAL", reason)
    is_in_time = status.state == "live" or (status.state == "polled" and not status.polled_late)
    return Verdict("OK" if is_in_time else "WARNING", reason)


def judge_error(error: AlfwatchdError) -> Verdict:
    """Return what it means that the daemon gave no status: it is down or hangs, or this user may not ask it."""
    is_down = isinstance(error, NoDaemon | WrongRoot | RequestFailed)
    return Verdict("CRITICAL" if is_down else "UNKNOWN", str(error))


def figures(status: Status) -> str:
    """Return performance data: ``label=value[unit];warning;critical;minimum;maximum`` for each figure."""
    return " ".join(
        [
            f"sessions={status.n_sessions};;;0",
            f"datasets={status.n_datasets};;;0",
            f"bytes={status.n_bytes}B;;;0",
            f"behind={status.oldest_unflushed_seconds or 0:.3f}s;;;0",
            f"problems={status.n_problems};;;0",
            f"events_lost={status.events_lost}c;;;0",
            f"watches={status.watches};;;0;{status.watches_limit or ''}".rstrip(";"),
            f"unwatched={status.unwatched};;;0",
            f"hashes_pending={status.hashes_pending};;;0",
            f"trash={status.trash_bytes}B;;;0",
        ]
    )
