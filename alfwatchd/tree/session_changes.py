"""What changed in one session between two moments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from alfwatchd.tree.packed import SIGNATURE_SIZE, unpack_signature
from alfwatchd.tree.rows import FolderRows, Session

MOST_NAMED = 60
"""How many changed sessions are named at once; the others are counted."""


@dataclass(frozen=True, slots=True)
class SessionChange:
    """How the rows of a session differ.

    Parameters
    ----------
    path : str
        Of the session.
    state : str
        Whether the session is new, gone, or was there before and is kept.
    added, changed, removed : int
        Number of datasets. A dataset in memory is changed if its size or modification time is another one; one in the
        tables, if its size or id is.
    n_bytes : int
        How many bytes more the datasets have; negative for fewer.
    columns : tuple of str
        Columns of the tables that changed, apart from ``file_size``; of what is in memory, only ``hash``.
    """

    path: str
    state: Literal["new", "gone", "kept"] = "kept"
    added: int = 0
    changed: int = 0
    removed: int = 0
    n_bytes: int = 0
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChangedSessions:
    """Some sessions that changed, and the sums over the others, so that a million of them take little memory.

    Parameters
    ----------
    named : tuple of SessionChange
        At most `MOST_NAMED`.
    n_more, n_datasets, n_bytes : int
        How many others there are, and how many datasets and bytes more they have.
    """

    named: tuple[SessionChange, ...] = ()
    n_more: int = 0
    n_datasets: int = 0
    n_bytes: int = 0

    @classmethod
    def of(cls, changes: Iterable[SessionChange]) -> ChangedSessions:
        """Keep the first changes, and sum the others up."""
        rest = iter(changes)
        named = tuple(islice(rest, MOST_NAMED))
        n_more = n_datasets = n_bytes = 0
        for each in rest:
            n_more += 1
            n_datasets += each.added - each.removed
            n_bytes += each.n_bytes
        return cls(named, n_more, n_datasets, n_bytes)


def all_new(sessions: Iterable[Session]) -> Iterator[SessionChange]:
    """Yield how the rows of sessions differ from no rows."""
    for session in sessions:
        yield SessionChange(session.path, "new", added=session.n_datasets, n_bytes=session.n_bytes)


def compare_session(path: str, before: Session | None, after: Session | None) -> SessionChange:
    """Compare the session at a path with what it was; None stands for no row.

    Folders that are the same object cost nothing.
    """
    old, new = _folders(before), _folders(after)
    added = changed = removed = 0
    columns: tuple[str, ...] = ()
    for folder in old.keys() | new.keys():
        rows, rows_now = old.get(folder), new.get(folder)
        if rows is rows_now:
            continue
        files, files_now = (each.files if each is not None else {} for each in (rows, rows_now))
        added += len(files_now.keys() - files.keys())
        removed += len(files.keys() - files_now.keys())
        for one, two in ((files[name], files_now[name]) for name in files.keys() & files_now.keys()):
            changed += one != two and _shown(one) != _shown(two)
            if one[SIGNATURE_SIZE:] != two[SIGNATURE_SIZE:]:
                columns = ("hash",)
    n_bytes = (after.n_bytes if after else 0) - (before.n_bytes if before else 0)
    state: Literal["new", "gone", "kept"] = "new" if before is None else "gone" if after is None else "kept"
    return SessionChange(path, state, added, changed, removed, n_bytes, columns)


def _folders(session: Session | None) -> dict[str, FolderRows]:
    return {folder.folder: folder for folder in session.folders} if session is not None else {}


def _shown(value: bytes) -> tuple[int, int]:
    about = unpack_signature(value)
    return about.file_size, about.mtime_ns
