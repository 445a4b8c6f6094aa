"""What changed in one session between two moments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from alfwatchd.tree.packed import FILE_SIZE_BYTES, SIGNATURE_SIZE
from alfwatchd.tree.rows import FolderRows, Session

MOST_NAMED = 60
"""How many changed sessions are named at once; the others are counted."""
MOST_DATASETS = 100
"""How many datasets of one session are named; all are counted."""

Kind = Literal["added", "changed", "removed"]


@dataclass(frozen=True, slots=True)
class SessionChange:
    """How the rows of a session differ, as readers of the tables see them.

    Parameters
    ----------
    path : str
        Of the session.
    kind : str
        Whether the session was added, was removed, or was there before and changed.
    added, changed, removed : int
        Number of datasets. One is changed if its size or its md5 is another one, or, in the tables, its id. A dataset
        whose md5 is known now, and was not before, is not changed: ``hash`` is in `columns`.
    n_bytes : int
        How many bytes more the datasets have; negative for fewer.
    columns : tuple of str
        Columns of the tables that changed, apart from ``file_size``; of what is in memory, only ``hash``.
    bytes_after : int
        Bytes of all its datasets now.
    names : tuple of str
        Which datasets: a rel_path behind ``+``, ``~`` or ``-`` for added, changed or removed. At most `MOST_DATASETS`.
    eid : str
        UUID; empty if it is not known.
    eid_before : str
        The eid before, if it was another one; else empty.
    renamed_from, renamed_to : str
        Of a session that was renamed: the one at the new path is added, and tells its old one; the one at the old path
        is removed, and tells its new one. Else empty.
    """

    path: str
    kind: Kind = "changed"
    added: int = 0
    changed: int = 0
    removed: int = 0
    n_bytes: int = 0
    columns: tuple[str, ...] = ()
    bytes_after: int = 0
    names: tuple[str, ...] = ()
    eid: str = ""
    eid_before: str = ""
    renamed_from: str = ""
    renamed_to: str = ""

    @property
    def bytes_before(self) -> int:
        """Bytes of all its datasets before."""
        return self.bytes_after - self.n_bytes

    def __bool__(self) -> bool:
        counts = self.added or self.changed or self.removed or self.columns
        return bool(counts or self.kind != "changed" or self.eid_before)


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
    for session in sessions:  # without names of datasets: there can be a million of sessions
        yield SessionChange(
            session.path, "added", added=session.n_datasets, n_bytes=session.n_bytes, bytes_after=session.n_bytes
        )


def compare_session(path: str, before: Session | None, after: Session | None) -> SessionChange:
    """Compare the session at a path with what it was; None stands for no row.

    Folders that are the same object cost nothing. The eid is left empty.
    """
    old, new = _folders(before), _folders(after)
    found: dict[str, list[str]] = {"+": [], "~": [], "-": []}
    columns: tuple[str, ...] = ()
    for folder in sorted(old.keys() | new.keys()):
        rows, rows_now = old.get(folder), new.get(folder)
        if rows is not rows_now and _compare_folder(folder, rows, rows_now, found):
            columns = ("hash",)
    n_before, n_after = (each.n_bytes if each is not None else 0 for each in (before, after))
    return SessionChange(
        path,
        "added" if before is None else "removed" if after is None else "changed",
        added=len(found["+"]),
        changed=len(found["~"]),
        removed=len(found["-"]),
        n_bytes=n_after - n_before,
        columns=columns,
        bytes_after=n_after,
        names=name_datasets(found),
    )


def name_datasets(found: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return the first names of datasets behind their signs."""
    return tuple(islice((sign + name for sign in "+~-" for name in found[sign]), MOST_DATASETS))


_TOGETHER = {
    ("+", "+"): "+", ("+", "~"): "+", ("+", "-"): "", ("~", "~"): "~", ("~", "-"): "-", ("~", "+"): "~",
    ("-", "-"): "-", ("-", "+"): "~", ("-", "~"): "~",
}  # fmt: skip
"""What two changes of one dataset come to; empty for nothing."""


def merge_names(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Return what two changes, one after the other, come to: rel_path -> sign; the sign is empty for nothing."""
    merged = dict(first)
    for name, sign in second.items():
        merged[name] = _TOGETHER[merged[name], sign] if merged.get(name) else sign
    return merged


def merge_kinds(first: Kind, second: Kind) -> Kind | None:
    """Return what happened to a session to which two things happened; None if it came and went."""
    if first == "added":
        return None if second == "removed" else "added"
    return "removed" if second == "removed" else "changed"


def _compare_folder(
    folder: str, rows: FolderRows | None, rows_now: FolderRows | None, found: Mapping[str, list[str]]
) -> bool:
    """Add the datasets that differ in a folder, by sign; return whether the md5 of one of the others does."""
    files, files_now = (each.files if each is not None else {} for each in (rows, rows_now))
    prefix = f"{folder}/" if folder else ""
    found["+"].extend(prefix + name for name in files_now if name not in files)
    found["-"].extend(prefix + name for name in files if name not in files_now)
    has_other_digest = False
    for name in (name for name, value in files.items() if files_now.get(name, value) != value):
        one, two = files[name], files_now[name]
        digests = one[SIGNATURE_SIZE:], two[SIGNATURE_SIZE:]
        if one[:FILE_SIZE_BYTES] != two[:FILE_SIZE_BYTES] or (digests[0] and digests[0] != digests[1]):
            found["~"].append(prefix + name)
        has_other_digest |= digests[0] != digests[1]
    return has_other_digest


def _folders(session: Session | None) -> dict[str, FolderRows]:
    return {folder.folder: folder for folder in session.folders} if session is not None else {}
