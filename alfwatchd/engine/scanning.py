"""When a scan begins, how much of it one step does, and what follows its end."""

from __future__ import annotations

import logging

from alfwatchd.engine.model import EngineModel
from alfwatchd.index.look_queue import Scan

_log = logging.getLogger(__name__)

_REST_SECONDS = 2.0
_STEP_SECONDS = 0.2
"""Time that one step may spend on looks at the disk. Clients are answered between steps, on a slow disk too."""


class Scanning:
    """Has the indexer scan, one unit per step. Engine's thread only.

    Times are on the engine's clock, in seconds.

    Parameters
    ----------
    model : EngineModel
    """

    def __init__(self, model: EngineModel) -> None:
        self._model = model
        self._indexer = model.indexer
        self._has_scanned = False
        self.last_ended = 0.0
        """When the last scan of everything ended; 0 if none has yet."""
        self._paced_until = 0.0
        """The scan that reconciles now and then goes on at this time."""
        self._rest_until = 0.0
        """No scan because of lost events begins before this time."""

    def step(self, now: float) -> None:
        """Look at one unit of what is due, and hand on what changed.

        Raises
        ------
        RootOffline
            The root is missing, or another disk or folder than before.
        """
        self._begin_wanted(now)
        model, indexer = self._model, self._indexer
        is_paced = self._is_paced
        may_go_on = not is_paced or now >= self._paced_until
        end = model.stopwatch() + _STEP_SECONDS
        n_entries = indexer.scan(now, lambda: model.stopwatch() > end, background=may_go_on)
        if is_paced and may_go_on and model.settings.reconcile_entries_per_second:
            self._paced_until = now + n_entries / model.settings.reconcile_entries_per_second
        for ended in indexer.take_ended():
            self._note_ended(ended, now)
        committed = indexer.take_committed()
        if model.hashes is not None:
            model.hashes.submit(committed, indexer)
            indexer.commit()  # before a flush: digests that were recorded are no later change
        model.first_seen.note(indexer, model.wall_clock().timestamp())
        model.flushes.note(indexer.tables.n_changes, now)

    def reconcile_if_due(self, now: float) -> None:
        """Begin to scan everything at a slow pace, more often where events do not tell of every change."""
        indexer, settings = self._indexer, self._model.settings
        is_complete = not self._model.is_polled and not indexer.watch.unwatched
        interval = settings.reconcile_interval_seconds if is_complete else settings.poll_interval_seconds
        if indexer.queue.current is None and indexer.scans_done and now - self.last_ended >= interval:
            indexer.start_scan("reconcile", now, paced=True)

    def next_times(self) -> list[float | None]:
        """Return the times at which a step has something to look at; None stands for never."""
        return [
            self._indexer.dirty.next_due(),
            self._paced_until if self._is_paced else None,
            self._rest_until if self._why_scan else None,
        ]

    @property
    def _is_paced(self) -> bool:
        current = self._indexer.queue.current
        return current is not None and current.paced

    @property
    def _why_scan(self) -> str:
        return self._model.pending_scan or self._indexer.why_scan

    def _begin_wanted(self, now: float) -> None:
        """Begin a scan of everything if one is wanted, as after events were lost.

        It does not begin while another one runs, nor soon after one. Otherwise the daemon would scan all the time while
        events are lost again and again.
        """
        reason = self._why_scan
        if reason and now >= self._rest_until and not self._indexer.queue.unpaced_scans:
            self._model.barriers.scan_started(self._indexer.start_scan(reason, now))
            self._model.forget_wanted_scan()

    def _note_ended(self, ended: Scan, now: float) -> None:
        """Log what a scan changed. After a scan of the whole tree, let the next one wait for a while."""
        seconds, counts, changes = ended.seconds or 0.0, self._indexer.tables.counts, ended.changes
        _log.info(
            "rescan done root=%s sessions=%d datasets=%d added=%d changed=%d removed=%d seconds=%.2f reason=%s",
            self._model.settings.root, counts.n_sessions, counts.n_datasets, changes.added, changes.changed,
            changes.removed, seconds, ended.reason,
        )  # fmt: skip
        self._model.note_scan(ended.reason, seconds)
        if not self._has_scanned:
            self._has_scanned = True
            self._model.first_scan_done()
        if not ended.top:
            self._indexer.absences.note_time(self._model.now_for_people())
            self._rest_until = now + max(_REST_SECONDS, 2 * seconds)
            self.last_ended = now
