"""Publishes after flushes, in one thread for each target: a dead target delays neither the daemon nor other targets."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from alfwatchd.api import TargetStatus
from alfwatchd.errors import AlfwatchdError, TargetChanged
from alfwatchd.publish.publication import Outcome, open_target, publish, remove_old
from alfwatchd.publish.schedule import PublishSchedule
from alfwatchd.publish.target import Target
from alfwatchd.settings import Publish

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0
"""How long `close` waits for all targets together. A publication may be cut off at any step."""
_QUIET_SECONDS = 30.0


class Publisher:
    """The threads that publish. Any thread may call `wake` and `status`, which return at once, and `close`.

    Parameters
    ----------
    out_dir : Path
        Folder of the tables that alfwatchd keeps.
    entries : sequence of Publish
    """

    def __init__(self, out_dir: Path, entries: Sequence[Publish]) -> None:
        self._lines = [_TargetThread(out_dir, entry) for entry in entries]

    def wake(self) -> None:
        """Say that the tables on disk have changed."""
        for line in self._lines:
            line.wake()

    def status(self) -> list[TargetStatus]:
        """Return the state of each target, in the order of the settings."""
        return [line.status() for line in self._lines]

    def close(self) -> None:
        """End the threads. One that hangs in a dead network is left behind."""
        for line in self._lines:
            line.ask_to_end()
        deadline = time.monotonic() + PATIENCE_SECONDS
        for line in self._lines:
            line.thread.join(max(0.0, deadline - time.monotonic()))
            if line.thread.is_alive():
                _log.warning("publishing was cut off by the end of the daemon target=%s", line.entry.target)


@dataclass(slots=True)
class _Last:
    """The last publication to a target, and the last error."""

    generation: str | None = None
    published_at: str | None = None
    error: str | None = None
    logged_error: str = ""
    logged_at: float = float("-inf")


class _TargetThread:
    """One target and its thread."""

    def __init__(self, out_dir: Path, entry: Publish) -> None:
        self._out_dir, self.entry = out_dir, entry
        self._news = threading.Condition()
        self._schedule = PublishSchedule(entry.interval_seconds)
        self._last = _Last()
        self._is_ending = False
        self._target: Target | None = None
        self.thread = threading.Thread(target=self._run, name=f"publisher {entry.target}", daemon=True)
        self.thread.start()

    def wake(self) -> None:
        with self._news:
            self._schedule.wake(time.monotonic())
            self._news.notify()

    def ask_to_end(self) -> None:
        with self._news:
            self._is_ending = True
            self._news.notify()

    def status(self) -> TargetStatus:
        now = time.monotonic()
        with self._news:
            lag, attempt = self._schedule.lag_seconds(now), self._schedule.next_attempt()
            return TargetStatus(
                target=self.entry.target,
                tag=self.entry.subset.tag,
                generation=self._last.generation,
                published_at=self._last.published_at,
                lag_seconds=round(lag, 3) if lag is not None else None,
                last_error=self._last.error,
                next_attempt=_iso_in(attempt - now) if attempt is not None else None,
            )

    def _run(self) -> None:
        """Publish whenever it is due, until the end, and note the result of each attempt."""
        while (must_publish := self._wait()) is not None:
            started = time.monotonic()
            try:
                outcome = self._attempt(must_publish=must_publish)
            except (AlfwatchdError, OSError) as error:
                self._fail(str(error), is_lost=isinstance(error, TargetChanged))
            except Exception as error:  # noqa: BLE001 - if the thread ended, its target would stay old unnoticed
                # Of an unexpected error only the type: its text may hold a request, and so a secret.
                self._fail(f"{self.entry.target}: unexpected {type(error).__name__}; please report it", is_lost=False)
            else:
                self._succeed(outcome, time.monotonic() - started)
        if self._target is not None:
            self._target.close()

    def _wait(self) -> bool | None:
        """Wait until there is something to do. Return whether to publish, or only to remove; None at the end."""
        with self._news:
            while not self._is_ending:
                now = time.monotonic()
                seconds = self._schedule.seconds_left(now)
                if seconds == 0:
                    must_publish = self._schedule.must_publish
                    self._schedule.begin(now)
                    return must_publish
                self._news.wait(None if seconds is None else min(seconds, threading.TIMEOUT_MAX))
        return None

    def _attempt(self, *, must_publish: bool) -> Outcome | float | None:
        if self._target is None:
            self._target = open_target(self.entry)
        if must_publish:
            return publish(self._out_dir, self.entry, self._target)
        return remove_old(self.entry, self._target)

    def _succeed(self, outcome: Outcome | float | None, seconds: float) -> None:
        """Note and log the result of an attempt, for `status` too."""
        wait = outcome.next_removal_seconds if isinstance(outcome, Outcome) else outcome
        with self._news:
            self._schedule.finish(time.monotonic(), wait)
            self._last.error, self._last.logged_error = None, ""
            if isinstance(outcome, Outcome):
                self._last.error = outcome.removal_error or None
                self._last.generation, self._last.published_at = outcome.name, _iso_in(0)
        if isinstance(outcome, Outcome) and outcome.removal_error:
            _log.warning("published, but not tidied up error=%s", outcome.removal_error)
        if isinstance(outcome, Outcome) and outcome.published:
            if not outcome.n_sessions:
                _log.warning("no session matches the subset, or there are none target=%s", self.entry.target)
            _log.info(
                "published target=%s tag=%s generation=%s date=%s sessions=%d datasets=%d seconds=%.3f",
                self.entry.target, self.entry.subset.tag, outcome.name, outcome.date,
                outcome.n_sessions, outcome.n_datasets, seconds,
            )  # fmt: skip

    def _fail(self, message: str, *, is_lost: bool) -> None:
        """Note a failed attempt and when the next one is due; log the same failure only now and then."""
        now = time.monotonic()
        with self._news:
            retry = self._schedule.fail(now, random.random())  # noqa: S311 - keeps nobody out
            last = self._last
            last.error = message
            is_old = message == last.logged_error and now - last.logged_at < _QUIET_SECONDS
            if not is_old:
                last.logged_error, last.logged_at = message, now
        if not is_old:
            level = logging.INFO if is_lost else logging.WARNING
            _log.log(level, "publishing failed error=%s retry_seconds=%.0f", message, retry)


def _iso_in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds")
