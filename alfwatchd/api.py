"""What clients may ask, and what the daemon answers: the values behind the control API and `--json`."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

DaemonState = Literal["starting", "catching up", "live", "polled", "held", "offline"]
"""How far the tables can be trusted.

starting: the first scan is not complete, or the database to adopt was not looked at yet. catching up: the tables lack
changes that the daemon knows of. live: every change is seen at once. polled: a part of the tree is only scanned now and
then. held: so many sessions are gone that their rows are kept until a person confirms the loss. offline: the root is
missing, or is another disk or folder than before; all rows are kept."""

Exactness = Literal["exact", "scanned", "partial", "held"]
"""What a sync proves about the tables.

exact: they hold every change made before the call; a sync cookie proved it. scanned: the same; a scan that began after
the call proved it. partial: some folders could not be read and keep their last known rows. held: the rows of sessions
that are gone are kept."""


@dataclass(frozen=True, slots=True)
class ProblemReply:
    """Something that a person should act on: kind, path relative to the root, and what to do."""

    kind: str
    path: str
    message: str


@dataclass(frozen=True, slots=True)
class RescanNote:
    """A scan of the whole tree: why, when (UTC, ISO 8601), and its seconds (null while it runs)."""

    reason: str
    started: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class AdoptStatus:
    """The database whose ids the tables adopt. Null means not known yet."""

    source: str
    read_at: str | None
    """When it was last read without error."""
    last_error: str | None
    """Why the last attempt to read it failed; null if it succeeded."""
    n_sessions: int | None
    n_datasets: int | None
    """Rows of the database that can be adopted."""
    n_matched_sessions: int | None
    n_matched_datasets: int | None
    """Rows of the tables that it knew when it last changed."""


@dataclass(frozen=True, slots=True)
class IdStep:
    """One change of an id: old and new id, path relative to the root, when (UTC, ISO 8601), and why."""

    old: str
    new: str
    path: str
    when: str
    reason: str = ""
    """database, moved, renamed or recomputed; see `tables.id_changes.REASONS`."""


@dataclass(frozen=True, slots=True)
class IdsReply:
    """What became of an id: `new` is the one to use; `steps` is empty if no change of it is known."""

    old: str
    new: str
    steps: list[IdStep]


@dataclass(frozen=True, slots=True)
class RecomputeReply:
    """Answer to a request to recompute all ids: how many changed, of sessions and datasets together."""

    generation: int
    n_changes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SetReply:
    """Answer to a request to set columns: of which session, and how many of its datasets got another qc."""

    path: str
    n_datasets: int
    generation: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """A place to which the tables are published. Times are UTC, ISO 8601; null: not since the daemon started."""

    target: str
    tag: str
    """Tag of the subset that is published; empty for all rows."""
    generation: str | None
    """Name of the tables that it holds: generation, hyphen, digest."""
    published_at: str | None
    """When it was last brought up to date, or found to be up to date."""
    lag_seconds: float | None
    """Age of the oldest flushed change that it lacks, in seconds; null if there is none."""
    last_error: str | None
    """Why the last attempt failed; null if it did not."""
    next_attempt: str | None
    """When the changes that it lacks will be published; null if it lacks none, or they are being published."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the daemon knows and does now. Times are UTC, ISO 8601; null means never."""

    state: DaemonState
    since: str
    """When the daemon entered the state."""
    detail: str
    """One sentence for a person: the reason for the state."""
    root: str
    out_dir: str
    pid: int
    version: str
    generation: int
    """Of the tables on disk; 0 if there are none yet."""
    n_sessions: int
    n_datasets: int
    n_bytes: int
    n_ignored: int
    """Files and folders that are not part of the ALF layout."""
    saved: bool
    """False if the last flush failed: the tables on disk are older than they should be."""
    last_flush: str | None
    last_flush_seconds: float | None
    last_flush_error: str | None
    oldest_unflushed_seconds: float | None
    """Age of the oldest change that the tables on disk lack, in seconds; null if they lack none."""
    events_lost: int
    """How often events were lost. Each time, everything was scanned again."""
    rescans: list[RescanNote] = field(default_factory=list)
    """The last ten scans, the latest last."""
    watches: int = 0
    watches_limit: int | None = None
    """Null if nothing is watched."""
    unwatched: int = 0
    """Number of folders that are not watched, but scanned now and then."""
    hashes_pending: int = 0
    hashes_unconfirmed: int = 0
    """Files with a hash that may be that of an older content. They are read again, slowly."""
    adopt: AdoptStatus | None = None
    """Null if no database is adopted."""
    targets: list[TargetStatus] = field(default_factory=list)
    """In the order of the settings."""
    problems: list[ProblemReply] = field(default_factory=list)
    """At most a thousand; `n_problems` counts all of them."""
    n_problems: int = 0
    trash_bytes: int = 0
    """Size of the files in the trash."""
    polled_late: bool = False
    """Whether a scan of a polled tree takes longer than the time between two of them."""


@dataclass(frozen=True, slots=True)
class SyncReply:
    """Answer to sync: the generation of the tables on disk, and what is proved about it."""

    generation: int
    exactness: Exactness
    seconds: float


@dataclass(frozen=True, slots=True)
class FlushReply:
    """Answer to flush: the generation of the tables on disk."""

    generation: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RescanReply:
    """Answer to rescan. The counts are rows of datasets that changed in the whole tree while the scan ran."""

    generation: int
    added: int
    changed: int
    removed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PruneItem:
    """A dataset file or a folder in a prune; `reason` says why it is kept, if it is."""

    path: str
    """Relative to the root."""
    file_size: int | None
    """Bytes; null for a folder."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PruneReply:
    """A prune plan, or the result of applying it."""

    plan_id: str
    """Id of the plan, for a later apply."""
    applied: bool
    root: str
    """The folder that is pruned."""
    reference: str
    """Folder of the reference tables, or `the daemon's own tables`."""
    reference_date: str
    """The earliest time that they may be from, UTC, ISO 8601; empty for the daemon's own, or where nothing tells."""
    reference_generation: int | None
    """Null if another program than alfwatchd wrote them."""
    n_datasets: int
    """Number of datasets on disk; `prune.max_fraction` is a fraction of it."""
    n_bytes_on_disk: int
    """Sum of their sizes; `prune.max_fraction` is a fraction of it, too."""
    files: list[PruneItem]
    """Files that the plan deletes, or that were deleted."""
    folders: list[PruneItem]
    """Session folders, and empty folders above them, that the plan removes, or that were removed."""
    n_bytes: int
    """Sum over `files`."""
    kept: list[PruneItem]
    """Files not in the reference that are kept: first those that could not be removed, then at most 10,000 others."""
    n_kept: dict[str, int]
    """Reason -> number of all files that are kept for it; of a reason with details, the words before the colon."""
    notes: list[str]
    complete: bool = True
    """Whether all that was planned went; true for a plan. A folder that still holds something does not count."""
    freed_at: str | None = None
    """When the files are deleted from the trash (UTC, ISO 8601); null if they are not in the trash."""


@dataclass(frozen=True, slots=True)
class TrashReply:
    """What happened to files in the trash: they are back in their places, or deleted."""

    action: Literal["undone", "emptied"]
    plans: list[str]
    """Ids of the plans that have no file left in the trash."""
    n_files: int
    n_folders: int
    """Number of folders that were made again."""
    n_bytes: int
    kept: list[PruneItem]
    """Files that are still in the trash, and why."""
    complete: bool
    """Whether everything was done as asked."""


PlanState = Literal["planned", "applied", "undone", "emptied"]
"""planned: nothing was done yet. applied: the files were moved to the trash, or deleted. undone: they are back in their
places. emptied: they were deleted from the trash."""


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """A plan, and what was last done with it. Times are UTC, ISO 8601. What has no text here is as in `PruneReply`."""

    plan_id: str
    state: PlanState
    made_at: str
    changed_at: str
    """When it entered its state."""
    root: str
    reference: str
    reference_date: str
    n_files: int
    n_folders: int
    n_bytes: int
    n_kept: int
    freed_at: str | None


@dataclass(frozen=True, slots=True)
class PlansReply:
    """The latest plans, the newest first."""

    plans: list[PlanRecord]


@dataclass(frozen=True, slots=True)
class Request:
    """A request from a client; `reply` always receives an answer or an exception."""

    reply: Future[Any]


def answer(reply: Future[Any], value: object) -> None:
    """Answer a request; do nothing if its client has disconnected."""
    with suppress(InvalidStateError):
        reply.set_result(value)


def refuse(reply: Future[Any], error: Exception) -> None:
    """Answer a request with an error; do nothing if its client has disconnected."""
    with suppress(InvalidStateError):
        reply.set_exception(error)


@dataclass(frozen=True, slots=True)
class StatusRequest(Request):
    """Answered at once with `Status`."""


@dataclass(frozen=True, slots=True)
class SyncRequest(Request):
    """Answered with `SyncReply` once all earlier changes are in the tables on disk; in memory if not `flushed`."""

    flushed: bool = True


@dataclass(frozen=True, slots=True)
class FlushRequest(Request):
    """Answered with `FlushReply` once the tables on disk have the generation of this moment."""


@dataclass(frozen=True, slots=True)
class RescanRequest(Request):
    """Answered with `RescanReply` once the folder and all below it were scanned again."""

    path: str = ""
    accept_root: bool = False


@dataclass(frozen=True, slots=True)
class RecomputeRequest(Request):
    """Answered with `RecomputeReply` once all ids were computed again and are in the tables on disk."""


@dataclass(frozen=True, slots=True)
class SetRequest(Request):
    """Answered with `SetReply` once the columns of a session are set in the tables on disk.

    Parameters
    ----------
    path : str
        See `tables.set_columns.set_columns`.
    qc, projects, task_protocol : str or None
        None leaves the column as it is.
    """

    path: str = ""
    qc: str | None = None
    projects: str | None = None
    task_protocol: str | None = None


@dataclass(frozen=True, slots=True)
class SnapshotRequest(Request):
    """Answered at once with a `TablesView`; fails with `RootOffline` while the root is offline."""


@dataclass(frozen=True, slots=True)
class RootCheckRequest(Request):
    """Asks whether a prune may go on. The engine looks at root and mounts, which costs the same for tables of any size.

    Answered with the present `TablesView.n_mount_changes`. Fails with `RootOffline` if the root is missing or another
    one, and with `PruneRefused` if a part of it cannot be read now.
    """


@dataclass(frozen=True, slots=True)
class RemovingNotice:
    """A prune is about to remove this session folder, so its rows may be dropped without further proof."""

    session: str


@dataclass(frozen=True, slots=True)
class PrunedNotice:
    """A prune, an undo, or emptying the trash is over; these folders must be looked at."""

    folders: tuple[str, ...]


AnyRequest = (
    StatusRequest
    | SyncRequest
    | FlushRequest
    | RescanRequest
    | RecomputeRequest
    | SetRequest
    | SnapshotRequest
    | RootCheckRequest
)
