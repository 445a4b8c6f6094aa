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
from alfwatchd.scan.disk_identity import read_identity
from alfwatchd.scan.disk_images import record_space
from alfwatchd.scan.mounts import Mount, list_mounts
from alfwatchd.scan.place import keeps_change_time, shows_another_folder
from alfwatchd.tree.content import (
    XFS,
    Key,
    Recorded,
    clock_step,
    has_lasting_inodes,
    is_same_file,
    is_settled,
    may_recur,
    record_key,
)
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
        self._mounts: dict[int, Mount] = {}
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
        identity = read_identity(fd, "xfs", 0) if file_system == XFS else None
        fsid = record_space(os.fstatvfs(fd).f_fsid, about.dev, identity)
        key = record_key(file_system, f"{job.folder}/{job.name}", job.signature)
        if not key.is_proof and self._has_change_time(about.mount_id, job):
            key = key._replace(is_proof=True)
        born_ns = about.btime_ns or 0
        # Without proof, and without a time of birth, a record could never be used.
        is_recordable = key.is_proof or born_ns != 0
        is_asked = is_recordable and job.version == 0 and not job.is_recheck
        recorded = self._recorded(fsid, key) if is_asked else None
        if recorded is not None:
            if recorded.is_of(key):
                return Found(job, recorded.digest)
            if recorded.is_renewed_by(key, born_ns):
                return Found(job, recorded.digest, is_confirmed=False)
        step, now_ns = clock_step(job.signature, file_system), time.time_ns()
        if not is_settled(job.signature, now_ns, step):
            return TooYoung(step)
        digest = self._read(fd, job)
        if digest is None or not is_same(fd, job):
            return Found(job, b"") if not self._is_over() and _is_renewed(fd, job) else None
        if not is_recordable or may_recur(job.signature, now_ns, step):
            return Found(job, digest)
        return Found(job, digest, fsid=fsid, place=key.place, record=Recorded(key.stamp, born_ns, digest))

    def _has_change_time(self, mount_id: int | None, job: HashJob) -> bool:
        """Tell whether the change time that a file below FUSE shows certainly is one."""
        if time.monotonic() - self._read_mounts > _MOUNTS_SECONDS:  # the numbers of mounts are given again
            self._read_mounts = time.monotonic()
            with suppress(OSError):
                self._mounts = {each.mount_id: each for each in list_mounts()}
        mount = self._mounts.get(mount_id or 0)
        if mount is None:
            return False
        return keeps_change_time(mount.fs_type) or self._is_shown(mount, job)

    def _is_shown(self, mount: Mount, job: HashJob) -> bool:
        """Tell whether a file is, with all its numbers, found in the source of the mount, where change times are kept.

        An option of bindfs makes it tell modification times instead: then the numbers differ.
        """
        path = f"{self._root}/{job.folder}/{job.name}"
        if not shows_another_folder(mount.fs_type, mount.source) or not path.startswith(f"{mount.path}/"):
            return False
        inside = mount.device.partition(" ")[2].rstrip("/")  # a service may be given only a part of it
        try:
            fd = os.open(f"{mount.source}{inside}{path[len(mount.path) :]}", os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return is_same(fd, job) and has_lasting_inodes(linux.file_system_type(fd))
        finally:
            os.close(fd)

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
    found = _signature(about, job)
    return stat.S_ISREG(about.st_mode) and is_same_file(found, job.signature, lambda: linux.file_system_type(fd))


def _is_renewed(fd: int, job: HashJob) -> bool:
    """Tell whether a file differs from what its job says in nothing but the change time: a hard link has no event."""
    about = os.fstat(fd)
    return stat.S_ISREG(about.st_mode) and differs_in_ctime(_signature(about, job), job.signature)


def _signature(about: os.stat_result, job: HashJob) -> bytes:
    is_link = unpack_signature(job.signature).is_link
    return pack_signature(about.st_size, about.st_mtime_ns, about.st_ino, is_link, about.st_ctime_ns)
