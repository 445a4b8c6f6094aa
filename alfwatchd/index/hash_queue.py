"""Which rows lack a digest: hands them to the hasher and takes digests back into the tree."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from alfwatchd.errors import StateError
from alfwatchd.index.indexer import Committed, Indexer
from alfwatchd.index.state_db import StateDb
from alfwatchd.scan.hasher import Hashed, Hasher, HashJob
from alfwatchd.scan.place import Place
from alfwatchd.tree.content import inode_key
from alfwatchd.tree.packed import SIGNATURE_SIZE, inode_of, is_of_link, unpack_signature
from alfwatchd.tree.rows import Session

_log = logging.getLogger(__name__)

ONE_FSID = frozenset({"ext2", "ext3", "ext4", "xfs", "f2fs", "tmpfs"})
"""File systems that have the same id everywhere; in btrfs, for example, each subvolume has its own."""


class HashQueue:
    """Between indexer and hasher. Engine's thread only.

    Parameters
    ----------
    hasher : Hasher
    state : StateDb
    """

    def __init__(self, hasher: Hasher, state: StateDb) -> None:
        self._hasher = hasher
        self._state = state

    @property
    def n_pending(self) -> int:
        """Number of files that wait for their digest."""
        return self._hasher.n_pending

    def submit(self, committed: Committed, indexer: Indexer) -> None:
        """Queue the rows without digest of the sessions that changed."""
        sessions, rewritten = committed
        if rewritten:
            self._hasher.forget(rewritten)
            # The event told of one name only; others may lead to the same file.
            if shared := indexer.intake.hard_links.inodes_among(rewritten):
                indexer.tree.forget_digests(shared, [indexer.tree.root])
            indexer.tree.forget_digests(set(map(inode_of, rewritten)), indexer.linked)
        for session in sessions:
            jobs = self._jobs(session)
            if jobs:
                self._hasher.submit(self._take_recorded(session, jobs, indexer))

    def accept(self, message: Hashed, indexer: Indexer, now: float | None = None) -> None:
        """Put digests into the rows that still have the signature they were made for; for an old version, ask again.

        If a file has another change time than its row, perhaps no event came, as for a hard link. If `now` is given, in
        seconds on the caller's clock, the file is marked to be looked at.
        """
        digests: dict[str, dict[str, tuple[bytes, bytes]]] = {}
        again = []
        for path, files in message.digests.items():
            for name, (signature, digest, version) in files.items():
                latest = self._hasher.version(signature)
                if not digest:
                    folder = indexer.tree.find(path)
                    if folder is not None and now is not None:
                        indexer.dirty.mark(folder, now).names.add(name)
                elif version == latest:
                    digests.setdefault(path, {})[name] = signature, digest
                else:
                    age_key = -unpack_signature(signature).mtime_ns
                    again.append(HashJob(age_key, path, name, signature, latest))
        self._set(digests, indexer)
        if again:
            self._hasher.submit(again)

    def _take_recorded(self, session: Session, jobs: list[HashJob], indexer: Indexer) -> list[HashJob]:
        """Put recorded digests into rows, where it takes no look at the file, and return the other jobs.

        It costs 3 us a file and not 20, and a restart does not write the tables without hashes first. A file that may
        lie elsewhere is left to the hasher, which asks the file itself for its file system.
        """
        fsid = _fsid_below(session, indexer.guard.places)
        if fsid is None:
            return jobs
        keys = [None if job.version or is_of_link(job.signature) else inode_key(job.signature) for job in jobs]
        try:
            known = self._state.find_digests(fsid, [key for key in keys if key is not None])
        except StateError as error:
            _log.warning("recorded digests not readable error=%s", error)
            return jobs
        digests: dict[str, dict[str, tuple[bytes, bytes]]] = {}
        left = []
        for job, key in zip(jobs, keys, strict=True):
            if key is not None and key in known:
                digests.setdefault(job.folder, {})[job.name] = (job.signature, known[key])
            else:
                left.append(job)
        self._set(digests, indexer)
        return left

    def _set(self, digests: Mapping[str, Mapping[str, tuple[bytes, bytes]]], indexer: Indexer) -> None:
        for path, found in digests.items():
            folder = indexer.tree.find(path)
            if folder is not None:
                indexer.tree.set_digest(folder, found)

    def _jobs(self, session: Session) -> list[HashJob]:
        jobs = []
        for folder in session.folders:
            path = f"{session.path}/{folder.folder}" if folder.folder else session.path
            for name, value in folder.files.items():
                if len(value) > SIGNATURE_SIZE:
                    continue
                jobs.append(HashJob(-unpack_signature(value).mtime_ns, path, name, value, self._hasher.version(value)))
        return jobs


def _fsid_below(session: Session, places: Mapping[str, Place]) -> int | None:
    """Return the id of the one file system that all files of a session but links are on, or None if that is unsure."""
    root = places.get("")
    has_mounts = any(path and f"{path}/".startswith(f"{session.path}/") for path in places)
    lies_in_mount = any(path and f"{session.path}/".startswith(f"{path}/") for path in places)
    if root is None or root.fs_type not in ONE_FSID or session.is_link or has_mounts or lies_in_mount:
        return None
    return root.fsid
