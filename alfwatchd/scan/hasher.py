"""md5 of dataset files in background threads: newest first, once per content, never of a file being written.

A digest is recorded for the next run only if each later change of the file will show: see `tree.content`.
"""

from __future__ import annotations

import errno
import hashlib
import heapq
import itertools
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from alfwatchd import linux
from alfwatchd.errors import StateError
from alfwatchd.tree.content import Key, is_final, is_settled, record_key
from alfwatchd.tree.packed import differs_in_ctime, either_way, pack_signature, unpack_signature

_log = logging.getLogger(__name__)

_CHUNK_SIZE = 1 << 18
"""Bytes read at once: as fast as more, and it stays in the processor's cache."""

SHORTEST_RETRY, LONGEST_RETRY = 15.0, 3600.0
"""Seconds until a file that could not be read is tried again; twice as long each time if reading is forbidden."""

_POST_SECONDS = 0.5
_POST_FILES = 256
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_MAX_VERSIONS = 100_000
"""Of files that were rewritten: more than can be between a read and its report."""

_State = tuple[str, str, bytes, int]


@dataclass(frozen=True, slots=True, order=True)
class HashJob:
    """One file to hash; the newest sorts first.

    Parameters
    ----------
    age_key : int
        Minus mtime_ns.
    folder, name : str
        Folder relative to the root, and file name.
    signature : bytes
        Packed; the digest counts for this state of the file only.
    version : int
        How often, as far as events told, the file was rewritten without a change of its signature. A digest counts for
        the last version only. Recorded digests count for the first version only.
    """

    age_key: int
    folder: str
    name: str
    signature: bytes = field(compare=False)
    version: int = field(default=0, compare=False)


class Digests(Protocol):
    """Where digests are recorded over restarts; `state_db.StateDb` is one. Each method may raise `StateError`."""

    def find_digest(self, fsid: int, key: Key) -> bytes | None:
        """Return the digest of a file on this file system, or None."""

    def save_digests(self, rows: Iterable[tuple[int, Key, bytes]]) -> None:
        """Record (fsid, key, digest)."""

    def forget_digests(self, signatures: Iterable[bytes]) -> None:
        """Forget the digests of all files with these signatures."""


class _Found(NamedTuple):
    """What a job gave.

    Parameters
    ----------
    job : HashJob
    digest : bytes
        Empty if only the change time of the file differs: the indexer must look at the file again.
    fsid : int
    key : Key or None
        Under what the digest is to be recorded; None if it must not be.
    """

    job: HashJob
    digest: bytes
    fsid: int = 0
    key: Key | None = None


@dataclass(frozen=True, slots=True)
class Hashed:
    """md5 digests: folder path -> file name -> (packed signature, 16-byte digest, version of the content)."""

    digests: Mapping[str, Mapping[str, tuple[bytes, bytes, int]]]


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
        A file that changed less than this many seconds ago may still be written to, so it waits.
    """

    def __init__(
        self,
        root: str,
        digests: Digests,
        n_threads: int,
        post: Callable[[Hashed], None],
        *,
        settle_seconds: float = 2.0,
    ) -> None:
        self._settle_ns = int(settle_seconds * 1e9)
        self._root = root
        self._digests = digests
        self._post = post
        # A heap compares often, and tuples do that in C.
        self._jobs: list[tuple[int, str, str, int, HashJob]] = []
        self._unsettled: list[tuple[int, int, HashJob]] = []
        """A heap of files that may still be written, by their change time."""
        self._numbers = itertools.count()
        self._queued: dict[tuple[str, str], HashJob] = {}
        # Jobs that a thread has taken and not posted yet -> one for the same state of the file that came meanwhile.
        self._taken: dict[_State, HashJob | None] = {}
        self._versions: dict[bytes, int] = {}
        # Files that could not be read: a heap of when to try again, and how long to wait after that.
        self._failed: list[tuple[float, int, HashJob]] = []
        self._waits: dict[tuple[str, str], float] = {}
        self._stopping = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, name=f"hasher-{number}", daemon=True) for number in range(n_threads)
        ]
        for thread in self._threads:
            thread.start()

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
    def n_reading(self) -> int:
        """Number of files that are being read now, or whose digests are not posted yet. Any thread may ask."""
        with self._changed:
            return len(self._taken)

    def submit(self, jobs: list[HashJob]) -> None:
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

    def _push(self, job: HashJob) -> None:
        self._queued[job.folder, job.name] = job
        if is_settled(job.signature, time.time_ns(), self._settle_ns):
            heapq.heappush(self._jobs, (job.age_key, job.folder, job.name, next(self._numbers), job))
        else:
            heapq.heappush(self._unsettled, (unpack_signature(job.signature).ctime_ns, next(self._numbers), job))

    def close(self) -> None:
        """Let each thread end after the chunk it is reading."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        """Hash what is queued, in a thread of its own, and post the digests in batches."""
        done: list[_Found] = []
        posted = time.monotonic()
        # One buffer for all files: to clear new memory takes longer than a tiny file.
        buffer = memoryview(bytearray(_CHUNK_SIZE))
        while not self._stopping:
            job = self._next_job()
            if job is not None:
                found = self._digest(job, buffer)
                if found is not None:
                    done.append(found)
                    self._waits.pop((job.folder, job.name), None)
                else:
                    self._finish([job], posted=False)
            is_late = time.monotonic() - posted > _POST_SECONDS
            if done and (is_late or not self._queued or len(done) >= _POST_FILES):
                self._report(done)
                self._finish([each.job for each in done], posted=True)
                done, posted = [], time.monotonic()
        if done:
            self._report(done)

    def _finish(self, jobs: list[HashJob], *, posted: bool) -> None:
        """Let go of jobs; of a file that was not what its job says, it may be what a later one says."""
        with self._changed:
            for job in jobs:
                again = self._taken.pop(_state_of(job))
                if again is not None and not posted:
                    self._push(again)

    def _next_job(self) -> HashJob | None:
        """Return the newest file that has settled; None after half a second without one."""
        with self._changed:
            if not self._queued:
                self._changed.wait(_POST_SECONDS)
            self._push_failed()
            self._push_settled()
            while self._jobs:
                job = heapq.heappop(self._jobs)[-1]
                if self._queued.get((job.folder, job.name)) is job:
                    del self._queued[job.folder, job.name]
                    self._taken[_state_of(job)] = None
                    return job
            if self._unsettled and not self._stopping:
                self._changed.wait(_POST_SECONDS)
            return None

    def _push_settled(self) -> None:
        """Queue what has been left alone for long enough."""
        now = time.time_ns()
        while self._unsettled and is_settled(self._unsettled[0][-1].signature, now, self._settle_ns):
            _, number, job = heapq.heappop(self._unsettled)
            heapq.heappush(self._jobs, (job.age_key, job.folder, job.name, number, job))

    def _digest(self, job: HashJob, buffer: memoryview) -> _Found | None:
        """Return the digest of a file and where to record it; None if the file is gone or is not the one of the job."""
        path = f"{self._root}/{job.folder}/{job.name}"
        started = time.time_ns()
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            self._try_again(job, error)
            return None
        try:
            if not _is_same(fd, job):
                return _Found(job, b"") if _is_renewed(fd, job) else None
            fsid = os.fstatvfs(fd).f_fsid
            key = record_key(linux.file_system_type(fd), f"{job.folder}/{job.name}", job.signature)
            recorded = self._recorded(fsid, key) if key is not None and job.version == 0 else None
            digest = recorded or self._read(fd, unpack_signature(job.signature).file_size, buffer)
            if digest is None:
                return None
            if not _is_same(fd, job):
                return _Found(job, b"") if _is_renewed(fd, job) else None
            return _Found(job, digest, fsid, key if is_final(job.signature, started) else None)
        except OSError as error:
            self._try_again(job, error)
            return None
        finally:
            os.close(fd)

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

    def _push_failed(self) -> None:
        """Queue the files whose wait after a failure is over."""
        while self._failed and self._failed[0][0] <= time.monotonic():
            _, _, job = heapq.heappop(self._failed)
            if (job.folder, job.name) not in self._queued and _state_of(job) not in self._taken:
                self._push(job)

    def _recorded(self, fsid: int, key: Key) -> bytes | None:
        # Asked again here, although the caller may have asked before: it may have been hashed meanwhile.
        try:
            return self._digests.find_digest(fsid, key)
        except StateError as error:
            _log.warning("recorded digests not readable error=%s", error)
            return None

    def _read(self, fd: int, n_bytes: int, buffer: memoryview) -> bytes | None:
        """Return the digest of a file of this size; whether it still has it is for the caller to see."""
        md5 = hashlib.md5(usedforsecurity=False)
        while n_bytes > 0 and (n_read := os.readv(fd, [buffer])):
            md5.update(buffer[:n_read])
            n_bytes -= n_read
            if self._stopping:
                return None
        return md5.digest()

    def _report(self, done: list[_Found]) -> None:
        try:
            self._digests.save_digests([(each.fsid, each.key, each.digest) for each in done if each.key is not None])
        except StateError as error:  # they are in the tables all the same, and made again after a restart
            _log.warning("digests not recorded error=%s", error)
        # Asked after they were recorded, so that a later `forget` finds them in the record.
        self._forget_recorded([job.signature for job, *_ in done if job.version != self.version(job.signature)])
        digests: dict[str, dict[str, tuple[bytes, bytes, int]]] = {}
        for job, digest, *_ in done:
            digests.setdefault(job.folder, {})[job.name] = (job.signature, digest, job.version)
        self._post(Hashed(digests))

    def _forget_recorded(self, signatures: list[bytes]) -> None:
        if signatures:
            try:
                self._digests.forget_digests(signatures)
            except StateError as error:
                _log.warning("digests not forgotten error=%s", error)


def _is_same(fd: int, job: HashJob) -> bool:
    about = os.fstat(fd)
    return stat.S_ISREG(about.st_mode) and _signature(about, job) == job.signature


def _is_renewed(fd: int, job: HashJob) -> bool:
    """Tell whether a file differs from what its job says in nothing but the change time: a hard link has no event."""
    about = os.fstat(fd)
    return stat.S_ISREG(about.st_mode) and differs_in_ctime(_signature(about, job), job.signature)


def _signature(about: os.stat_result, job: HashJob) -> bytes:
    is_link = unpack_signature(job.signature).is_link
    return pack_signature(about.st_size, about.st_mtime_ns, about.st_ino, is_link, about.st_ctime_ns)


def _state_of(job: HashJob) -> _State:
    return job.folder, job.name, job.signature, job.version
