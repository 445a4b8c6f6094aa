"""Which rows lack a digest: hands them to the hasher and takes digests back into the tree."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from alfwatchd import linux
from alfwatchd.errors import StateError
from alfwatchd.index.indexer import Committed, Indexer
from alfwatchd.index.state_db import StateDb
from alfwatchd.scan.disk_images import record_space
from alfwatchd.scan.file_digest import HashJob
from alfwatchd.scan.hasher import Hashed, Hasher
from alfwatchd.scan.place import Place
from alfwatchd.tree.content import Recorded, inode_key
from alfwatchd.tree.packed import SIGNATURE_SIZE, differs_in_ctime, inode_of, is_of_link, pack_signature
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
    rechecks : Hasher or None
        Reads the files again whose digests are not confirmed; None where that is left to a later run.
    """

    def __init__(self, hasher: Hasher, state: StateDb, rechecks: Hasher | None) -> None:
        self._hasher = hasher
        self._state = state
        self._rechecks = rechecks
        self._to_confirm: dict[tuple[str, str], bytes] = {}
        """Files whose digest is not confirmed -> signature; only where that is to be done before the run ends."""

    @property
    def n_pending(self) -> int:
        """Number of files that wait for their digest."""
        return self._hasher.n_pending

    @property
    def n_unconfirmed(self) -> int:
        """Number of files whose digest is not confirmed: they are to be read again."""
        return self._rechecks.n_open if self._rechecks is not None else 0

    def submit(self, committed: Committed, indexer: Indexer) -> None:
        """Queue the rows without digest of the sessions that changed."""
        if committed.rewritten or committed.changed:
            self._forget([*committed.rewritten, *committed.changed])
        if committed.rewritten:
            # The event told of one name only; others may lead to the same file.
            if shared := indexer.intake.hard_links.inodes_among(committed.rewritten):
                indexer.tree.forget_digests(shared, [indexer.tree.root])
            indexer.tree.forget_digests(set(map(inode_of, committed.rewritten)), indexer.linked)
        for session in committed.sessions:
            jobs = self._jobs(session)
            if jobs:
                self._hasher.submit(self._take_recorded(session, jobs, indexer))
        self._recheck(HashJob.of(*each, self._hasher.version(each[-1])).as_recheck() for each in committed.unproven)

    def end(self, indexer: Indexer) -> None:
        """Forget each digest of a run that was to be confirmed and was not: the file cannot be read, or changes."""
        for (path, _), signature in self._to_confirm.items():
            folder = indexer.tree.find(path)
            if folder is not None:
                indexer.tree.forget_digests({inode_of(signature)}, [folder])
        self._to_confirm = {}

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
                    self._look_again(path, name, signature, indexer, now)
                elif version == latest:
                    digests.setdefault(path, {})[name] = signature, digest
                    self._to_confirm.pop((path, name), None)
                else:
                    again.append(HashJob.of(path, name, signature, latest))
        self._set(digests, indexer)
        if again:
            self._hasher.submit(again)
        self._recheck(message.unconfirmed)

    def _forget(self, signatures: list[bytes]) -> None:
        """Let no digest count that was made, or is being made, of files with these signatures."""
        self._hasher.forget(signatures)
        if self._rechecks not in (None, self._hasher):
            self._rechecks.forget(signatures)

    def _recheck(self, jobs: Iterable[HashJob]) -> None:
        """Have files read again whose digests are not confirmed, unless events told that they were written to since."""
        if self._rechecks is None:
            return
        left = [job for job in jobs if job.version == self._hasher.version(job.signature)]
        if self._rechecks is self._hasher:
            self._to_confirm |= {(job.folder, job.name): job.signature for job in left}
        self._rechecks.submit(left)

    def _look_again(self, path: str, name: str, signature: bytes, indexer: Indexer, now: float | None) -> None:
        """Deal with a file whose change time is another than its job said.

        If the row was looked at since and has kept its digest, only a file that was to be read again is left to do.
        """
        folder = indexer.tree.find(path)
        row = folder.rows.packed.get(name) if folder is not None and folder.rows is not None else None
        if row is not None and len(row) > SIGNATURE_SIZE and row[:SIGNATURE_SIZE] != signature:
            known = row[:SIGNATURE_SIZE]
            self._recheck([HashJob.of(path, name, known, self._hasher.version(known)).as_recheck()])
        elif folder is not None and now is not None:
            indexer.dirty.mark(folder, now).names.add(name)

    def _take_recorded(self, session: Session, jobs: list[HashJob], indexer: Indexer) -> list[HashJob]:
        """Put recorded digests into rows, where it takes no look at the file, and return the other jobs.

        It costs 3 us a file and not 20, and a restart does not write the tables without hashes first. A file with
        another change time is looked at here as well, so that no hash is missing after a `chmod -R`. A file that may
        lie elsewhere is left to the hasher, which asks the file itself for its file system.
        """
        fsid = _fsid_below(session, indexer.guard.places)
        if fsid is None:
            return jobs
        keys = [None if job.version or is_of_link(job.signature) else inode_key(job.signature) for job in jobs]
        try:
            known = self._state.find_recorded(fsid, [key.place for key in keys if key is not None])
        except StateError as error:
            _log.warning("recorded digests not readable error=%s", error)
            return jobs
        digests: dict[str, dict[str, tuple[bytes, bytes]]] = {}
        left, unconfirmed = [], []
        for job, key in zip(jobs, keys, strict=True):
            recorded = known.get(key.place) if key is not None else None
            is_known = key is not None and recorded is not None and recorded.is_of(key)
            is_renewed = recorded is not None and not is_known and self._is_renewed(job, recorded, indexer)
            if recorded is not None and (is_known or is_renewed):
                digests.setdefault(job.folder, {})[job.name] = (job.signature, recorded.digest)
                if is_renewed:
                    unconfirmed.append(job.as_recheck())
            else:
                left.append(job)
        self._set(digests, indexer)
        self._recheck(unconfirmed)
        return left

    def _is_renewed(self, job: HashJob, recorded: Recorded, indexer: Indexer) -> bool:
        """Tell whether a recorded digest is that of certainly the same file; see `Recorded.is_renewed_by`."""
        key = inode_key(job.signature)
        if not differs_in_ctime(recorded.stamp, key.stamp):
            return False
        try:
            found = linux.statx(f"{indexer.scanner.root}/{job.folder}/{job.name}")
        except OSError:
            return False
        signature = pack_signature(found.size, found.mtime_ns, found.ino, False, found.ctime_ns)  # noqa: FBT003
        return signature == job.signature and recorded.is_renewed_by(key, found.btime_ns or 0)

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
                if len(value) == SIGNATURE_SIZE:
                    jobs.append(HashJob.of(path, name, value, self._hasher.version(value)))
        return jobs


def _fsid_below(session: Session, places: Mapping[str, Place]) -> int | None:
    """Return where digests are recorded of all files of a session but links, or None if that is unsure."""
    root = places.get("")
    has_mounts = any(path and f"{path}/".startswith(f"{session.path}/") for path in places)
    lies_in_mount = any(path and f"{session.path}/".startswith(f"{path}/") for path in places)
    if root is None or root.fs_type not in ONE_FSID or session.is_link or has_mounts or lies_in_mount:
        return None
    return record_space(root.fsid, root.dev, root.identity)
