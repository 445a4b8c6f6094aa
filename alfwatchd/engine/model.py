"""What the engine is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from alfwatchd.database.adopter import Adopter
from alfwatchd.engine.inbox import Inbox
from alfwatchd.index.first_seen import FirstSeen
from alfwatchd.index.hash_queue import HashQueue
from alfwatchd.index.indexer import Indexer
from alfwatchd.prune.trash_keeper import TrashKeeper
from alfwatchd.publish.publisher import Publisher
from alfwatchd.settings import Settings
from alfwatchd.store.flusher import Flusher


@dataclass(frozen=True, slots=True)
class EngineModel:
    """What the engine is made of.

    Parameters
    ----------
    indexer : Indexer
    flusher : Flusher
    inbox : Inbox
    hashes : HashQueue or None
        None where hashing is off.
    adopter : Adopter or None
        None where no database is to be adopted.
    publisher : Publisher or None
        None where there are no targets.
    first_scan_done : callable
        Called once, before the first flush.
    reload : callable
        Reads the settings again; raises `AlfwatchdError` to keep the old ones.
    wall_clock : callable
        Time for people: UTC.
    stopwatch : callable
        Seconds, to bound how long one step takes.
    trash : TrashKeeper or None
        None where nobody empties the trash.
    first_seen : FirstSeen
    """

    indexer: Indexer
    flusher: Flusher
    inbox: Inbox
    hashes: HashQueue | None
    adopter: Adopter | None
    publisher: Publisher | None
    first_scan_done: Callable[[], None]
    reload: Callable[[], Settings]
    wall_clock: Callable[[], datetime]
    stopwatch: Callable[[], float]
    trash: TrashKeeper | None = None
    first_seen: FirstSeen = field(default_factory=FirstSeen)
