"""The engine's state as clients see it."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from alfwatchd.alf.printable import printable
from alfwatchd.api import DaemonState, ProblemReply, RescanNote, Status
from alfwatchd.index.lab import lab_problems
from alfwatchd.version import find_version
from alfwatchd.watch.inotify import watches_limit

if TYPE_CHECKING:
    from alfwatchd.engine.engine import Engine

_MAX_PROBLEMS = 1000


def make_status(engine: Engine, now: float) -> Status:
    """Report what the engine knows. Engine's thread only."""
    indexer, flushes, settings = engine.indexer, engine.flushes, engine.settings
    counts = indexer.tables.counts
    snapshot, adopter = indexer.tables.snapshot(), engine.model.adopter
    problems = lab_problems(settings.lab, snapshot) + indexer.problems()
    if adopter is not None:
        problems = sorted(problems + adopter.problems(snapshot, settings.lab), key=lambda each: (each.path, each.kind))
    trash = engine.model.trash
    if trash is not None:
        problems = problems + trash.problems()
    changed = [time for time in (flushes.changed_since, indexer.dirty.oldest) if time is not None]

    def iso(time: float | None) -> str | None:
        if time is None:
            return None
        return (engine.model.wall_clock() - timedelta(seconds=now - time)).isoformat(timespec="seconds")

    return Status(
        state=engine.state,
        since=iso(engine.state_since) or "",
        detail=_detail(engine),
        root=printable(str(settings.root)),
        out_dir=printable(str(settings.out_dir)),
        pid=os.getpid(),
        version=find_version(),
        generation=indexer.tables.generation,
        n_sessions=counts.n_sessions,
        n_datasets=counts.n_datasets,
        n_bytes=counts.n_bytes,
        n_ignored=indexer.tree.n_ignored,
        saved=flushes.error is None,
        flushed_generation=flushes.generation,
        last_flush=iso(flushes.last),
        last_flush_seconds=flushes.last_seconds,
        last_flush_error=flushes.error,
        oldest_unflushed_seconds=round(now - min(changed), 3) if changed else None,
        events_lost=engine.events_lost,
        rescans=[RescanNote(each.reason, iso(each.started) or "", each.seconds) for each in indexer.queue.scans],
        watches=len(indexer.tree.claims),
        watches_limit=watches_limit() if indexer.watch.is_on else None,
        unwatched=len(indexer.watch.unwatched),
        hashes_pending=engine.model.hashes.n_pending if engine.model.hashes else 0,
        adopt=adopter.status() if adopter is not None else None,
        targets=engine.model.publisher.status() if engine.model.publisher is not None else [],
        problems=[ProblemReply(each.kind, each.path, each.message) for each in problems[:_MAX_PROBLEMS]],
        n_problems=len(problems),
        trash_bytes=trash.n_bytes if trash is not None else 0,
    )


def find_state(engine: Engine, now: float) -> DaemonState:
    """Tell in one word how far the tables can be trusted. Engine's thread only."""
    if engine.offline:
        return "offline"
    indexer = engine.indexer
    if indexer.absences.loss is not None:
        return "held"
    if not indexer.scans_done or engine.awaits_database(now):
        return "starting"
    oldest = indexer.dirty.oldest
    is_late = oldest is not None and now - oldest > 2 * engine.settings.longest_wait_seconds
    if engine.pending_scan or indexer.why_scan or indexer.queue.is_urgent or is_late:
        return "catching up"
    is_complete = not (indexer.watch.unwatched or indexer.unreadable or indexer.guard.missing)
    return "live" if is_complete and not engine.is_polled else "polled"


def _detail(engine: Engine) -> str:
    match engine.state:
        case "offline":
            return engine.offline
        case "held":
            return engine.indexer.absences.why_held
        case "starting":
            what = "the tables wait for the database" if engine.indexer.scans_done else "the first scan runs"
            return f"{what}; the tables on disk are those of the last run"
        case "catching up":
            return "changes are being taken in"
        case "polled":
            return _why_polled(engine)
        case "live":
            return "every change is seen at once" + _but_links(engine)


def _but_links(engine: Engine) -> str:
    if not engine.indexer.linked:
        return ""
    return f"; what links lead to, every {engine.settings.poll_interval_seconds:.0f} s and by sync"


def _why_polled(engine: Engine) -> str:
    if engine.indexer.watch.problem:
        return engine.indexer.watch.problem
    if not engine.is_polled:
        n_unknown = len(engine.indexer.unreadable) + len(engine.indexer.guard.missing)
        return f"{n_unknown} folders cannot be read and keep their last known rows: see problems"
    if engine.settings.watch == "poll":
        return f"polling is set: scanned every {engine.settings.poll_interval_seconds:.0f} s"
    types = ", ".join(sorted(engine.indexer.guard.fs_types))
    return f"changes on {types} cannot all be seen: scanned every {engine.settings.poll_interval_seconds:.0f} s"


def status_line(engine: Engine) -> str:
    """Say the most important in one line, for systemd. Engine's thread only."""
    counts = engine.indexer.tables.counts
    saved = " NOT SAVED" if engine.flushes.error else ""
    return f"{engine.state}: {counts.n_sessions} sessions, {counts.n_datasets} datasets{saved}; {_detail(engine)}"
