"""Which dataset files and session folders are not in the reference tables: a plan, made from values only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from alfwatchd.core.rows import Session, Signature, inode_of, is_of_link, pack_signature, unpack_signature
from alfwatchd.core.tables import Snapshot
from alfwatchd.errors import AlfwatchdError, PruneRefused


@dataclass(frozen=True, slots=True)
class Reference:
    """Reference tables, as far as prune needs them.

    Parameters
    ----------
    source : str
        Where they were read, for messages.
    sessions : mapping of str to set of str
        `SessionKey.eid_path` -> rel_path of its datasets, whatever their `exists` column says; sessions
        without datasets are there too.
    """

    source: str
    sessions: Mapping[str, AbstractSet[str]]


@dataclass(frozen=True, slots=True)
class FileState:
    """What ``statx`` told of a file; times in nanoseconds since 1970, UTC.

    Parameters
    ----------
    dev, ino : int
    size : int
        Bytes.
    mtime_ns, ctime_ns : int
    btime_ns : int or None
        When the inode was made; None where the file system does not record it.
    """

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int | None


@dataclass(frozen=True, slots=True)
class SessionPlace:
    """Where a session folder lies: the mount that it is reached through, its file system and its inode."""

    mount_id: int
    dev: int
    ino: int


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A dataset file to delete, and what it looked like when that was decided."""

    path: str
    """Relative to the root."""
    state: FileState


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What a prune would delete; nothing else is ever deleted by it, but folders that this leaves empty.

    Parameters
    ----------
    plan_id : str
        A digest of what would go and of `reference`, so that the same plan has the same id.
    root : str
        What it was made for.
    reference : str
        `Reference.source`.
    reference_date, reference_generation : str
        Of the reference tables; empty where it is not known.
    n_datasets, n_bytes_on_disk : int
        Datasets on disk, and the sum of their sizes.
    files : tuple of PlannedFile
        Sorted by path.
    folders : tuple of str
        Session folders that may go once they are empty, sorted by path, relative to the root. Only the disk
        knows which do: `alfwatchd.prune.preview_plan` asks it.
    kept : tuple of KeptItem
        Datasets that the reference does not list and that stay all the same, and why.
    places : mapping of str to SessionPlace
        Of each session with a file in `files`, and of each in `folders`. A session without a place is not touched.
    """

    plan_id: str
    root: str
    reference: str
    reference_date: str
    reference_generation: str
    n_datasets: int
    n_bytes_on_disk: int
    files: tuple[PlannedFile, ...]
    folders: tuple[str, ...]
    kept: tuple[KeptItem, ...] = ()
    places: Mapping[str, SessionPlace] = field(default_factory=dict)

    @property
    def n_bytes(self) -> int:
        """Sum of the sizes of `files`, in bytes."""
        return sum(file.state.size for file in self.files)


@dataclass(frozen=True, slots=True)
class KeptItem:
    """A file or folder that was left, and why; `file_size` in bytes as planned, None for folders."""

    path: str
    file_size: int | None
    reason: str
    has_failed: bool = False
    """Whether it should have gone. Folders that hold something else, and what is gone already, are no failure."""


@dataclass(frozen=True, slots=True)
class PruneOutcome:
    """What a prune did, or, as a preview, would do.

    Parameters
    ----------
    deleted : tuple of PlannedFile
        In the order of deletion.
    removed : tuple of str
        Session folders, and folders above them that this left empty, relative to the root. Empty folders
        inside of session folders go with them and are not listed.
    kept : tuple of KeptItem
        What was planned and tried, and is still there or was gone already.
    stopped : AlfwatchdError or None
        What `may_continue` raised. Planned items that are in none of the lists above were not tried then.
    freed_at : float or None
        When the trash that `deleted` lies in is to be emptied, in seconds since 1970; None where nothing lies in it.
    """

    deleted: tuple[PlannedFile, ...]
    removed: tuple[str, ...]
    kept: tuple[KeptItem, ...]
    stopped: AlfwatchdError | None = None
    freed_at: float | None = None

    @property
    def n_bytes(self) -> int:
        """Sum of the sizes of `deleted`, in bytes; files with other hard links free none of them."""
        return sum(file.state.size for file in self.deleted)

    @property
    def has_failed(self) -> bool:
        """Whether anything that was planned is still there and should not be."""
        return self.stopped is not None or any(item.has_failed for item in self.kept)


def make_plan(
    snapshot: Snapshot,
    reference: Reference,
    *,
    lab: str,
    remove_empty_sessions: bool,
    max_fraction: float | None,
) -> PrunePlan:
    """Plan to delete the datasets of `snapshot` that are not in `reference`.

    Files of linked sessions, links to files and the files that either lead to are never planned; nor are twins, which
    no snapshot holds. A session of the reference keeps its folder, even an empty one.

    Parameters
    ----------
    snapshot : Snapshot
        What is on disk now.
    reference : Reference
        What is to stay.
    lab : str
        The `lab` setting, which tables may hold for sessions without a lab folder; empty where there is none.
    remove_empty_sessions : bool
        Whether folders of sessions that are not in the reference may go, once they are empty.
    max_fraction : float or None
        Largest fraction of the datasets on disk, 0 to 1, that may go; None for no limit.

    Returns
    -------
    PrunePlan

    Raises
    ------
    PruneRefused
        If more than `max_fraction` of the datasets would go.
    """
    files: list[PlannedFile] = []
    folders: list[str] = []
    led_to = _led_to(snapshot)
    for session in snapshot.sessions.values():
        if session.is_link:
            continue
        listed = _listed(session, reference, lab)
        unlisted = _unlisted(session, listed or frozenset(), led_to)
        files += unlisted
        # A link to a file stays, as does the file, and keeps its session folder.
        if remove_empty_sessions and listed is None and len(unlisted) == session.n_datasets:
            folders.append(session.path)
    n_datasets = sum(session.n_datasets for session in snapshot.sessions.values())
    _check_fraction(len(files), n_datasets, max_fraction, reference.source)
    n_bytes = sum(session.n_bytes for session in snapshot.sessions.values())
    return _plan(reference.source, n_datasets, n_bytes, files, folders)


def _listed(session: Session, reference: Reference, lab: str) -> AbstractSet[str] | None:
    """Return the rel_paths that the reference has for a session, or None where it lacks the session."""
    key = session.key
    names = [key.eid_path] if key.lab or not lab else [key.eid_path, f"{lab}/{key.eid_path}"]
    found = [reference.sessions[name] for name in names if name in reference.sessions]
    return frozenset().union(*found) if found else None


def _led_to(snapshot: Snapshot) -> frozenset[bytes]:
    """Return the inodes of files that links lead to, as `inode_of` does. Their file systems are not told apart."""
    found: set[bytes] = set()
    for session in snapshot.sessions.values():
        for _, packed in session.folders:
            if session.is_link:
                found.update(packed.inodes())
            elif packed.has_links:
                found.update(map(inode_of, filter(is_of_link, packed.unpack().values())))
    return frozenset(found)


def _unlisted(session: Session, listed: AbstractSet[str], led_to: AbstractSet[bytes]) -> list[PlannedFile]:
    return [
        PlannedFile(f"{session.path}/{rel_path}", _state(unpack_signature(value)))
        for rel_path, value in session.datasets()
        if rel_path not in listed and not is_of_link(value) and inode_of(value) not in led_to
    ]


def _state(signature: Signature) -> FileState:
    """Return what a row tells of a file; the rest is for a look at the disk."""
    return FileState(0, signature.inode, signature.file_size, signature.mtime_ns, 0, None)


def _check_fraction(n_files: int, n_datasets: int, max_fraction: float | None, source: str) -> None:
    # Written so that a limit which is not a number refuses.
    if not n_files or max_fraction is None or n_files / n_datasets <= max_fraction:
        return
    raise PruneRefused(
        f"{n_files} of {n_datasets} datasets ({n_files / n_datasets:.1%}) are not in the reference tables "
        f"of {source}, and prune.max_fraction allows {max_fraction:.1%}: nothing was deleted. Check that "
        "these tables belong to this root and are up to date; if all of it is to go, use --max-fraction 1"
    )


def _plan(
    source: str, n_datasets: int, n_bytes: int, files: Sequence[PlannedFile], folders: Sequence[str]
) -> PrunePlan:
    sorted_files = tuple(sorted(files, key=lambda file: file.path))
    sorted_folders = tuple(sorted(folders))
    digest = hashlib.blake2b(_encode(source), digest_size=8)
    for file in sorted_files:
        signature = pack_signature(file.state.size, file.state.mtime_ns, file.state.ino, False)  # noqa: FBT003
        digest.update(b"\0F" + _encode(file.path) + b"\0" + signature)
    for folder in sorted_folders:
        digest.update(b"\0D" + _encode(folder))
    return PrunePlan(
        digest.hexdigest(), "", source, "", "", n_datasets, n_bytes, files=sorted_files, folders=sorted_folders
    )


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
