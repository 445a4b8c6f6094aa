"""What changed in one session between two moments."""

from __future__ import annotations

from dataclasses import dataclass

from alfwatchd.tree.packed import unpack_signature
from alfwatchd.tree.rows import FolderRows, Session


@dataclass(frozen=True, slots=True)
class SessionChange:
    """How the rows of a session differ.

    Parameters
    ----------
    added, changed, removed : int
        Number of datasets. A dataset is changed if its size or modification time is another one.
    n_bytes : int
        How many bytes more the datasets have; negative for fewer.
    """

    added: int = 0
    changed: int = 0
    removed: int = 0
    n_bytes: int = 0


def compare_session(before: Session | None, after: Session | None) -> SessionChange:
    """Compare a session with what it was; None stands for no row. Folders that are the same object cost nothing."""
    old, new = _folders(before), _folders(after)
    added = changed = removed = 0
    for folder in old.keys() | new.keys():
        rows, rows_now = old.get(folder), new.get(folder)
        if rows is rows_now:
            continue
        files, files_now = (each.files if each is not None else {} for each in (rows, rows_now))
        added += len(files_now.keys() - files.keys())
        removed += len(files.keys() - files_now.keys())
        pairs = ((files[name], files_now[name]) for name in files.keys() & files_now.keys())
        changed += sum(one != two and _shown(one) != _shown(two) for one, two in pairs)
    n_bytes = (after.n_bytes if after else 0) - (before.n_bytes if before else 0)
    return SessionChange(added, changed, removed, n_bytes)


def _folders(session: Session | None) -> dict[str, FolderRows]:
    return {folder.folder: folder for folder in session.folders} if session is not None else {}


def _shown(value: bytes) -> tuple[int, int]:
    about = unpack_signature(value)
    return about.file_size, about.mtime_ns
