"""What the engine may be told: a closed union of messages. Every thread but the engine's own only posts these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from alfwatchd.tables.adoption import Adoption
from alfwatchd.tables.earlier import Kept
from alfwatchd.tree.sessions import Snapshot


@dataclass(slots=True)
class FolderEvents:
    """What happened in one watched folder.

    Parameters
    ----------
    names : set of str
        Files that came, went or changed.
    rewritten : set of str
        Those whose content was written to.
    listing : bool
        Whether sub-folders or the folder itself came, went or moved.
    attributes : set of str
        Those of which nothing else was told than that mode, owner, times or other attributes changed.
    gone : set of str
        Sub-folders that were removed or moved away.
    """

    names: set[str] = field(default_factory=set)
    rewritten: set[str] = field(default_factory=set)
    listing: bool = False
    attributes: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class PathsChanged:
    """File-system events, joined per watch descriptor, in the order of the kernel's queue between messages."""

    folders: Mapping[int, FolderEvents]
    cookies: tuple[str, ...] = ()
    """Names of sync cookies: all events before them are in this message or in earlier ones."""
    unwatched: tuple[int, ...] = ()
    """Descriptors whose watch the kernel removed."""


@dataclass(frozen=True, slots=True)
class EventsLost:
    """Events are missing, so any folder may differ from the tables."""

    reason: str
    reader_alive: bool = True


@dataclass(frozen=True, slots=True)
class EventsRead:
    """File-system events as the kernel told them; `parse` makes messages of them, in the engine's thread.

    The reader only reads: while it took events apart itself, it shared the interpreter with the engine for so long that
    a burst of 90,000 files per second overflowed the kernel's queue.
    """

    buffer: bytes
    parse: Callable[[bytes], list[PathsChanged | EventsLost]]


@dataclass(frozen=True, slots=True)
class Flushed:
    """The tables on disk are at this generation."""

    generation: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FlushFailed:
    """The tables on disk are what they were before."""

    error: str


@dataclass(frozen=True, slots=True)
class Crawled:
    """What a worker process read: for `crawlers.Crawlers.receive`; None if the process ended."""

    worker: int
    answer: bytes | None


@dataclass(frozen=True, slots=True)
class Hashed:
    """md5 digests: folder path -> file name -> (packed signature, 16-byte digest, version of the content)."""

    digests: Mapping[str, Mapping[str, tuple[bytes, bytes, int]]]


@dataclass(frozen=True, slots=True)
class Adopted:
    """What a look at the database gave; `adoption` is None where nothing changes, `error` empty where all went well."""

    adoption: Adoption | None
    kept: Kept | None
    """What is left of what earlier tables hold; None where nothing changes."""
    error: str
    when: str | None
    """UTC, ISO 8601; None for what was adopted by an earlier process."""


@dataclass(frozen=True, slots=True)
class Announced:
    """How many rows of the tables the database knows, and how many ids this has changed, those of datasets as well."""

    n_sessions: int
    n_datasets: int
    n_changes: int
    n_changed_datasets: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Flush and end."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Read the settings again."""


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


@dataclass(frozen=True, slots=True)
class TablesView:
    """The tables as they are, and what makes them less than certain."""

    snapshot: Snapshot
    unsure: tuple[str, ...]
    """Folders whose rows are those of an earlier look."""
    held: str = ""
    """Why rows of sessions that are gone are kept; empty if none are."""
    n_mount_changes: int = 0
    """How often mounts at, above or below the root have changed so far: what was seen before may be covered now."""
    first_seen: Mapping[str, float] = field(default_factory=dict)
    """Session path -> when it was first seen, in seconds since 1970; see `first_seen.FirstSeen`."""


AnyRequest = (
    StatusRequest | SyncRequest | FlushRequest | RescanRequest | RecomputeRequest | SnapshotRequest | RootCheckRequest
)
Message = (
    PathsChanged
    | EventsLost
    | Crawled
    | Flushed
    | FlushFailed
    | Hashed
    | Adopted
    | Announced
    | PrunedNotice
    | RemovingNotice
    | Stop
    | Reload
    | AnyRequest
)
