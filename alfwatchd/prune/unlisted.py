"""Finds what is on disk and not in a reference: the candidates of a prune. Works on values only, not on the disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from alfwatchd.errors import PruneRefused
from alfwatchd.prune.near_miss import NearMisses
from alfwatchd.prune.plan import KeptItem
from alfwatchd.prune.reference import Reference
from alfwatchd.tables.matching import composed
from alfwatchd.tree.packed import is_of_link, unpack_signature
from alfwatchd.tree.rows import FolderRows, Session
from alfwatchd.tree.sessions import Snapshot

_SESSIONS_AT_ONCE = 1000
_FEW = 64


@dataclass(frozen=True, slots=True)
class UnlistedSession:
    """Datasets of one session that are not in the reference.

    Parameters
    ----------
    path : str
        Relative to the root.
    files : list of (str, bytes)
        rel_path and row value (see `tree.packed`) of each.
    is_removable : bool
        Whether the session folder may go once it is empty.
    """

    path: str
    files: list[tuple[str, bytes]]
    is_removable: bool


@dataclass(slots=True)
class Kept:
    """What stays and why: the first `most` items, and the number of all for each reason."""

    most: int = 10_000
    items: list[KeptItem] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, path: str, file_size: int | None, reason: str) -> None:
        """Note a file (`file_size` in bytes) or a folder (None) that stays. Reasons count as one up to their colon."""
        kind = reason.partition(":")[0]
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(self.items) < self.most:
            self.items.append(KeptItem(path, file_size, reason))


def find_unlisted(
    snapshot: Snapshot, reference: Reference, near: NearMisses, kept: Kept, *, remove_empty_sessions: bool
) -> Iterator[UnlistedSession]:
    """Yield the sessions with something that is not listed, in the order of their paths.

    Linked sessions and links to files are never candidates, nor are twins (see `tree.sessions.Tables`), which no
    snapshot holds. A session of the reference keeps its folder, even an empty one.

    Parameters
    ----------
    snapshot : Snapshot
        What is on disk now.
    reference : Reference
        What must stay.
    near : NearMisses
    kept : Kept
        Is given what stays because the reference nearly lists it.
    remove_empty_sessions : bool
        Whether folders of sessions that are not in the reference may go, once they are empty.

    Raises
    ------
    PruneRefused
        The reference lists no session of this tree.
    """
    sessions = [snapshot.sessions[path] for path in sorted(snapshot.sessions)]
    if sessions and not any(reference.numbers_of(session.key) for session in sessions):
        raise PruneRefused(
            f"{reference.origin} has none of the {len(sessions)} sessions here, so it is of another lab or root; "
            "nothing was deleted. Name the tables of this root"
        )
    for start in range(0, len(sessions), _SESSIONS_AT_ONCE):
        some = [each for each in sessions[start : start + _SESSIONS_AT_ONCE] if not each.is_link]
        for session, numbers, unlisted in _compare(some, reference):
            is_listed = bool(numbers)
            if reason := "" if is_listed else near.of_session(session):
                _keep_session(session, unlisted, reason, kept)
                continue
            files = _without_near(session, numbers, unlisted, near, kept)
            is_removable = remove_empty_sessions and not is_listed and len(files) == session.n_datasets
            if files or is_removable:
                yield UnlistedSession(session.path, files, is_removable)


def _compare(
    sessions: Sequence[Session], reference: Reference
) -> Iterator[tuple[Session, tuple[int, ...], list[tuple[str, bytes]]]]:
    """Yield for each session its numbers in the reference, and its datasets that are listed for none of these."""
    numbers = [reference.numbers_of(session.key) for session in sessions]
    folders = [(number, folder) for number, session in enumerate(sessions) for folder in session.folders]
    paths = [path for _, folder in folders for path in _paths(folder.folder, folder.packed.names)]
    is_listed = np.zeros(len(paths), np.bool_)
    counts = [len(folder.packed.names) for _, folder in folders]
    for turn in range(max(map(len, numbers), default=0)):  # several where more than one may be meant
        of_session = [each[turn] if turn < len(each) else -1 for each in numbers]
        of_folder = np.array([of_session[number] for number, _ in folders], np.int64)
        is_listed |= reference.rows.exact(np.repeat(of_folder, counts), paths) >= 0
    unlisted: list[list[tuple[str, bytes]]] = [[] for _ in sessions]
    end = 0
    for (number, folder), n_files in zip(folders, counts, strict=True):
        start, end = end, end + n_files
        rest = np.flatnonzero(~is_listed[start:end]).tolist()
        rest = [at for at in rest if not _is_listed_by_uuid(numbers[number], paths[start + at], reference)]
        unlisted[number] += _files(folder, rest)
    yield from zip(sessions, numbers, unlisted, strict=True)


def _paths(folder: str, names: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return the rel_paths of a folder in composed form; many sessions have folders with the same names."""
    return _few_paths(folder, names) if len(names) <= _FEW else _make_paths(folder, names)


def _make_paths(folder: str, names: tuple[str, ...]) -> tuple[bytes, ...]:
    prefix = f"{folder}/" if folder else ""
    return tuple([composed(prefix + name).encode() for name in names])


_few_paths = lru_cache(maxsize=1 << 10)(_make_paths)


def _files(folder: FolderRows, places: Sequence[int]) -> list[tuple[str, bytes]]:
    """Return rel_path and row value of some files of a folder, without links."""
    if not places:
        return []
    prefix = f"{folder.folder}/" if folder.folder else ""
    values = [(prefix + name, value) for name, value in folder.files.items()]
    return [values[at] for at in places if not is_of_link(values[at][1])]


def _is_listed_by_uuid(numbers: Sequence[int], path: bytes, reference: Reference) -> bool:
    return any(True for number in numbers for _ in reference.rows.by_uuid(number, path))


def _keep_session(session: Session, files: list[tuple[str, bytes]], reason: str, kept: Kept) -> None:
    for rel_path, value in files:
        kept.add(f"{session.path}/{rel_path}", unpack_signature(value).file_size, reason)
    if not files:
        kept.add(session.path, None, reason)


def _without_near(
    session: Session, numbers: Sequence[int], files: list[tuple[str, bytes]], near: NearMisses, kept: Kept
) -> list[tuple[str, bytes]]:
    found = []
    for rel_path, value in files:
        if reason := near.of_dataset(numbers, rel_path):
            kept.add(f"{session.path}/{rel_path}", unpack_signature(value).file_size, reason)
        else:
            found.append((rel_path, value))
    return found
