"""Follows the feed until it is told to stop: a thread reads the feed, and the main thread tells and runs commands."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from alfwatchd import threads
from alfwatchd.api import Status
from alfwatchd.changes import Change, Fresh
from alfwatchd.errors import AlfwatchdError, Busy, NoDaemon, RequestFailed, RootOffline, TablesError, UsageError
from alfwatchd.follow.commands import Runner, describe_end
from alfwatchd.follow.completeness import Dataset
from alfwatchd.follow.cursor_file import CursorFile
from alfwatchd.follow.feed_thread import Ended, FeedReader, Heard, Inbox, Message
from alfwatchd.follow.follower import Follower, Pending
from alfwatchd.follow.known import known_until
from alfwatchd.follow.tables import open_sessions, read_some
from alfwatchd.follow.told import make_record, make_variables
from alfwatchd.journal.entries import Cursor
from alfwatchd.web.client import Client

_log = logging.getLogger(__name__)

_OFFSET = time.time() - time.monotonic()
_MOST_MESSAGES = 1000
"""How many messages are taken in before anything is told."""
_MOST_AT_ONCE = 500
"""How many sessions are looked for in the tables at once."""
_FIRST_ASK_SECONDS, _LONGEST_ASK_SECONDS = 0.1, 5.0
_SAVE_SECONDS = 1.0
_SAVE_SHARE = 10
"""How many times as long as it took to save the file, at least, it is not saved again."""
_PASSING = (NoDaemon, Busy, RequestFailed, RootOffline)


@dataclass(frozen=True, slots=True)
class Options:
    """How commands are run.

    Parameters
    ----------
    jobs : int
        How many at once.
    max_runs : int or None
        End after this number.
    grace_seconds : float
        How long a command may go on after the follower was told to stop, before it gets SIGTERM; as long again, and
        it gets SIGKILL.
    """

    jobs: int = 1
    max_runs: int | None = None
    grace_seconds: float = 10.0


class Loop:
    """One run of the follower. The main thread makes it, and calls `run` once.

    Parameters
    ----------
    follower : Follower
    client : Client
    since : str
        Where to begin if there is no cursor file: a place in the feed, ``now`` or ``start``.
    root : str
        Folder that the daemon indexes.
    show : callable
        Tells a record, as `told.make_record` makes it.
    words : sequence of str or None
        The command to run for each; None for none.
    options : Options
    cursor_file : CursorFile or None
    """

    def __init__(
        self,
        follower: Follower,
        client: Client,
        since: str,
        root: str,
        show: Callable[[dict[str, Any]], None],
        words: Sequence[str] | None = None,
        options: Options = Options(),
        cursor_file: CursorFile | None = None,
    ) -> None:
        self._follower, self._client, self._root, self._show = follower, client, root, show
        self._options, self._file = options, cursor_file
        self._runner = Runner(words, self._post_end) if words is not None else None
        self._is_anew = cursor_file is None or not cursor_file.load(follower)
        self._since = since
        self._from_start = since == "start" and follower.criteria.tells_complete
        first = "now" if self._from_start else since
        self._inbox: Inbox = SimpleQueue()
        changes = client.changes(since=first if self._is_anew else follower.cursor)
        self._reader = FeedReader(changes, self._inbox, self._now, is_known=not self._is_anew)
        self._out_dir = Path(client.status().out_dir)
        self._generation = -1
        """Up to which the feed was read; -1 if it was not."""
        self._must_take_all = False
        self._signals: list[signal.Signals] = []
        self._is_stopping = False
        self._n_runs = 0
        self._ask_at, self._ask_pause = 0.0, _FIRST_ASK_SECONDS
        self._is_dirty, self._save_at, self._rests_until = False, 0.0, 0.0

    @property
    def stopped_by(self) -> signal.Signals | None:
        """The signal that has stopped it; None if it ended by itself."""
        return self._signals[0] if self._signals else None

    def run(self) -> list[Pending]:
        """Follow until a signal comes, or the commands that are wanted have run.

        Returns
        -------
        list of Pending
            Sessions whose command has failed at its last attempt.

        Raises
        ------
        AlfwatchdError
            The daemon refuses, or the cursor file cannot be written. Commands that run are stopped first.
        """
        with self._heed_signals():
            threads.start(self._reader.run, "feed")
            try:
                while not self._is_over():
                    self._receive(self._timeout())
                    self._act()
                    self._save_if_due()
            finally:
                self._stop()
                self._reader.stop()
                self._save()
        return self._follower.failed

    # Time, and what wakes the loop.

    def _now(self) -> float:
        """Return the time in seconds since 1970, as if the clock had not been set since the start."""
        return _OFFSET + time.monotonic()

    @contextmanager
    def _heed_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT wake the loop; one that is ignored stays so."""
        heard = [each for each in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(each) is not signal.SIG_IGN]
        before = {each: signal.signal(each, self._post_signal) for each in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _post_signal(self, number: int, _: object) -> None:
        self._inbox.put(signal.Signals(number))

    def _timeout(self) -> float | None:
        """Return how long nothing has to be done; None if nothing waits."""
        at = max(self._follower.next_due(), self._ask_at) if self._n_free() > 0 else float("inf")
        if self._must_take_all or not self._has_begun():
            at = self._ask_at if self._generation >= 0 else float("inf")
        if self._is_dirty:
            at = min(at, self._save_at)
        return None if at == float("inf") else max(0.0, at - self._now())

    def _is_over(self) -> bool:
        is_enough = self._options.max_runs is not None and self._n_runs >= self._options.max_runs
        return bool(self._signals) or (is_enough and self._runner is not None and not self._runner.n_running)

    # The feed.

    def _receive(self, timeout: float | None) -> None:
        """Wait for a message, and take in all that are there."""
        try:
            self._take(self._inbox.get(timeout=timeout))
            for _ in range(_MOST_MESSAGES):
                self._take(self._inbox.get_nowait())
        except Empty:
            return

    def _take(self, message: Message) -> None:
        match message:
            case Heard():
                self._take_heard(message)
            case Ended():
                self._take_end(message)
            case signal.Signals():
                self._signals.append(message)
            case AlfwatchdError():
                raise message

    def _take_heard(self, heard: Heard) -> None:
        if heard.item is not None:
            self._reader.allow_one_more()
            if isinstance(heard.item, Fresh) and self._follower.criteria.tells_complete:
                self._must_take_all = self._has_begun()  # otherwise the tables are read anyway
                if self._is_anew and not self._has_begun() and self._since not in ("now", "start"):
                    raise UsageError(
                        "--since: the journal does not reach back to this place; `--since start` takes all sessions "
                        "that are complete, `--since now` those that will be"
                    )
            self._follower.take(heard.item, self._now(), heard.not_before)
        if heard.cursor not in ("now", "start"):
            self._follower.cursor = heard.cursor
            self._generation = Cursor.parse(heard.cursor).generation
            self._is_dirty = True

    # What is told.

    def _has_begun(self) -> bool:
        return self._follower.baseline >= 0 or not self._follower.criteria.tells_complete

    def _n_free(self) -> float:
        """Return how many sessions may be told now."""
        if self._runner is None:
            return float("inf")
        left = float("inf") if self._options.max_runs is None else self._options.max_runs - self._n_runs
        return min(left, self._options.jobs - self._runner.n_running)

    def _act(self) -> None:
        """Tell what is due, as far as commands may be started."""
        if not self._take_tables():
            return
        while self._n_free() > 0 and not self._signals:
            due = self._follower.due(self._now())[:_MOST_AT_ONCE]
            ready = self._find_ready(due) if due else None
            if ready is None:
                return
            for pending, required in ready:
                if self._n_free() > 0:
                    self._tell(pending, required)

    def _take_tables(self) -> bool:
        """Take in the whole tables if that is necessary; tell whether the follower has begun."""
        if self._has_begun() and not self._must_take_all:
            return True
        now = self._now()
        if self._generation < 0 or now < self._ask_at:
            return False
        try:
            with open_sessions(self._out_dir, self._root) as (generation, sessions):
                if self._must_take_all or self._from_start:
                    stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
                    self._follower.take_all(sessions, now, generation, stamp)
                    _log.info("took the whole tables pending=%d", len(self._follower.pending))
                else:
                    self._follower.begin(sessions, generation)
        except TablesError as error:
            _log.info("the tables cannot be read yet error=%s", error)
            return self._ask_later(now)
        self._must_take_all, self._is_dirty = False, True
        return True

    def _find_ready(self, due: list[Pending]) -> list[tuple[Pending, list[Dataset] | None]] | None:
        """Return those that are to be told; None if that is not known yet."""
        criteria, now = self._follower.criteria, self._now()
        if not criteria.tells_complete:
            return [(each, None) for each in due]
        if now < self._ask_at:
            return None
        if criteria.quiet_seconds:
            known = self._ask_known(now)
            due = [each for each in due if each.changed_at + criteria.quiet_seconds <= known]
        try:
            generation, sessions = read_some(self._out_dir, {_eid_of(each): each.path for each in due})
        except TablesError as error:
            _log.info("the tables cannot be read yet error=%s", error)
            generation, due = -1, []
        if not due or (criteria.quiet_seconds and generation > self._generation):
            self._ask_later(now)
            return None
        self._ask_pause, self._is_dirty = _FIRST_ASK_SECONDS, True
        judged = [(each, self._follower.judge(each, sessions)) for each in due]
        return [(each, required) for each, required in judged if required is not None]

    def _ask_later(self, now: float) -> bool:
        self._ask_at = now + self._ask_pause
        self._ask_pause = min(2 * self._ask_pause, _LONGEST_ASK_SECONDS)
        return False

    def _ask_known(self, now: float) -> float:
        """Return the moment up to which the feed was read and has told everything."""
        try:
            status: Status = self._client.status()
        except _PASSING as error:
            _log.debug("the daemon does not say whether it knows of all changes error=%s", error)
            return float("-inf")
        return known_until(status, now) if status.generation <= self._generation else float("-inf")

    def _tell(self, pending: Pending, required: list[Dataset] | None) -> None:
        record = make_record(pending.item, required)
        if not pending.n_failed:
            self._show(record)
        self._is_dirty = True
        if self._runner is None:
            self._follower.start(pending)
            self._follower.succeed(pending)
            return
        variables = make_variables(record, self._root)
        self._n_runs += 1
        self._follower.start(pending)
        try:
            self._runner.start(pending.path, variables, json.dumps({**record, "root": self._root}) + "\n")
        except OSError as error:
            self._note_failure(pending, f"cannot be started: {error.strerror}")
        else:
            _log.info("command started path=%s", pending.path)

    def _post_end(self, path: str, code: int, seconds: float) -> None:
        self._inbox.put(Ended(path, code, seconds))

    def _take_end(self, ended: Ended) -> None:
        assert self._runner is not None
        self._runner.forget(ended.path)
        pending = self._follower.pending[ended.path]
        if ended.code == 0:
            _log.info("command done path=%s seconds=%.1f", ended.path, ended.seconds)
            self._follower.succeed(pending)
            self._save_at = self._rests_until
        elif self._is_stopping:
            self._follower.interrupt(pending)
        else:
            self._note_failure(pending, describe_end(ended.code))
        self._is_dirty = True

    def _note_failure(self, pending: Pending, error: str) -> None:
        now = self._now()
        self._follower.fail(pending, error, now)
        again = "no more tries" if pending.is_given_up else f"tried again in {pending.next_attempt - now:.0f} s"
        _log.warning('command failed path=%s error="%s" tries=%d, %s', pending.path, error, pending.n_failed, again)

    # The end.

    def _stop(self) -> None:
        """Let commands end; then end them. A further signal shortens each wait."""
        if self._runner is None:
            return
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None and self._runner.n_running:
                self._is_stopping = True
                self._runner.signal(number)
            n_signals, deadline = len(self._signals), self._now() + self._options.grace_seconds
            while self._runner.n_running and (number is signal.SIGKILL or self._now() < deadline):
                self._receive(max(0.0, deadline - self._now()) if number is not signal.SIGKILL else None)
                if number is not signal.SIGKILL and len(self._signals) > n_signals:
                    break
        self._runner.close()

    def _save_if_due(self) -> None:
        if self._is_dirty and self._now() >= self._save_at:
            self._save()

    def _save(self) -> None:
        """Save the cursor file, unless nothing can be said yet."""
        self._is_dirty = False
        if self._file is None or not self._has_begun() or not self._follower.cursor:
            return
        if self._must_take_all:  # the cursor is behind changes that were not looked at yet
            return
        began = self._now()
        self._file.save(self._follower)
        ended = self._now()
        self._rests_until = ended + _SAVE_SHARE * (ended - began)
        self._save_at = max(self._rests_until, ended + _SAVE_SECONDS)


def _eid_of(pending: Pending) -> str:
    assert isinstance(pending.item, Change)
    return pending.item.eid
