"""What the indexer keeps from one run to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from alfwatchd.index.losses import Loss


@dataclass(frozen=True, slots=True)
class Record:
    """What an earlier run kept, and how this run keeps it. The engine's thread calls.

    Parameters
    ----------
    was_held : bool
        Whether the earlier run held rows of lost sessions: these stay held, however many sessions came since.
    keep_loss : callable
        Given what is held, before any of it can be lost, and None when nothing is held any more.
    keep_inodes : callable
        Given session path -> inode of session folders after each whole scan.
    """

    was_held: bool = False
    keep_loss: Callable[[Loss | None], None] = lambda _: None
    keep_inodes: Callable[[Mapping[str, int]], None] = lambda _: None


NOT_RECORDED = Record()
"""For a run that leaves no state."""
