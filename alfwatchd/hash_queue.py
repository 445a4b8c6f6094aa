"""Which rows lack a digest: hands them to the hasher and takes digests back into the tree."""

from __future__ import annotations

import logging

from alfwatchd.core.encode import Encoding
from alfwatchd.core.messages import Hashed
from alfwatchd.core.rows import SIGNATURE_SIZE, Session, unpack_signature
from alfwatchd.errors import StateError
from alfwatchd.hashing import Hasher, HashJob
from alfwatchd.indexer import Indexer
from alfwatchd.state import State

_log = logging.getLogger(__name__)


class HashQueue:
    """Between indexer and hasher. Engine's thread only.

    Parameters
    ----------
    hasher : Hasher
    state : State
    encoding : Encoding
        Knows the digests of earlier tables.
    tables_written : float
        When those were written, in seconds since 1970: a file modified later has another content.
    """

    def __init__(self, hasher: Hasher, state: State, encoding: Encoding, tables_written: float) -> None:
        self._hasher = hasher
        self._state = state
        self._encoding = encoding
        self._tables_written_ns = int(tables_written * 1e9)

    @property
    def n_pending(self) -> int:
        """Number of files that wait for their digest."""
        return self._hasher.n_pending

    def submit(self, indexer: Indexer) -> None:
        """Queue the rows without digest of the sessions that changed."""
        rewritten, indexer.tree.rewritten = indexer.tree.rewritten, []
        if rewritten:
            try:
                self._state.forget_digests(rewritten)
            except StateError as error:
                _log.warning("digests not forgotten error=%s", error)
        for session in indexer.committed:
            self._hasher.submit(self._jobs(session))

    def take(self, message: Hashed, indexer: Indexer) -> None:
        """Put digests into the rows that still have the signature they were made for."""
        for path, digests in message.digests.items():
            folder = indexer.tree.find(path)
            if folder is not None:
                indexer.tree.set_digest(folder, digests)

    def _jobs(self, session: Session) -> list[HashJob]:
        kept = self._encoding.kept.datasets.get(self._encoding.kept_key(session.key), {})
        jobs = []
        for folder in session.folders:
            path = f"{session.path}/{folder.folder}" if folder.folder else session.path
            for name, value in folder.files.items():
                if len(value) > SIGNATURE_SIZE:
                    continue
                about = unpack_signature(value)
                row = kept.get(f"{folder.folder}/{name}" if folder.folder else name)
                is_known = row is not None and row.file_size == about.file_size
                known = row.digest if row and is_known and about.mtime_ns < self._tables_written_ns else b""
                jobs.append(HashJob(-about.mtime_ns, path, name, value, known))
        return jobs
