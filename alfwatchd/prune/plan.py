"""What a prune would do, and what it did: values only. `prune.unlisted` finds candidates, `prune_candidates` looks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from alfwatchd.errors import AlfwatchdError, PruneRefused

OWN_TABLES = "the daemon's own tables"
"""What a plan is measured against where no reference is named."""
NO_REFERENCE = (
    "without a reference there is nothing to delete: name the folder with the tables of what is to stay with "
    "--reference, or set prune.reference"
)


@dataclass(frozen=True, slots=True)
class FileState:
    """What the kernel told of a file when the plan was made; times in nanoseconds since 1970, UTC, sizes in bytes."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int | None
    """None where the file system does not record it."""


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
    """Whether it should have gone. Folders that hold something else, and what is gone already, are no failure."""


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What a prune would delete; nothing else is ever deleted by it, but folders that this leaves empty.

    Parameters
    ----------
    plan_id : str
        A digest of what would go and of what it is measured against, so that the same plan has the same id.
    root : str
    reference : str
        Where the reference tables were read.
    reference_date : str
        The earliest instant that they may be of, UTC, ISO 8601; empty where nothing tells.
    reference_generation : int or None
        None where they are not ours.
    n_datasets, n_bytes_on_disk : int
        Of all datasets on disk.
    files : tuple of PlannedFile
        Sorted by path.
    folders : tuple of str
        Session folders that may go once they are empty, sorted by path, relative to the root. Only the disk
        knows which do: `alfwatchd.prune.executor.preview_plan` asks it.
    kept : tuple of KeptItem
        What is not listed and stays all the same: the first few thousand.
    places : mapping of str to SessionPlace
        Of each session with a file in `files`, and of each in `folders`. A session without a place is not touched.
    n_kept : mapping of str to int
        Words of a reason before its colon -> how many are kept for it, in all.
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


class OnDisk(NamedTuple):
    """Datasets on disk, and the sum of their sizes in bytes."""

    n_datasets: int
    n_bytes: int


def folders_above(path: str) -> Iterator[str]:
    """Yield the folders that a path lies in, the root, as an empty text, last."""
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
    """Put a plan together; `reference` is its source, date and generation, the rest as in `PrunePlan`."""
    sorted_files = tuple(sorted(files, key=lambda file: file.path))
    sorted_folders = tuple(sorted(folders))
    digest = hashlib.blake2b(_encode(repr((root, *reference))), digest_size=8)
    for file in sorted_files:
        state = file.state
        # The change of a time that means nothing, as by a backup with hard links, makes no other plan.
        told = (state.dev, state.ino, state.size, state.mtime_ns, state.btime_ns)
        digest.update(b"\0F" + _encode(file.path) + b"\0" + repr(told).encode())
    for folder in sorted_folders:
        digest.update(b"\0D" + _encode(folder))
    goes = digest.hexdigest(), root, *reference, *on_disk, sorted_files, sorted_folders
    return PrunePlan(*goes, kept=tuple(kept), places=places or {}, n_kept=n_kept or {})


def refuse_too_much(plan: PrunePlan, max_fraction: float) -> None:
    """Make sure that what goes is not more than a fraction of what there is, by datasets and by bytes.

    Parameters
    ----------
    plan : PrunePlan
    max_fraction : float
        0 to 1.

    Raises
    ------
    PruneRefused
        It is more.
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
        "date; if all of it is to go, use --max-fraction 1"
    )


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
