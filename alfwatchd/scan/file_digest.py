"""The md5 of one file as a job describes it: recorded, read from the disk, or not to be had.

A digest is made only of a file that no change can leave looking as it did: see `tree.content.clock_step`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from alfwatchd import linux
from alfwatchd.errors import StateError
from alfwatchd.scan.disk_images import record_space
from alfwatchd.scan.mounts import list_mounts
from alfwatchd.scan.place import keeps_change_time
from alfwatchd.tree.content import Key, Recorded, clock_step, is_settled, path_key, record_key
from alfwatchd.tree.packed import differs_in_ctime, pack_signature, unpack_signature

_log = logging.getLogger(__name__)

_CHUNK_SIZE = 1 << 18
"""Bytes read at once: as fast as more, and it stays in the processor's cache."""

_LOOK_SECONDS = 0.2
"""Seconds of reading after which a look tells whether the file is still the one that is wanted."""

_MOUNTS_SECONDS = 5.0
"""For how long the table of mounts is not read again."""


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
    is_recheck : bool
        Whether the row has a digest that is not confirmed: the file must be read, whatever is recorded.
    """

    age_key: int
    folder: str
    name: str
    signature: bytes = field(compare=False)
    version: int = field(default=0, compare=False)
    is_recheck: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, folder: str, name: str, signature: bytes, version: int) -> HashJob:
        """Make the job of a file with this signature."""
        return cls(-unpack_signature(signature).mtime_ns, folder, name, signature, version)

    def as_recheck(self) -> HashJob:
        """Return the job that reads the file again because its digest is not confirmed."""
        return replace(self, is_recheck=True)


class Digests(Protocol):
    """Where digests are recorded over restarts; `state_db.StateDb` is one. Each method may raise `StateError`."""

    def find_recorded(self, fsid: int, places: Sequence[bytes]) -> dict[bytes, Recorded]:
        """Return `Key.place` -> what is recorded for it, of files on one file system."""

    def save_digests(self, rows: Iterable[tuple[int, bytes, Recorded]]) -> None:
        """Record (fsid, `Key.place`, record)."""

    def forget_digests(self, signatures: Iterable[bytes]) -> None:
        """Forget the digests of all files with these signatures."""


class Found(NamedTuple):
    """What a job gave.

    Parameters
    ----------
    job : HashJob
    digest : bytes
        Empty if only the change time of the file differs: the indexer must look at the file again.
    is_confirmed : bool
        False for the digest of certainly the same file with another change time: it must be read again some time.
    fsid : int
    place : bytes
    record : Recorded or None
        What is to be recorded, under which `Key.place`; None for nothing.
    """

    job: HashJob
    digest: bytes
    is_confirmed: bool = True
    fsid: int = 0
    place: bytes = b""
    record: Recorded | None = None


class TooYoung(NamedTuple):
    """The file must be left alone for this many nanoseconds first, counted from its change time."""

    wait_ns: int


class Reader:
    """Finds digests of files below one root. Each thread has its own.

    Parameters
    ----------
    root : str
        Absolute path.
    digests : Digests
    is_over : callable
        Whether to stop in the middle of a file.
    rest : callable
        Called after each piece of a file, with the seconds that reading it took.
    """

    def __init__(
        self, root: str, digests: Digests, is_over: Callable[[], bool], rest: Callable[[float], object] | None = None
    ) -> None:
        self._root, self._digests, self._is_over, self._rest = root, digests, is_over, rest
        # One buffer for all files: to clear new memory takes longer than a tiny file.
        self._buffer = memoryview(bytearray(_CHUNK_SIZE))
        self._keeping: set[int] = set()
        self._read_mounts = -_MOUNTS_SECONDS

    def find(self, job: HashJob) -> Found | TooYoung | None:
        """Return the digest of a file; None if the file is not the one of the job, or changes while it is read.

        Raises
        ------
        OSError
            The file is gone, or cannot be read.
        """
        fd = os.open(f"{self._root}/{job.folder}/{job.name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not is_same(fd, job):
                return Found(job, b"") if _is_renewed(fd, job) else None
            return self._find(fd, job)
        finally:
            os.close(fd)

    def _find(self, fd: int, job: HashJob) -> Found | TooYoung | None:
        file_system, about = linux.file_system_type(fd), linux.statx(b"", dir_fd=fd)
        fsid = record_space(os.fstatvfs(fd).f_fsid, about.dev)
        key = record_key(file_system, f"{job.folder}/{job.name}", job.signature)
        if key is None and self._keeps_change_time(about.mount_id):
            key = path_key(f"{job.folder}/{job.name}", job.signature)
        born_ns = about.btime_ns or 0
        recorded = self._recorded(fsid, key) if key is not None and job.version == 0 and not job.is_recheck else None
        if key is not None and recorded is not None:
            if recorded.is_of(key):
                return Found(job, recorded.digest)
            if recorded.is_renewed_by(key, born_ns):
                return Found(job, recorded.digest, is_confirmed=False)
        step = clock_step(job.signature, file_system)
        if not is_settled(job.signature, time.time_ns(), step):
            return TooYoung(step)
        digest = self._read(fd, job)
        if digest is None or not is_same(fd, job):
            return Found(job, b"") if not self._is_over() and _is_renewed(fd, job) else None
        record = Recorded(key.stamp, born_ns, digest) if key is not None else None
        return Found(job, digest, fsid=fsid, place=key.place if key is not None else b"", record=record)

    def _keeps_change_time(self, mount_id: int | None) -> bool:
        """Tell whether each file that is reached through a mount certainly has a change time."""
        if time.monotonic() - self._read_mounts > _MOUNTS_SECONDS:  # the numbers of mounts are given again
            self._read_mounts = time.monotonic()
            with suppress(OSError):
                self._keeping = {each.mount_id for each in list_mounts() if keeps_change_time(each.fs_type)}
        return mount_id in self._keeping

    def _recorded(self, fsid: int, key: Key) -> Recorded | None:
        # Asked again here, although the caller may have asked before: it may have been hashed meanwhile.
        try:
            return self._digests.find_recorded(fsid, [key.place]).get(key.place)
        except StateError as error:
            _log.warning("recorded digests not readable error=%s", error)
            return None

    def _read(self, fd: int, job: HashJob) -> bytes | None:
        """Return the digest of a file; None if it was seen to change. Whether it did later is for the caller to see."""
        md5, n_left = hashlib.md5(usedforsecurity=False), unpack_signature(job.signature).file_size
        looked = started = time.monotonic()
        while n_left > 0 and (n_read := os.readv(fd, [self._buffer])):
            md5.update(self._buffer[:n_read])
            n_left -= n_read
            if self._is_over():
                return None
            now = time.monotonic()
            if self._rest is not None:
                self._rest(now - started)
                now = time.monotonic()
            if now - looked > _LOOK_SECONDS:
                looked = now
                if not is_same(fd, job):
                    return None
            started = now
        return md5.digest()


def is_same(fd: int, job: HashJob) -> bool:
    """Tell whether an open file is the one that a job describes, and unchanged since."""
    about = os.fstat(fd)
    return stat.S_ISREG(about.st_mode) and _signature(about, job) == job.signature


def _is_renewed(fd: int, job: HashJob) -> bool:
    """Tell whether a file differs from what its job says in nothing but the change time: a hard link has no event."""
    about = os.fstat(fd)
    return stat.S_ISREG(about.st_mode) and differs_in_ctime(_signature(about, job), job.signature)


def _signature(about: os.stat_result, job: HashJob) -> bytes:
    is_link = unpack_signature(job.signature).is_link
    return pack_signature(about.st_size, about.st_mtime_ns, about.st_ino, is_link, about.st_ctime_ns)
