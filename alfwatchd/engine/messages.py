"""All messages that the engine takes. Other threads never touch its state; they post these."""

from __future__ import annotations

from dataclasses import dataclass

from alfwatchd.api import AnyRequest, PrunedNotice, RemovingNotice
from alfwatchd.database.adopter import Adopted
from alfwatchd.figures import FiguresRequest
from alfwatchd.index.worker_pool import Crawled
from alfwatchd.scan.hasher import Hashed
from alfwatchd.store.flusher import Flushed, FlushFailed
from alfwatchd.store.id_history import IdsChanged
from alfwatchd.watch.events import EventsLost, PathsChanged


@dataclass(frozen=True, slots=True)
class Stop:
    """Tells the engine to flush and end."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Tells the engine to read the settings again."""


Message = (
    PathsChanged
    | EventsLost
    | Crawled
    | Flushed
    | FlushFailed
    | Hashed
    | Adopted
    | IdsChanged
    | PrunedNotice
    | RemovingNotice
    | Stop
    | Reload
    | AnyRequest
    | FiguresRequest
)
