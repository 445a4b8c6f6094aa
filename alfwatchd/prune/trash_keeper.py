"""Looks after the trash for a daemon, in threads of its own: empties it when it is due, and knows what lies there."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from alfwatchd.alf.grammar import TRASH
from alfwatchd.errors import AlfwatchdError, Busy
from alfwatchd.prune import empty_trash, trash_jobs
from alfwatchd.prune.empty_trash import TrashedPlan
from alfwatchd.settings import Settings
from alfwatchd.tree.rows import Problem

_log = logging.getLogger(__name__)

_AGAIN_SECONDS = 600.0
"""Wait after the trash could not be emptied or read."""
_MOST_TOLD = 20


class TrashKeeper:
    """Knows the trash of one root. All methods are for one thread; the work is done in others, one at a time.

    Parameters
    ----------
    settings : callable
        Returns the settings in force.
    wall_clock : callable
        Returns the time in seconds since 1970.
    """

    def __init__(self, settings: Callable[[], Settings], wall_clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._wall_clock = wall_clock
        self._plans: list[TrashedPlan] = []
        self._is_known = False
        self._trouble = ""
        self._not_before = 0.0
        self._thread: threading.Thread | None = None
        self._look_again = threading.Event()

    @property
    def n_bytes(self) -> int:
        """Bytes that lay in the trash at the last look."""
        return sum(plan.n_bytes for plan in self._plans)

    def problems(self) -> list[Problem]:
        """Return what a person should act on: a damaged trash, files that were written to."""
        found = [Problem("trash_damaged", TRASH, self._trouble)] if self._trouble else []
        for plan in self._plans:
            path, plan_id = f"{TRASH}/{plan.name}", plan.name.partition("-")[0]
            if plan.trouble:
                found.append(Problem("trash_damaged", path, f"{plan.trouble}; it is neither undone nor emptied"))
            if plan.n_written:
                message = (
                    f"{plan.n_written} files were written to since they were moved to the trash, so they are not "
                    f"deleted: bring them back with alfwatchd prune --undo {plan_id}"
                )
                found.append(Problem("trash_written", path, message))
        return found

    def look_again(self, *, may_empty: bool) -> None:
        """Look into the trash soon, because it has changed; `may_empty` as for `wake`."""
        self._look_again.set()
        self._start(may_empty=may_empty)

    def wake(self, *, may_empty: bool) -> None:
        """Empty the trash, in another thread, if anything in it is due; takes little time otherwise.

        Parameters
        ----------
        may_empty : bool
            Whether this is certainly the trash of the root that the daemon keeps; if not, it is only looked at.
        """
        now = self._wall_clock()
        is_due = any(_is_due(plan, now) for plan in self._plans) and may_empty
        if self._look_again.is_set() or ((is_due or not self._is_known) and now >= self._not_before):
            self._start(may_empty=may_empty)

    def join(self) -> None:
        """Wait for the end of the work that was begun."""
        if self._thread is not None:
            self._thread.join()

    def _start(self, *, may_empty: bool) -> None:
        if self._thread is not None and self._thread.is_alive():
            return  # the next `wake` comes soon
        self._thread = threading.Thread(target=self._work, args=(may_empty,), name="trash", daemon=True)
        self._thread.start()

    def _work(self, may_empty: bool) -> None:  # noqa: FBT001 - given to a thread
        """Empty what is due, and look at what is in the trash then."""
        self._look_again.clear()
        settings, now = self._settings(), self._wall_clock()
        trouble = self._empty_due(settings, now) if may_empty else ""
        try:
            self._plans = empty_trash.list_trashed(settings.root)
            self._is_known = True
        except (AlfwatchdError, OSError) as error:
            _log.warning("the trash cannot be looked at error=%s", error)
        self._trouble = trouble
        is_left = may_empty and any(_is_due(plan, now) for plan in self._plans)
        if trouble or is_left or not self._is_known:
            self._not_before = now + _AGAIN_SECONDS

    def _empty_due(self, settings: Settings, now: float) -> str:
        """Empty what is due; return why that failed, or an empty text."""
        try:
            reply = trash_jobs.empty_due(settings, _log.info, now, "the daemon's user")
            for item in reply.kept[:_MOST_TOLD]:
                _log.warning("stays in the trash path=%s reason=%s", item.path, item.reason)
        except Busy:
            return ""  # a prune runs; after its end the keeper looks again
        except (AlfwatchdError, OSError) as error:
            _log.warning("the trash is not emptied error=%s", error)
            return str(error)
        return ""


def _is_due(plan: TrashedPlan, now: float) -> bool:
    return plan.freed_at is None or plan.freed_at <= now
