"""md5 of dataset files in background threads: newest first, once per content, never of a file being written.

A digest is recorded for the next run only if each later change of the file will show: see `tree.content`.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from alfwatchd import threads
from alfwatchd.errors import StateError
from alfwatchd.scan.back_off import BackOff
from alfwatchd.scan.file_digest import Digests, Found, HashJob, Reader, TooYoung
from alfwatchd.tree.content import clock_step, is_settled
from alfwatchd.tree.packed import either_way, unpack_signature

_log = logging.getLogger(__name__)

SHORTEST_RETRY, LONGEST_RETRY = 15.0, 3600.0
"""Seconds until a file that could not be read is tried again; twice as long each time if reading is forbidden."""

RECHECK_SHARE = 0.1
"""Part of its time that the daemon reads files again whose digests are not confirmed: 1 TB takes about a day."""

_POST_SECONDS = 0.5
_POST_FILES = 256
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_MAX_VERSIONS = 100_000
"""Of files that were rewritten: more than can be between a read and its report."""
_LONGEST_REST = 10.0

_State = tuple[str, str, bytes, int, bool]


@dataclass(frozen=True, slots=True)
class Hashed:
    """What hashing gave.

    Parameters
    ----------
    digests : mapping
        Folder path -> file name -> (packed signature, digest, version of the content). The digest has 16 bytes, or none
        if only the change time of the file differs: see `file_digest.Found`.
    unconfirmed : tuple of HashJob
        Files whose digest here is one that must be confirmed: see `file_digest.Found`.
    """

    digests: Mapping[str, Mapping[str, tuple[bytes, bytes, int]]]
    unconfirmed: tuple[HashJob, ...] = ()


class Hasher:
    """A queue of files and the threads that hash them.

    Parameters
    ----------
    root : str
        Absolute path.
    digests : Digests
        Where digests are looked up and recorded.
    n_threads : int
    post : callable
        Gets `Hashed` messages, in a hashing thread.
    settle_seconds : float
        A file that was changed less than this ago may still be written, and waits.
    share : float
        Part of its time that a thread reads, above 0, at most 1: the rest of it, other programs have the disk.
    """

    def __init__(
        self,
        root: str,
        digests: Digests,
        n_threads: int,
        post: Callable[[Hashed], None],
        *,
        settle_seconds: float = 2.0,
        share: float = 1.0,
    ) -> None:
        self._root = root
        self._digests = digests
        self._post = post
        self._share = share
        self._back_off = BackOff(int(settle_seconds * 1e9))
        # A heap compares often, and tuples do that in C.
        self._jobs: list[tuple[int, str, str, int, HashJob]] = []
        self._unsettled: list[tuple[int, int, int, HashJob]] = []
        """A heap of files that may still be written: when they are due, a number, how long they must be left alone."""
        self._numbers = itertools.count()
        self._queued: dict[tuple[str, str], HashJob] = {}
        # Jobs that a thread has taken and not posted yet -> one for the same state of the file that came meanwhile.
        self._taken: dict[_State, HashJob | None] = {}
        self._versions: dict[bytes, int] = {}
        # Files that could not be read: a heap of when to try again, and how long to wait after that.
        self._failed: list[tuple[float, int, HashJob]] = []
        self._waits: dict[tuple[str, str], float] = {}
        self._is_stopping = threading.Event()
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, name=f"hasher-{number}", daemon=True) for number in range(n_threads)
        ]
        for thread in self._threads:
            threads.begin(thread)

    @property
    def is_alive(self) -> bool:
        """Whether all threads run."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def n_pending(self) -> int:
        """Files whose digest was not posted yet: queued, being hashed, or waiting for others to be posted with.

        Those that could not be read are not counted while they wait for the next attempt.
        """
        with self._changed:
            return len(self._queued) + len(self._taken)

    @property
    def n_open(self) -> int:
        """Files whose digest was not posted yet, those included that could not be read so far."""
        with self._changed:
            return len(self._queued) + len(self._taken) + len(self._failed)

    @property
    def n_reading(self) -> int:
        """Number of files that are being read now, or whose digests are not posted yet. Any thread may ask."""
        with self._changed:
            return len(self._taken)

    def submit(self, jobs: Iterable[HashJob]) -> None:
        """Queue files; a later job for the same file replaces an earlier one."""
        with self._changed:
            for job in jobs:
                waiting = self._queued.get((job.folder, job.name))
                if _state_of(job) in self._taken:
                    self._taken[_state_of(job)] = job
                elif waiting is None or _state_of(waiting) != _state_of(job):
                    self._push(job)
            self._changed.notify_all()

    def forget(self, signatures: Iterable[bytes]) -> None:
        """Forget digests of these files, also those being made: the files were rewritten. Engine's thread."""
        forgotten = [each for signature in signatures for each in either_way(signature)]
        for signature in forgotten:
            self._versions[signature] = self._versions.pop(signature, 0) + 1
        while len(self._versions) > _MAX_VERSIONS:
            del self._versions[next(iter(self._versions))]
        self._forget_recorded(forgotten)

    def version(self, signature: bytes) -> int:
        """Return the version of a file that a digest must be of. Any thread."""
        return self._versions.get(signature, 0)

    def close(self) -> None:
        """Let each thread end after the piece of a file that it is reading."""
        self._is_stopping.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    # The queue. The caller holds the lock.

    def _push(self, job: HashJob, wait_ns: int = 0) -> None:
        """Queue a file, to be read once it was left alone for as long as it must be, or for `wait_ns` if that is more.

        No digest is made within one step of the clock: git's rule, a file that changes again would look as before.
        """
        self._queued[job.folder, job.name] = job
        wait_ns = max(wait_ns, self._back_off.wait_ns(job), clock_step(job.signature))
        if is_settled(job.signature, time.time_ns(), wait_ns):
            self._push_settled(job)
        else:
            due = unpack_signature(job.signature).ctime_ns + wait_ns
            heapq.heappush(self._unsettled, (due, next(self._numbers), wait_ns, job))

    def _push_settled(self, job: HashJob) -> None:
        heapq.heappush(self._jobs, (job.age_key, job.folder, job.name, next(self._numbers), job))

    def _push_due(self) -> float:
        """Queue what has been left alone for long enough, and what is to be tried again; return when to look again."""
        while self._failed and self._failed[0][0] <= time.monotonic():
            _, _, job = heapq.heappop(self._failed)
            if (job.folder, job.name) not in self._queued and _state_of(job) not in self._taken:
                self._push(job)
        now = time.time_ns()
        while self._unsettled and is_settled(self._unsettled[0][-1].signature, now, self._unsettled[0][2]):
            *_, job = heapq.heappop(self._unsettled)
            if self._queued.get((job.folder, job.name)) is job:
                self._push_settled(job)
        until = (self._unsettled[0][0] - now) / 1e9 if self._unsettled else _POST_SECONDS
        return min(_POST_SECONDS, max(0.001, until))

    def _next_job(self, seconds: float) -> HashJob | None:
        """Return the newest file that has settled; None after some seconds without one."""
        with self._changed:
            if not self._queued:
                self._changed.wait(seconds)
            pause = self._push_due()
            if not self._jobs and self._unsettled and not self._is_stopping.is_set():
                self._changed.wait(min(pause, seconds))
                self._push_due()
            while self._jobs:
                job = heapq.heappop(self._jobs)[-1]
                if self._queued.get((job.folder, job.name)) is job:
                    del self._queued[job.folder, job.name]
                    self._taken[_state_of(job)] = None
                    self._back_off.note_read(job)
                    return job
            return None

    def _finish(self, jobs: list[HashJob], *, posted: bool) -> None:
        """Let go of jobs; of a file that was not what its job says, it may be what a later one says."""
        with self._changed:
            for job in jobs:
                again = self._taken.pop(_state_of(job))
                if again is not None and not posted:
                    self._push(again)

    # The threads.

    def _run(self) -> None:
        """Hash what is queued, in a thread of its own, and post the digests in batches."""
        done: list[Found] = []
        posted = time.monotonic()
        rest = self._rest if self._share < 1 else None
        reader = Reader(self._root, self._digests, self._is_stopping.is_set, rest)
        while not self._is_stopping.is_set():
            job = self._next_job(_POST_SECONDS)
            if job is not None:
                found = self._find(reader, job)
                if found is not None:
                    done.append(found)
            is_late = time.monotonic() - posted > _POST_SECONDS
            if done and (is_late or not self._queued or len(done) >= _POST_FILES):
                self._report(done)
                self._finish([each.job for each in done], posted=True)
                done, posted = [], time.monotonic()
        if done:
            self._report(done)

    def _find(self, reader: Reader, job: HashJob) -> Found | None:
        """Do a job; None if there is nothing to post, or not yet."""
        try:
            found = reader.find(job)
        except OSError as error:
            self._finish([job], posted=False)
            self._try_again(job, error)
            return None
        if isinstance(found, Found):
            self._waits.pop((job.folder, job.name), None)
            return found
        with self._changed:  # at once, so that the file is pending all the time
            self._finish([job], posted=False)
            if isinstance(found, TooYoung) and (job.folder, job.name) not in self._queued:
                self._push(job, found.wait_ns)
        return None

    def _rest(self, seconds: float) -> None:
        self._is_stopping.wait(min(_LONGEST_REST, seconds / self._share - seconds))

    def _try_again(self, job: HashJob, error: OSError) -> None:
        """Put a file off that could not be read: nothing tells when it can be."""
        if error.errno in _GONE:
            self._waits.pop((job.folder, job.name), None)
            return
        wait = self._waits.get((job.folder, job.name), SHORTEST_RETRY)
        is_forbidden = isinstance(error, PermissionError)  # there may be a million of these, for ever
        path = f"{self._root}/{job.folder}/{job.name}"
        (_log.debug if is_forbidden else _log.warning)("hashing failed path=%s error=%s", path, error.strerror)
        with self._changed:
            if is_forbidden:
                self._waits[job.folder, job.name] = min(2 * wait, LONGEST_RETRY)
            heapq.heappush(self._failed, (time.monotonic() + wait, next(self._numbers), job))

    # Reports.

    def _report(self, done: list[Found]) -> None:
        try:
            self._digests.save_digests([(each.fsid, each.place, each.record) for each in done if each.record])
        except StateError as error:  # they are in the tables all the same, and made again after a restart
            _log.warning("digests not recorded error=%s", error)
        # Asked after they were recorded, so that a later `forget` finds them in the record.
        self._forget_recorded([job.signature for job, *_ in done if job.version != self.version(job.signature)])
        digests: dict[str, dict[str, tuple[bytes, bytes, int]]] = {}
        for job, digest, *_ in done:
            digests.setdefault(job.folder, {})[job.name] = (job.signature, digest, job.version)
        self._post(Hashed(digests, tuple(each.job.as_recheck() for each in done if not each.is_confirmed)))

    def _forget_recorded(self, signatures: list[bytes]) -> None:
        if signatures:
            try:
                self._digests.forget_digests(signatures)
            except StateError as error:
                _log.warning("digests not forgotten error=%s", error)


def _state_of(job: HashJob) -> _State:
    return job.folder, job.name, job.signature, job.version, job.is_recheck
