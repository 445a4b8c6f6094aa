"""The engine: one thread that owns all that changes, in a loop that can be stepped. Time is passed in, in seconds."""

from __future__ import annotations

import logging
from concurrent.futures import Future

from alfwatchd.api import PrunedNotice, RemovingNotice, refuse
from alfwatchd.database.adopter import Adopted
from alfwatchd.engine import messages
from alfwatchd.engine.barriers import Barrier, answer_flush
from alfwatchd.engine.changes_log import ChangesLog
from alfwatchd.engine.flushing import flush_due, flush_if_due, look_for_foreign_writes, note_failed_flush
from alfwatchd.engine.messages import Message
from alfwatchd.engine.model import EngineModel
from alfwatchd.engine.requests import answer_request
from alfwatchd.engine.root import Root
from alfwatchd.engine.scanning import Scanning
from alfwatchd.engine.schedule import Timers
from alfwatchd.engine.status import find_state
from alfwatchd.errors import AlfwatchdError, RootOffline
from alfwatchd.index.worker_pool import Crawled
from alfwatchd.scan.hasher import Hashed
from alfwatchd.store.flusher import Flushed, FlushFailed
from alfwatchd.store.id_history import IdsChanged
from alfwatchd.watch.events import EventsLost, PathsChanged

_log = logging.getLogger(__name__)

_UNREADABLE_RETRY_SECONDS = 30.0
_FOREIGN_CHECK_SECONDS = 2.0
_TRASH_CHECK_SECONDS = 5.0
_LONGEST_SLEEP_SECONDS = 1.0
_STOP_SECONDS = 60.0


class Engine:
    """Takes messages, scans a unit, flushes if due. `step` does a part of each and never waits.

    Parameters
    ----------
    model : EngineModel
    """

    def __init__(self, model: EngineModel) -> None:
        self.model = model
        self.root = Root(model)
        self.is_done = False
        self.unsaved = ""
        """Why the last flush before the end failed; empty if it did not."""
        self.scanning = Scanning(model)
        self._changes = ChangesLog()
        self._last_flush: Barrier | None = None
        """What the end waits for; None until the engine is told to stop."""
        self._timers = Timers()
        self._timers.make_due("trash", 0.0)

    @property
    def is_stopping(self) -> bool:
        """Whether the engine was told to stop."""
        return self._last_flush is not None

    # The loop.

    def step(self, now: float) -> float:
        """Do what is due.

        Parameters
        ----------
        now : float
            On a clock that never goes back, in seconds.

        Returns
        -------
        float
            Seconds that may pass before the next step, unless a message comes.
        """
        model = self.model
        if model.offline:  # before any request is answered, so that the first one finds the root opened
            self.root.try_again(now)
        for message in model.inbox.drain():
            self._accept(message, now)
        if not model.offline:
            self._scan(now)
            self._look_around(now)
        model.barriers.advance(now)
        if model.has_rows(now):
            model.pending.step(model.indexer.tables, now, model.now_for_people)
        flush_if_due(model, now)
        model.enter(find_state(model, now), now)
        self._changes.tell_rest(now)
        self._stop_if_flushed(now)
        return self._sleep_seconds(now)

    def close(self) -> None:
        """Refuse the requests that still wait, and end the watcher."""
        self._changes.tell_rest(0.0, is_end=True)
        self.model.barriers.fail_all(AlfwatchdError("the daemon is stopping; ask again when it is back"))
        self.model.indexer.close()

    def _sleep_seconds(self, now: float) -> float:
        queue, offline = self.model.indexer.queue, self.model.offline
        if self.is_done or (not offline and queue.is_urgent and queue.is_ready):
            return 0.0
        times = [now + _LONGEST_SLEEP_SECONDS, flush_due(self.model, now)]
        if self.model.has_rows(now):
            times.append(self.model.pending.due(self.model.indexer.tables, now))
        if not offline:
            times += self.scanning.next_times()
        return max(0.0, min(time for time in times if time is not None) - now)

    # Messages.

    def _accept(self, message: Message, now: float) -> None:
        """Give a message to the part that it is for."""
        model, indexer = self.model, self.model.indexer
        match message:
            case PathsChanged():
                self._accept_events(message, now)
            case EventsLost():
                if message.reader_alive:
                    indexer.watch.excuse_heartbeat()
                else:
                    indexer.watch.renew(now)
                self._lose_events(message.reason)
            case Crawled():
                indexer.receive(message)
            case Flushed():
                model.flushes.succeed(message.generation, message.seconds, now)
                model.pending.succeed(indexer.tables)
                self._changes.tell(message.changed, now)
            case FlushFailed():
                self.unsaved = message.error if self.is_stopping else ""
                note_failed_flush(model, message.error, now)
            case Hashed():
                if model.hashes is not None:
                    model.hashes.accept(message, indexer, now)
            case Adopted():
                model.adopt(message)
            case IdsChanged():
                model.note_changed_ids(message)
            case RemovingNotice():
                indexer.absences.tell_pruned(message.session)
            case PrunedNotice():
                self._end_prune(message, now)
            case messages.Stop():
                self._begin_stop(now)
            case messages.Reload():
                self._reload()
            case _:
                try:
                    answer_request(model, self.root, message, now)
                except AlfwatchdError as error:
                    refuse(message.reply, error)

    def _accept_events(self, message: PathsChanged, now: float) -> None:
        indexer = self.model.indexer
        self.model.note_events(message.n_events)
        indexer.marks.mark_events(message.folders, message.unwatched, now)
        for name in message.cookies:
            indexer.watch.cookie_returned(name)
            indexer.absences.cookie_returned(name)
            self.model.barriers.cookie_returned(name, events_lost=bool(self.model.pending_scan))

    def _lose_events(self, reason: str) -> None:
        _log.warning("events lost, scanning everything reason=%s", reason)
        self.model.lose_events(reason)

    def _end_prune(self, message: PrunedNotice, now: float) -> None:
        indexer = self.model.indexer
        indexer.absences.end_prune()
        if self.model.trash is not None:
            self.model.trash.look_again(may_empty=self.model.may_delete)
        for folder in filter(None, map(indexer.tree.find, message.folders)):
            indexer.marks.mark_folder(folder, now)

    def _reload(self) -> None:
        try:
            new = self.model.reload()
        except AlfwatchdError as error:
            _log.error("settings refused, the old ones stay in force error=%s", error)
            return
        self.model.change_settings(new)
        _log.info("settings read again")

    # What a step does while the root is online.

    def _scan(self, now: float) -> None:
        try:
            self.scanning.step(now)
        except RootOffline as error:
            self.root.go_offline(str(error), now)

    def _look_around(self, now: float) -> None:
        """Look at what no message tells of, each thing at its own interval."""
        model, indexer = self.model, self.model.indexer
        self.root.look_at_mounts_if_due(now)
        self.scanning.reconcile_if_due(now)
        if self._timers.is_due("links", now, model.settings.poll_interval_seconds):
            indexer.marks.mark_linked(now)
        if self._timers.is_due("problems", now, model.settings.poll_interval_seconds):
            indexer.renew_problems(now)
        if self._timers.is_due("unreadable", now, _UNREADABLE_RETRY_SECONDS):
            indexer.marks.retry_unreadable(now)
        if broken := indexer.watch.beat(now):
            self._lose_events(broken)
        if model.trash is not None and self._timers.is_due("trash", now, _TRASH_CHECK_SECONDS):
            model.trash.wake(may_empty=model.may_delete)
        if self._timers.is_due("foreign", now, _FOREIGN_CHECK_SECONDS):
            look_for_foreign_writes(model, self.root, now)

    # The end.

    def _begin_stop(self, now: float) -> None:
        """Take in what changed so far, then flush; where only a scan of everything could tell, just flush."""
        if self.is_stopping:
            return
        model = self.model
        self._last_flush = Barrier(Future(), now, answer_flush, may_scan=False)
        model.flushes.retry_now()
        if model.offline or not model.has_rows(now):
            self._last_flush.finish(now)
        else:
            model.barriers.begin_last_flush(self._last_flush, by_events=not model.is_polled)

    def _stop_if_flushed(self, now: float) -> None:
        barrier = self._last_flush
        if barrier is None:
            return
        if not barrier.reply.done() and now - barrier.started > _STOP_SECONDS:
            self.unsaved = f"changes did not end within {_STOP_SECONDS:.0f} seconds"
        self.is_done = barrier.reply.done() or bool(self.unsaved)
