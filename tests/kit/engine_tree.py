"""Trees for tests of the engine, and what its tables hold of them.

A `box` is a `kit.engine.EngineBox`.
"""

from __future__ import annotations

from pathlib import Path

from alfwatchd.engine.messages import Message
from alfwatchd.watch.events import EventsLost, PathsChanged
from kit.engine import EngineBox

S1, S2, T1 = "s/2020-01-01/001", "s/2020-01-01/002", "t/2020-01-01/001"
EXACT, SCANNED, PARTIAL = "exact", "scanned", "partial"


def write(root: Path, *paths: str, size: int = 1) -> None:
    """Make datasets of this size, and folders, whose paths end in a slash."""
    root.mkdir(exist_ok=True)
    for path in paths:
        if path.endswith("/"):
            (root / path).mkdir(parents=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(b"x" * size)


def sizes(box: EngineBox) -> dict[str, int]:
    """Return path -> size of all datasets in memory."""
    sessions = {row["id"]: row for row in box.rows().sessions}
    found = {}
    for row in box.rows().datasets:
        session = sessions[row["eid"]]
        found[f"{session['subject']}/{session['date']}/{session['number']:03d}/{row['rel_path']}"] = row["file_size"]
    return found


def stored_paths(box: EngineBox) -> set[str]:
    """Return the `rel_path` of all datasets in the tables on disk."""
    return {row["rel_path"] for row in box.stored()[1]}


def cookies_are_lost(message: Message) -> bool:
    """Tell whether a message has a sync cookie; for `EngineBox.drop`."""
    return isinstance(message, PathsChanged) and any(name.startswith("c") for name in message.cookies)


def events_are_lost(message: Message) -> bool:
    """Tell whether a message is about events; for `EngineBox.drop`."""
    return isinstance(message, PathsChanged | EventsLost)


def rescans(box: EngineBox) -> list[str]:
    """Return the reasons of the last scans, the oldest first."""
    return [note.reason for note in box.status().rescans]


def start_reconcile(box: EngineBox, interval: float = 1000.0) -> None:
    """Let time pass until a reconcile runs; it has looked at one unit of folders then."""
    box.live(interval - box.now + box.engine.scanning.last_ended)
    assert box.indexer.queue.current is not None
    assert box.indexer.queue.current.reason == "reconcile"
