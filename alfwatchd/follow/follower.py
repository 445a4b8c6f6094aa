"""Which sessions are to be told, and when: what a follower knows. Pure; time is passed in, in seconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from alfwatchd.changes import Change, Fresh
from alfwatchd.follow.completeness import Criteria, Dataset, Digest
from alfwatchd.follow.merging import merge

FIRST_PAUSE_SECONDS = 2.0
_PAUSE_FACTOR = 4.0
LONGEST_PAUSE_SECONDS = 3600.0


@dataclass(slots=True)
class Pending:
    """A session that changed and was not told yet; or, with an empty path, that the tables must be taken as a whole.

    Parameters
    ----------
    item : Change or Fresh
        All that happened to it.
    changed_at : float
        When its datasets last changed, as far as the feed has told.
    n_failed : int
        How often its command has failed since the last change.
    next_attempt : float
        Not before this moment.
    error : str
        Why the command failed last; empty if it did not.
    is_given_up : bool
        Whether it waits for the next change, or for a restart of the follower.
    is_running : bool
        Whether its command runs.
    later : Change, Fresh or None
        What came while the command ran.
    digest : Digest or None
        Of the required datasets for which the command runs.
    """

    item: Change | Fresh
    changed_at: float
    n_failed: int = 0
    next_attempt: float = 0.0
    error: str = ""
    is_given_up: bool = False
    is_running: bool = False
    later: Change | Fresh | None = None
    digest: Digest | None = None

    @property
    def path(self) -> str:
        """Of the session; empty for all of them."""
        return path_of(self.item)


@dataclass(frozen=True, slots=True)
class Session:
    """A session with its datasets, as the tables have them."""

    path: str
    eid: str
    datasets: tuple[Dataset, ...]


@dataclass(slots=True)
class Follower:
    """What was told, and what is to be told. One thread.

    Parameters
    ----------
    criteria : Criteria
    retries : int
        How often a failed command is tried again.
    cursor : str
        Place in the feed behind all that was taken in; empty before the first answer.
    baseline : int
        Generation of the tables whose complete sessions count as told, because the follower began after it; -1 if
        it has not begun.
    told : dict of str to Digest
        Eid -> required datasets when the session was told.
    pending : dict of str to Pending
        Path -> session.
    """

    criteria: Criteria
    retries: int = 0
    cursor: str = ""
    baseline: int = -1
    told: dict[str, Digest] = field(default_factory=dict)
    pending: dict[str, Pending] = field(default_factory=dict)
    _moved: dict[str, Digest] = field(default_factory=dict)
    """New path of a renamed session -> what was told of it."""

    def take(self, item: Change | Fresh, now: float, not_before: float = 0.0) -> None:
        """Take in what the feed tells. Of complete sessions, `take_all` follows a `Fresh`.

        Parameters
        ----------
        item : Change or Fresh
        now : float
        not_before : float
            The change was not in the feed at this moment yet.
        """
        if isinstance(item, Fresh):
            if not self.criteria.tells_complete:
                self._drop_waiting()  # the command that is told to take everything takes these, too
                self._add(item, now)
            return
        if not self.criteria.is_meant(item.path):
            return
        if not self.criteria.tells_complete:
            self._add(item, now)
            return
        if item.generation is not None and item.generation <= self.baseline:
            self.told.pop(item.eid, None)  # it changed after the follower began, and before the tables were read
        if item.change == "removed":
            self._remove(item)
        else:
            self._carry_over(item)
            self._add(item, min(now, max(seconds_of(item.seen_at), not_before)))

    def begin(self, sessions: Iterable[Session], generation: int) -> None:
        """Count sessions that are complete already as told, except those that have changed since."""
        waiting = {each.item.eid for each in self.pending.values() if isinstance(each.item, Change)}
        for each in sessions:
            required = self._required(each)
            if required is not None and each.eid not in waiting:
                self.told[each.eid] = Digest.of(required)
        self.baseline = generation

    def take_all(self, sessions: Iterable[Session], now: float, generation: int, seen_at: str) -> None:
        """Take in all sessions of the tables, because the feed cannot tell which of them changed.

        Only those are told whose required datasets differ from what was told.
        """
        self._drop_waiting()
        there = set()
        for each in sessions:
            there.add(each.eid)
            required = self._required(each)
            if required is not None and not self._is_told(each.eid, required):
                self._add(Change("changed", each.path, each.eid, None, generation, seen_at, self.cursor), now)
        self.told = {eid: digest for eid, digest in self.told.items() if eid in there}
        self.baseline = max(self.baseline, 0)

    def due(self, now: float) -> list[Pending]:
        """Return the sessions that may be told now, those that have waited longest first."""
        found = [each for each in self.pending.values() if not each.is_running and self._due_at(each) <= now]
        return sorted(found, key=self._due_at)

    def next_due(self) -> float:
        """Return when the next session may be told; infinity if none waits."""
        return min((self._due_at(each) for each in self.pending.values() if not each.is_running), default=float("inf"))

    def judge(self, pending: Pending, sessions: Mapping[str, Session]) -> list[Dataset] | None:
        """Return the required datasets of a session that is complete; None if it waits for its next change.

        Parameters
        ----------
        pending : Pending
        sessions : mapping of str to Session
            What the tables hold, by eid.
        """
        assert isinstance(pending.item, Change)
        session = sessions.get(pending.item.eid)
        required = self._required(session) if session is not None else None
        if required is None or self._is_told(pending.item.eid, required):
            del self.pending[pending.path]
            return None
        pending.digest = Digest.of(required)
        return required

    def start(self, pending: Pending) -> None:
        """Note that a session is being told."""
        pending.is_running = True

    def succeed(self, pending: Pending) -> None:
        """Note that a session was told, and its command has succeeded."""
        if pending.digest is not None and isinstance(pending.item, Change):
            self.told[pending.item.eid] = pending.digest
        self._end(pending)

    def interrupt(self, pending: Pending) -> None:
        """Note that the command was stopped because the follower ends."""
        pending.is_running = False

    def fail(self, pending: Pending, error: str, now: float) -> None:
        """Note that the command has failed. It is tried again later, a limited number of times."""
        if pending.later is not None:  # with what came meanwhile it is another task
            item = pending.item
            self._end(pending)
            if not self.criteria.tells_complete and pending.path in self.pending:
                self._merge_before(item, pending.path)
            return
        pending.is_running = False
        pending.n_failed += 1
        pending.error = error
        pending.is_given_up = pending.n_failed > self.retries
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * _PAUSE_FACTOR ** min(pending.n_failed - 1, 20))
        pending.next_attempt = now + pause

    @property
    def failed(self) -> list[Pending]:
        """Sessions whose command has failed at its last attempt, by path."""
        return sorted((each for each in self.pending.values() if each.error), key=lambda each: each.path)

    def _required(self, session: Session) -> list[Dataset] | None:
        return self.criteria.find_required(session.datasets) if self.criteria.is_meant(session.path) else None

    def _is_told(self, eid: str, required: Iterable[Dataset]) -> bool:
        """Tell whether a session was told with these datasets; note hashes that were not known then."""
        told, digest = self.told.get(eid), Digest.of(required)
        if told is None or not told.is_same(digest):
            return False
        if digest.hashes and not told.hashes:
            self.told[eid] = digest
        return True

    def _due_at(self, pending: Pending) -> float:
        if pending.is_given_up:
            return float("inf")
        return max(pending.changed_at + self.criteria.quiet_seconds, pending.next_attempt)

    def _add(self, item: Change | Fresh, changed_at: float) -> None:
        path = path_of(item)
        before = self.pending.get(path)
        if before is None:
            self.pending[path] = Pending(item, changed_at)
        elif before.is_running:
            before.later = _merge(before.later, item)
            before.changed_at = max(before.changed_at, changed_at)
        elif (merged := _merge(before.item, item)) is None:
            del self.pending[path]
        else:
            is_same = self.criteria.tells_complete and isinstance(item, Change) and not touches_datasets(item)
            self.pending[path] = Pending(merged, before.changed_at if is_same else max(before.changed_at, changed_at))

    def _drop_waiting(self) -> None:
        self.pending = {path: each for path, each in self.pending.items() if each.is_running}

    def _remove(self, change: Change) -> None:
        pending = self.pending.get(change.path)
        if pending is not None and pending.is_running:
            pending.later = None
        elif pending is not None:
            del self.pending[change.path]
        digest = self.told.pop(change.eid, None)
        if change.renamed_to and digest is not None:
            self._moved[change.renamed_to] = digest

    def _carry_over(self, change: Change) -> None:
        """Let a session that is renamed, or gets another eid, keep what was told of it."""
        digest = self._moved.pop(change.path, None)
        if change.eid_before:
            digest = self.told.pop(change.eid_before, digest)
        if digest is not None:
            self.told.setdefault(change.eid, digest)

    def _end(self, pending: Pending) -> None:
        del self.pending[pending.path]
        if pending.later is not None:
            self.pending[pending.path] = Pending(pending.later, pending.changed_at)

    def _merge_before(self, item: Change | Fresh, path: str) -> None:
        """Let what waits say what an earlier change said, too, whose command has failed."""
        merged = _merge(item, self.pending[path].item)
        if merged is None:
            del self.pending[path]
        else:
            self.pending[path].item = merged


def path_of(item: Change | Fresh) -> str:
    """Return the path of the session that an item is about; empty for all sessions."""
    return item.path if isinstance(item, Change) else ""


def touches_datasets(change: Change) -> bool:
    """Tell whether datasets came, went or changed, and not only what else the tables tell of them."""
    return change.change != "changed" or bool(change.n_added or change.n_changed or change.n_removed)


def seconds_of(text: str) -> float:
    """Return a time of the feed in seconds since 1970; 0 if it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _merge(first: Change | Fresh | None, second: Change | Fresh) -> Change | Fresh | None:
    if isinstance(first, Change) and isinstance(second, Change):
        return merge(first, second)
    return second
