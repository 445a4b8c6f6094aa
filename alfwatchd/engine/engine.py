"""The engine: one thread that owns all that changes, in a loop that can be stepped. Time is passed in, in seconds."""

from __future__ import annotations

import logging
from concurrent.futures import Future

from alfwatchd.api import DaemonState, PrunedNotice, RemovingNotice, refuse
from alfwatchd.database.adopter import Adopted
from alfwatchd.engine import messages
from alfwatchd.engine.barriers import Barrier, Barriers, answer_flush
from alfwatchd.engine.messages import Message
from alfwatchd.engine.model import EngineModel
from alfwatchd.engine.requests import answer_request, reload_settings, why_unsure
from alfwatchd.engine.schedule import FlushSchedule, Timers
from alfwatchd.engine.status import find_state
from alfwatchd.errors import AlfwatchdError, RootOffline, TablesError
from alfwatchd.index.look_queue import Scan
from alfwatchd.index.worker_pool import Crawled
from alfwatchd.scan.hasher import Hashed
from alfwatchd.scan.mounts import WATCHABLE
from alfwatchd.settings import Settings
from alfwatchd.store.flusher import Flushed, FlushFailed
from alfwatchd.store.id_history import IdsChanged
from alfwatchd.tables.rules import TableRules
from alfwatchd.watch.events import EventsLost, PathsChanged

_log = logging.getLogger(__name__)

_OFFLINE_RETRY_SECONDS = 5.0
_UNREADABLE_RETRY_SECONDS = 30.0
_FOREIGN_CHECK_SECONDS = 2.0
_MOUNT_CHECK_SECONDS = 1.0
_TRASH_CHECK_SECONDS = 5.0
_LONGEST_SLEEP_SECONDS = 1.0
_REST_SECONDS = 2.0
_STOP_SECONDS = 60.0
_STEP_SECONDS = 0.2
"""Of looks at the disk in one step, after which clients are answered: on a slow disk, a few looks take that long."""


class Engine:
    """Drains the inbox, scans a unit, flushes if due; `step` does a bit of each and never waits.

    Parameters
    ----------
    settings : Settings
    rules : TableRules
        How rows become columns.
    model : EngineModel
    """

    def __init__(self, settings: Settings, rules: TableRules, model: EngineModel) -> None:
        self.settings = settings
        self.rules = rules
        self.model = model
        self.indexer = model.indexer
        self.flushes = FlushSchedule(self.indexer.tables.generation, settings.flush_interval_seconds)
        self.barriers = Barriers(self.indexer, self.flushes)
        self.events_lost = 0
        self.offline = "the daemon has just started"
        """Why the root is offline; empty while it is online."""
        self._offline_since = self._now_for_people()
        self.state: DaemonState = "starting"
        self.state_since = 0.0
        self.may_flush = True
        self.is_done = False
        self.unsaved = ""
        """Why the last flush failed; empty if it did not."""
        self.last_flush: Barrier | None = None
        """What the end waits for, once it has begun."""
        self._timers = Timers()
        self._timers.make_due("root", 0.0)
        self._timers.make_due("trash", 0.0)
        self._paced_until = 0.0
        self._rest_until = 0.0
        self._last_scan_ended = 0.0
        self.pending_scan = ""
        """Why everything must be scanned, which has not begun; empty if nothing must."""
        self._n_mount_changes = 0
        self._has_started = False
        self.n_recomputed_ids = 0
        """How many ids the last tables changed of which that was told."""

    # The loop.

    def step(self, now: float) -> float:
        """Do what is due.

        Returns
        -------
        float
            Seconds that may pass before the next step, unless a message comes.
        """
        if self.offline:  # first of all, so that no request meets a root that nobody has looked for yet
            self._try_root(now)
        for message in self.model.inbox.drain():
            self._take(message, now)
        if not self.offline:
            self._scan(now)
            self._look_around(now)
        self.barriers.advance(now)
        self._flush_if_due(now)
        self._note_state(now)
        self._stop_if_flushed(now)
        return self._sleep_seconds(now)

    def close(self) -> None:
        """Fail what still waits and end the watcher."""
        self.barriers.fail_all(AlfwatchdError("the daemon is stopping; ask again when it is back"))
        self.indexer.close()

    # Messages.

    def _take(self, message: Message, now: float) -> None:
        match message:
            case PathsChanged():
                self.indexer.marks.mark_events(message.folders, message.unwatched, now)
                for name in message.cookies:
                    self.indexer.watch.cookie_returned(name)
                    self.indexer.absences.cookie_returned(name)
                    self.barriers.cookie_returned(name, events_lost=bool(self.pending_scan))
            case EventsLost():
                if message.reader_alive:
                    self.indexer.watch.excuse_heartbeat()
                else:
                    self.indexer.watch.renew(now)
                self._lose_events(message.reason)
            case Crawled():
                self.indexer.receive(message)
            case Flushed():
                self.flushes.succeed(message.generation, message.seconds, now)
            case FlushFailed():
                self._take_failed_flush(message.error, now)
            case Hashed():
                if self.model.hashes is not None:
                    self.model.hashes.accept(message, self.indexer, now)
            case Adopted():
                self._adopt(message)
            case IdsChanged():
                self.n_recomputed_ids = message.n_changes
                if self.model.adopter is not None:
                    self.model.adopter.note_counts(message)
            case RemovingNotice():
                self.indexer.absences.tell_pruned(message.session)
            case PrunedNotice():
                self.indexer.absences.end_prune()
                if self.model.trash is not None:
                    self.model.trash.look_again(may_empty=self._may_delete)
                for folder in filter(None, map(self.indexer.tree.find, message.folders)):
                    self.indexer.marks.mark_folder(folder, now)
            case messages.Stop():
                self._begin_stop(now)
            case messages.Reload():
                reload_settings(self)
            case _:
                try:
                    answer_request(self, message, now)
                except AlfwatchdError as error:
                    refuse(message.reply, error)

    def require_online(self) -> None:
        """Raise `RootOffline` while the root is."""
        if self.offline:
            raise self._offline_error()

    def require_root(self, now: float) -> None:
        """Look now, rather than when it is due, whether root and mounts are what they were."""
        self.look_at_root(now)
        if self.offline:
            self._timers.make_due("root", now)
            self._try_root(now)
        self.require_online()

    def look_at_root(self, now: float) -> None:
        """Look now whether root and mounts are what they were, and go offline if not."""
        if self.offline:
            return
        self._look_at_mounts()
        try:
            self.indexer.guard.check()
        except RootOffline as error:
            self._go_offline(str(error), now)

    def _offline_error(self) -> RootOffline:
        return RootOffline(
            f"{self.offline}; offline since {self._offline_since}: its rows are kept, and the daemon goes on by itself "
            "when it is back"
        )

    # Scanning.

    def _lose_events(self, reason: str) -> None:
        self.events_lost += 1
        self.indexer.absences.lose_events()
        _log.warning("events lost, scanning everything reason=%s", reason)
        self.pending_scan = reason
        self.indexer.heard.lose()

    def _start_pending_scan(self, now: float) -> None:
        """Scan everything after events were lost.

        Not while another scan runs, and not at once after one: a storm would keep the daemon scanning for ever.
        """
        reason = self.pending_scan or self.indexer.why_scan
        if reason and now >= self._rest_until and not self.indexer.queue.unpaced_scans:
            self.barriers.scan_started(self.indexer.start_scan(reason, now))
            self.pending_scan = ""

    def _scan(self, now: float) -> None:
        self._start_pending_scan(now)
        current = self.indexer.queue.current
        is_paced = current is not None and current.paced
        may_go_on = not is_paced or now >= self._paced_until
        stopwatch, end = self.model.stopwatch, self.model.stopwatch() + _STEP_SECONDS
        try:
            n_entries = self.indexer.scan(now, lambda: stopwatch() > end, background=may_go_on)
        except RootOffline as error:
            self._go_offline(str(error), now)
            return
        if is_paced and may_go_on and self.settings.reconcile_entries_per_second:
            self._paced_until = now + n_entries / self.settings.reconcile_entries_per_second
        for ended in self.indexer.take_ended():
            self._note_ended_scan(ended, now)
        committed = self.indexer.take_committed()
        if self.model.hashes is not None:
            self.model.hashes.submit(committed, self.indexer)
        self.model.first_seen.note(self.indexer, self.model.wall_clock().timestamp())
        self.flushes.note(self.indexer.tables.generation, now)

    def _note_ended_scan(self, ended: Scan, now: float) -> None:
        seconds, counts, changes = ended.seconds or 0.0, self.indexer.tables.counts, ended.changes
        _log.info(
            "rescan done root=%s sessions=%d datasets=%d added=%d changed=%d removed=%d seconds=%.2f reason=%s",
            self.settings.root, counts.n_sessions, counts.n_datasets, changes.added, changes.changed, changes.removed,
            seconds, ended.reason,
        )  # fmt: skip
        if not self._has_started:
            self._has_started = True
            self.model.first_scan_done()
        if not ended.top:
            self.indexer.absences.note_time(self._now_for_people())
            self._rest_until = now + max(_REST_SECONDS, 2 * seconds)
            self._last_scan_ended = now

    # The root.

    def _go_offline(self, reason: str, now: float) -> None:
        _log.error("root offline, rows are kept reason=%s", reason)
        self.offline = reason
        self._offline_since = self._now_for_people()
        self.indexer.forget_work()
        self.pending_scan = ""
        self._timers.make_due("root", now)
        self.barriers.fail_all(self._offline_error())

    def _try_root(self, now: float) -> None:
        """Look now and then, and at once when something is mounted, whether the root is back."""
        guard = self.indexer.guard
        guard.poll_mounts()
        if guard.n_mount_changes != self._n_mount_changes:
            self._n_mount_changes = guard.n_mount_changes
            self._timers.make_due("root", now)
        if not self._timers.is_due("root", now, _OFFLINE_RETRY_SECONDS):
            return
        try:
            self.open_root(now)
        except RootOffline as error:
            if str(error) != self.offline:
                _log.error("root offline, rows are kept reason=%s", error)
            self.offline = str(error)

    def open_root(self, now: float, *, accept: bool = False) -> None:
        """Begin, or begin again, to look at the root; see `Indexer.open_root`."""
        self.indexer.open_root(accept=accept)
        if self.indexer.scans_done:
            _log.info("root online root=%s", self.settings.root)
        self.offline = ""
        if not self.indexer.watch.is_on:
            self.indexer.watch.renew(now)
        self.indexer.start_scan("root is back" if self.indexer.scans_done else "start", now)

    def _now_for_people(self) -> str:
        return self.model.wall_clock().isoformat(timespec="seconds")

    # What is looked at now and then.

    def _look_around(self, now: float) -> None:
        settings, indexer = self.settings, self.indexer
        if self._timers.is_due("mounts", now, _MOUNT_CHECK_SECONDS):
            self._look_at_mounts()
        is_complete = not self.is_polled and not indexer.watch.unwatched
        interval = settings.reconcile_interval_seconds if is_complete else settings.poll_interval_seconds
        if indexer.queue.current is None and indexer.scans_done and now - self._last_scan_ended >= interval:
            indexer.start_scan("reconcile", now, paced=True)
        if self._timers.is_due("links", now, settings.poll_interval_seconds):
            indexer.marks.mark_linked(now)
        if self._timers.is_due("unreadable", now, _UNREADABLE_RETRY_SECONDS):
            indexer.marks.retry_unreadable(now)
        if broken := indexer.watch.beat(now):
            self._lose_events(broken)
        if self.model.trash is not None and self._timers.is_due("trash", now, _TRASH_CHECK_SECONDS):
            self.model.trash.wake(may_empty=self._may_delete)
        if self._timers.is_due("foreign", now, _FOREIGN_CHECK_SECONDS):
            self.look_for_foreign_writes(now)

    @property
    def _may_delete(self) -> bool:
        """Whether what is due in the trash may be deleted: the root is surely the one that it belongs to."""
        return bool(self.indexer.scans_done) and not self.offline and not why_unsure(self)

    def _look_at_mounts(self) -> None:
        guard = self.indexer.guard
        guard.poll_mounts()
        if guard.n_mount_changes != self._n_mount_changes:
            self._n_mount_changes = guard.n_mount_changes
            self.pending_scan = self.pending_scan or "mounts changed"

    def look_for_foreign_writes(self, now: float) -> None:
        """Have the tables written again if another program changed them, not if something hides their folder."""
        flushes = self.flushes
        if flushes.last is None or flushes.submitted is not None or flushes.is_forced:
            return
        if self.model.flusher.store.is_untouched():
            return
        self.look_at_root(now)
        if not self.offline:
            _log.warning("another program changed the tables, writing them again out_dir=%s", self.settings.out_dir)
            flushes.is_forced = True

    # Flushes.

    def _flush_if_due(self, now: float) -> None:
        due = self._flush_due(now)
        if due is not None and due <= now:
            self.flushes.begin(self.indexer.tables.generation, now)
            self.model.flusher.submit(self.indexer.snapshot(), self.rules)

    def _take_failed_flush(self, error: str, now: float) -> None:
        wait = self.flushes.fail(error, now)
        self.unsaved = error if self.last_flush else ""
        _log.error("flush failed, tables on disk are old retry_seconds=%.0f error=%s", wait, error)
        why = f"{error}; the changes are kept in memory, the next attempt follows in {wait:.0f} s"
        self.barriers.fail_flush(TablesError(why))

    def _flush_due(self, now: float) -> float | None:
        """Return when to flush. Never before the first scan is complete, and never into a root that is gone."""
        is_complete = self.indexer.scans_done and not self.awaits_database(now)
        if self.offline or not is_complete or not self.may_flush:
            return None
        return self.flushes.due(self.indexer.tables.generation, awaited=self.barriers.await_flush)

    def _adopt(self, message: Adopted) -> None:
        if self.model.adopter is not None:
            self.model.adopter.accept(message)
        if message.adoption is not None and message.kept is not None:
            self.rules = self.rules.agree_with(message.adoption, message.kept)
            self.flushes.is_forced = True

    def awaits_database(self, now: float) -> bool:
        """Tell whether nothing is flushed before the database has been looked at."""
        return self.model.adopter is not None and self.model.adopter.is_pending(now)

    # The end.

    def _begin_stop(self, now: float) -> None:
        """Take in what changed so far and flush; where that takes a scan of everything, only flush."""
        if self.last_flush is not None:
            return
        self.last_flush = Barrier(Future(), now, answer_flush, may_scan=False)
        self.flushes.retry_now()
        if self.offline or not self.indexer.scans_done or self.awaits_database(now):
            self.last_flush.finish(now)
            return
        if not self.is_polled:
            self.last_flush.cookie = self.barriers.try_cookie()
        self.barriers.add(self.last_flush)

    def _stop_if_flushed(self, now: float) -> None:
        barrier = self.last_flush
        if barrier is None:
            return
        if not barrier.reply.done() and now - barrier.started > _STOP_SECONDS:
            self.unsaved = f"no end of changes within {_STOP_SECONDS:.0f} seconds"
        self.is_done = barrier.reply.done() or bool(self.unsaved)

    # State.

    @property
    def is_polled(self) -> bool:
        """Whether events cannot tell all that changes."""
        types = self.indexer.guard.fs_types
        return not self.indexer.watch.is_on or (self.settings.watch == "auto" and not types <= WATCHABLE)

    def _note_state(self, now: float) -> None:
        state = find_state(self, now)
        if state != self.state or not self.state_since:
            self.state, self.state_since = state, now

    def _sleep_seconds(self, now: float) -> float:
        queue = self.indexer.queue
        if self.is_done or (not self.offline and queue.is_urgent and queue.is_ready):
            return 0.0
        times = [now + _LONGEST_SLEEP_SECONDS, self._flush_due(now)]
        if not self.offline:
            times.append(self.indexer.dirty.next_due())
            times.append(self._paced_until if queue.current is not None and queue.current.paced else None)
            times.append(self._rest_until if self.pending_scan or self.indexer.why_scan else None)
        return max(0.0, min(time for time in times if time is not None) - now)
