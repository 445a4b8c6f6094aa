"""What the daemon answers: the values behind the control API and `--json` (docs/reference/control_api.md)."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

DaemonState = Literal["starting", "catching up", "live", "polled", "held", "offline"]
"""starting: no scan has been completed yet, or the database to adopt was not looked at. catching up: changes are known
of that the tables do not hold. live: every change is seen at once. polled: a part of the tree is only looked at now and
then. held: so many sessions are gone that their rows are kept until a person says that this is right. offline: the root
is not what it was; rows are kept as they are."""

Exactness = Literal["exact", "scanned", "partial", "held"]
"""exact: a sync cookie proved that every earlier change is in. scanned: as of a scan that began after the call.
partial: some folders could not be read, and keep their last known rows. held: so do sessions that are gone."""


@dataclass(frozen=True, slots=True)
class ProblemReply:
    """Something a person should act on: kind, root-relative path, what to do."""

    kind: str
    path: str
    message: str


@dataclass(frozen=True, slots=True)
class RescanNote:
    """A scan of the whole tree: why, when (UTC, ISO 8601) and how long it took (null while it runs)."""

    reason: str
    started: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class AdoptStatus:
    """The database that the tables agree with. Null: not known yet."""

    source: str
    read_at: str | None
    """When it was last looked at without error."""
    last_error: str | None
    """Why it could not be read at the last look; null if it could."""
    n_sessions: int | None
    n_datasets: int | None
    """Rows of the database that can be adopted."""
    n_matched_sessions: int | None
    n_matched_datasets: int | None
    """Rows of the tables that it knew when it last changed."""


@dataclass(frozen=True, slots=True)
class IdStep:
    """One change of an id: of what (path relative to the root), when (UTC, ISO 8601), to which, and why."""

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
    """Answer to a request to make all ids anew: how many changed, of sessions and datasets together."""

    generation: int
    n_changes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """A place that gets the tables. Times are UTC, ISO 8601; null means not since the daemon was started."""

    target: str
    tag: str
    """Of its subset; empty for none."""
    generation: str | None
    """Name of what it holds: generation of the tables, hyphen, digest."""
    published_at: str | None
    """When it was last brought up to date, or found to be."""
    lag_seconds: float | None
    """Age of the oldest flushed change that it lacks, in seconds; null if there is none."""
    last_error: str | None
    """Why the last attempt failed; null if it did not."""
    next_attempt: str | None
    """When the change that it lacks is to be published; null if there is none, or it is being published."""


@dataclass(frozen=True, slots=True)
class Status:
    """The daemon as it is now. Times are UTC, ISO 8601; null means never."""

    state: DaemonState
    since: str
    """When the state was entered."""
    detail: str
    """One sentence for a person: why the state is what it is."""
    root: str
    out_dir: str
    pid: int
    version: str
    generation: int
    """Raised at each change of the tables in memory."""
    n_sessions: int
    n_datasets: int
    n_bytes: int
    n_ignored: int
    """Entries that are no part of the ALF layout."""
    saved: bool
    """False while the last flush failed: the tables on disk are older than they should be."""
    flushed_generation: int
    last_flush: str | None
    last_flush_seconds: float | None
    last_flush_error: str | None
    oldest_unflushed_seconds: float | None
    """Age of the oldest change that is not in the tables on disk, in seconds."""
    events_lost: int
    """How often events were lost; each time all was scanned again."""
    rescans: list[RescanNote] = field(default_factory=list)
    """The last ten."""
    watches: int = 0
    watches_limit: int | None = None
    """Null where nothing is watched."""
    unwatched: int = 0
    """Folders that are scanned now and then instead of watched."""
    hashes_pending: int = 0
    adopt: AdoptStatus | None = None
    """Null where nothing is adopted."""
    targets: list[TargetStatus] = field(default_factory=list)
    """In the order of the settings."""
    problems: list[ProblemReply] = field(default_factory=list)
    """At most a thousand; `n_problems` counts all."""
    n_problems: int = 0
    trash_bytes: int = 0
    """What prunes have moved into the trash and is not deleted yet."""


@dataclass(frozen=True, slots=True)
class SyncReply:
    """Answer to sync: the generation that is in the tables on disk, and how exact it is."""

    generation: int
    exactness: Exactness
    seconds: float


@dataclass(frozen=True, slots=True)
class FlushReply:
    """Answer to flush."""

    generation: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RescanReply:
    """Answer to rescan; the counts are dataset rows, over the whole tree while the scan ran."""

    generation: int
    added: int
    changed: int
    removed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PruneItem:
    """A dataset file or a folder in a prune; `reason` says why it stays, where it does."""

    path: str
    """Relative to the root."""
    file_size: int | None
    """Bytes; null for a folder."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PruneReply:
    """A prune plan, or what became of it."""

    plan_id: str
    """Names the plan in a later apply."""
    applied: bool
    root: str
    """Folder that is pruned."""
    reference: str
    """Folder of the reference tables, or `the daemon's own tables`."""
    reference_date: str
    """The earliest instant that they may be of, UTC, ISO 8601; empty for the daemon's own."""
    reference_generation: int | None
    """Null where alfwatchd did not write them."""
    n_datasets: int
    """Datasets on disk; `prune.max_fraction` is a fraction of these."""
    n_bytes_on_disk: int
    """Sum of their sizes; `prune.max_fraction` is a fraction of this, too."""
    files: list[PruneItem]
    """Files that would go, or went."""
    folders: list[PruneItem]
    """Session folders, and folders left empty above them, that would go, or went."""
    n_bytes: int
    """Sum over `files`."""
    kept: list[PruneItem]
    """Not listed, or planned, but left: what could not be removed, then at most 10,000 that the plan keeps."""
    n_kept: dict[str, int]
    """How many are left for each reason, in all; of a reason with details, the words before the colon."""
    notes: list[str]
    complete: bool = True
    """Whether all that was planned went; always so of a plan. Folders that hold something else were not planned."""
    freed_at: str | None = None
    """When the files are deleted from the trash (UTC, ISO 8601); null where they do not lie there."""


@dataclass(frozen=True, slots=True)
class TrashReply:
    """What became of files in the trash: they are back in place, or deleted."""

    action: Literal["undone", "emptied"]
    plans: list[str]
    """The plans of which nothing is left in the trash."""
    n_files: int
    n_folders: int
    """Folders that were made again."""
    n_bytes: int
    kept: list[PruneItem]
    """What still lies in the trash, and why."""
    complete: bool
    """Whether all went as asked."""


PlanState = Literal["planned", "applied", "undone", "emptied"]
"""planned: nothing was done. applied: its files were moved to the trash, or deleted. undone: they are back.
emptied: they were deleted from the trash."""


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """A plan, and the last that was done with it. Times are UTC, ISO 8601."""

    plan_id: str
    state: PlanState
    made_at: str
    changed_at: str
    """When it came into its state."""
    root: str
    reference: str
    reference_date: str
    """Empty where it is not known."""
    n_files: int
    """Files that would go, or went."""
    n_folders: int
    n_bytes: int
    n_kept: int
    freed_at: str | None
    """When its files are deleted from the trash; null where they do not lie there."""


@dataclass(frozen=True, slots=True)
class PlansReply:
    """The plans that are remembered, the latest first."""

    plans: list[PlanRecord]


@dataclass(frozen=True, slots=True)
class Request:
    """A question from a client; `reply` gets the answer or the exception, always."""

    reply: Future[Any]


def answer(reply: Future[Any], value: object) -> None:
    """Answer a request; a client that went away is no error."""
    with suppress(InvalidStateError):
        reply.set_result(value)


def refuse(reply: Future[Any], error: Exception) -> None:
    """Answer a request with an error, likewise."""
    with suppress(InvalidStateError):
        reply.set_exception(error)


@dataclass(frozen=True, slots=True)
class StatusRequest(Request):
    """Answered at once with `Status`."""


@dataclass(frozen=True, slots=True)
class SyncRequest(Request):
    """Answered with `SyncReply` when all earlier changes are in the tables on disk, or, if not `flushed`, in memory."""

    flushed: bool = True


@dataclass(frozen=True, slots=True)
class FlushRequest(Request):
    """Answered with `FlushReply` when the tables on disk are at the present generation."""


@dataclass(frozen=True, slots=True)
class RescanRequest(Request):
    """Answered with `RescanReply` when the folder and all below it were listed again."""

    path: str = ""
    accept_root: bool = False


@dataclass(frozen=True, slots=True)
class RecomputeRequest(Request):
    """Answered with `RecomputeReply` when all ids are made anew, and the tables on disk have them."""


@dataclass(frozen=True, slots=True)
class SnapshotRequest(Request):
    """Answered with a `TablesView`; fails with `RootOffline` while the root is offline."""


@dataclass(frozen=True, slots=True)
class RootCheckRequest(Request):
    """May a prune go on? Answered after a look at root and mounts, at the same cost for any tables.

    The answer is `TablesView.n_mount_changes` as it is now. Fails with `RootOffline` while the root is not what it was,
    and with `PruneRefused` while a part of it is unsure.
    """


@dataclass(frozen=True, slots=True)
class RemovingNotice:
    """A prune is about to remove this session folder, so that its absence will be no surprise."""

    session: str


@dataclass(frozen=True, slots=True)
class PrunedNotice:
    """A prune, an undo or an emptying is over; these folders are to be looked at."""

    folders: tuple[str, ...]


AnyRequest = (
    StatusRequest | SyncRequest | FlushRequest | RescanRequest | RecomputeRequest | SnapshotRequest | RootCheckRequest
)
