"""What a prune would do, and what it did: values only. `unlisted` finds the candidates, `candidates` looks at them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from alfwatchd.errors import AlfwatchdError, PruneRefused

OWN_TABLES = "the daemon's own tables"
"""Stands for the reference of a plan where none is named."""
NO_REFERENCE = (
    "without a reference there is nothing to delete: name the folder with tables that list what must stay "
    "with --reference, or set prune.reference"
)


@dataclass(frozen=True, slots=True)
class FileState:
    """What ``stat`` told of a file when the plan was made: `size` in bytes, times in nanoseconds since 1970, UTC."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int | None
    """None if the file system does not record it."""


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
class KeptItem:
    """A file or folder that stays, and why; `file_size` in bytes, None for folders."""

    path: str
    file_size: int | None
    reason: str
    has_failed: bool = False
    """Whether it was planned to go. A folder that still holds something, and a file that is gone already, are no
    failure."""


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What a prune would delete. It never deletes anything else, except folders that it leaves empty.

    Parameters
    ----------
    plan_id : str
        16 hexadecimal digits: a digest of what would go and of the reference, so that equal plans have one id.
    root, reference, reference_date, reference_generation, n_datasets, n_bytes_on_disk
        As in `api.PruneReply`; the root is an absolute path.
    files : tuple of PlannedFile
        Sorted by path.
    folders : tuple of str
        Session folders that may go once they are empty, sorted by path, relative to the root. Only the disk tells which
        of them will be empty: `executor.preview_plan` looks.
    kept : tuple of KeptItem
        Files and folders that the reference does not list and that stay nevertheless: the first 10,000.
    places : mapping of str to SessionPlace
        Session path -> its place, for each session with a file in `files` or in `folders`. A session without a place
        is not touched.
    n_kept : mapping of str to int
        Reason, up to its colon -> how many files and folders stay for it, all counted.
    """

    plan_id: str
    root: str
    reference: str
    reference_date: str
    reference_generation: int | None
    n_datasets: int
    n_bytes_on_disk: int
    files: tuple[PlannedFile, ...]
    folders: tuple[str, ...]
    kept: tuple[KeptItem, ...] = ()
    places: Mapping[str, SessionPlace] = field(default_factory=dict)
    n_kept: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_bytes(self) -> int:
        """Sum of the sizes of `files`, in bytes."""
        return sum(file.state.size for file in self.files)

    @property
    def paths(self) -> Iterator[str]:
        """Paths of `files` and `folders`."""
        yield from (file.path for file in self.files)
        yield from self.folders


@dataclass(frozen=True, slots=True)
class PruneOutcome:
    """What a prune did, or, as a preview, would do.

    Parameters
    ----------
    deleted : tuple of PlannedFile
        In the order of deletion.
    removed : tuple of str
        Session folders, and folders above them that this left empty, relative to the root. Empty folders
        inside session folders go with them and are not listed.
    kept : tuple of KeptItem
        What the prune tried to take and did not: it is still there, or was gone already.
    stopped : AlfwatchdError or None
        Why the prune stopped before its end: what `may_continue` raised. Planned items that are in none of the lists
        above were not tried. None if it came to its end.
    freed_at : float or None
        When the daemon will empty the trash with these files, in seconds since 1970; None if none of them is there.
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
        """Whether anything that was planned to go is still there."""
        return self.stopped is not None or any(item.has_failed for item in self.kept)


class OnDisk(NamedTuple):
    """Datasets on disk, and the sum of their sizes in bytes."""

    n_datasets: int
    n_bytes: int


def folders_above(path: str) -> Iterator[str]:
    """Yield the folders that a path lies in, the innermost first; the root comes last, as an empty text."""
    while path := path.rpartition("/")[0]:
        yield path
    yield ""


def make_plan(
    root: str,
    reference: tuple[str, str, int | None],
    on_disk: OnDisk,
    files: Sequence[PlannedFile],
    folders: Sequence[str],
    kept: Sequence[KeptItem] = (),
    places: Mapping[str, SessionPlace] | None = None,
    n_kept: Mapping[str, int] | None = None,
) -> PrunePlan:
    """Put a plan together.

    Parameters
    ----------
    root : str
    reference : tuple of (str, str, int or None)
        `PrunePlan.reference`, `reference_date` and `reference_generation`.
    on_disk : OnDisk
    files, folders, kept, places, n_kept
        As in `PrunePlan`; files and folders in any order. None stands for no entries.
    """
    sorted_files = tuple(sorted(files, key=lambda file: file.path))
    sorted_folders = tuple(sorted(folders))
    digest = hashlib.blake2b(_encode(repr((root, *reference))), digest_size=8)
    for file in sorted_files:
        state = file.state
        # Without the change time: a backup that makes hard links sets it each night, and this is still the same plan.
        told = (state.dev, state.ino, state.size, state.mtime_ns, state.btime_ns)
        digest.update(b"\0F" + _encode(file.path) + b"\0" + repr(told).encode())
    for folder in sorted_folders:
        digest.update(b"\0D" + _encode(folder))
    goes = digest.hexdigest(), root, *reference, *on_disk, sorted_files, sorted_folders
    return PrunePlan(*goes, kept=tuple(kept), places=places or {}, n_kept=n_kept or {})


def refuse_too_much(plan: PrunePlan, max_fraction: float) -> None:
    """Refuse a plan that would delete more than a fraction of all datasets, or of their bytes.

    Parameters
    ----------
    plan : PrunePlan
    max_fraction : float
        0 to 1.

    Raises
    ------
    PruneRefused
        It would delete more; the message says how much, and how to allow it.
    """
    gone, there = len(plan.files), plan.n_datasets
    n_bytes, bytes_there = plan.n_bytes, plan.n_bytes_on_disk
    shares = [part / whole if whole else float(part > 0) for part, whole in ((gone, there), (n_bytes, bytes_there))]
    # Written so that a limit which is not a number refuses.
    if all(share <= max_fraction for share in shares):
        return
    raise PruneRefused(
        f"{plan.root}: {gone} of {there} datasets ({shares[0]:.1%}) and {n_bytes} of {bytes_there} bytes "
        f"({shares[1]:.1%}) are not in the reference tables of {plan.reference} (of "
        f"{plan.reference_date or 'unknown date'}, generation {plan.reference_generation}), and prune.max_fraction "
        f"allows {max_fraction:.1%}: nothing was deleted. Check that these tables belong to this root and are up to "
        "date. If all of these datasets are meant to be deleted, use --max-fraction 1"
    )


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
