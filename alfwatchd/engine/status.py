"""The engine's state as clients see it: `status`, and the line that systemd shows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta

from alfwatchd.alf.printable import printable
from alfwatchd.api import DaemonState, ProblemReply, RescanNote, Status
from alfwatchd.engine.model import EngineModel
from alfwatchd.index.lab import lab_problems
from alfwatchd.tree.rows import Problem
from alfwatchd.version import find_version
from alfwatchd.watch.inotify import watches_limit

_MAX_PROBLEMS = 1000


def make_status(model: EngineModel, now: float, problems: Sequence[Problem] | None = None) -> Status:
    """Return what the engine knows. Engine's thread only.

    Parameters
    ----------
    model : EngineModel
    now : float
        On the engine's clock, in seconds.
    problems : sequence of Problem or None
        Those that `find_problems` found just now; None to look for them.
    """
    model.enter(find_state(model, now), now)  # what was done since the last step may have changed it
    indexer, flushes, settings = model.indexer, model.flushes, model.settings
    counts, problems = indexer.tables.counts, find_problems(model) if problems is None else problems
    changed = [time for time in (flushes.changed_since, indexer.dirty.oldest) if time is not None]

    def iso(time: float | None) -> str | None:
        if time is None:
            return None
        return (model.wall_clock() - timedelta(seconds=now - time)).isoformat(timespec="seconds")

    return Status(
        state=model.state,
        since=iso(model.state_since) or "",
        detail=_detail(model, now),
        root=printable(str(settings.root)),
        out_dir=printable(str(settings.out_dir)),
        pid=os.getpid(),
        version=find_version(),
        generation=flushes.generation,
        n_sessions=counts.n_sessions,
        n_datasets=counts.n_datasets,
        n_bytes=counts.n_bytes,
        n_ignored=indexer.tree.n_ignored,
        saved=flushes.error is None,
        last_flush=iso(flushes.last),
        last_flush_seconds=flushes.last_seconds,
        last_flush_error=flushes.error,
        oldest_unflushed_seconds=round(now - min(changed), 3) if changed else None,
        events_lost=model.events_lost,
        rescans=[RescanNote(each.reason, iso(each.started) or "", each.seconds) for each in indexer.queue.scans],
        watches=len(indexer.tree.claims),
        watches_limit=watches_limit() if indexer.watch.is_on else None,
        unwatched=len(indexer.watch.unwatched),
        hashes_pending=model.hashes.n_pending if model.hashes else 0,
        hashes_unconfirmed=model.hashes.n_unconfirmed if model.hashes else 0,
        adopt=model.adopter.status() if model.adopter is not None else None,
        targets=model.publisher.status() if model.publisher is not None else [],
        problems=[ProblemReply(each.kind, each.path, each.message) for each in problems[:_MAX_PROBLEMS]],
        n_problems=len(problems),
        trash_bytes=model.trash.n_bytes if model.trash is not None else 0,
        polled_late=bool(_why_late(model, now)),
    )


def find_problems(model: EngineModel) -> list[Problem]:
    """Return what a person should act on: about rows, sorted by path, then about the trash."""
    snapshot, lab = model.indexer.tables.snapshot(), model.settings.lab
    problems = lab_problems(lab, snapshot) + model.indexer.problems() + model.other_files.problems()
    if model.adopter is not None:
        problems = sorted(problems + model.adopter.problems(snapshot, lab), key=lambda each: (each.path, each.kind))
    return problems + (model.trash.problems() if model.trash is not None else [])


def find_state(model: EngineModel, now: float) -> DaemonState:
    """Return one word for how far the tables can be trusted. Engine's thread only."""
    if model.offline:
        return "offline"
    indexer = model.indexer
    if indexer.absences.loss is not None:
        return "held"
    if not model.has_rows(now):
        return "starting"
    oldest = indexer.dirty.oldest
    is_late = oldest is not None and now - oldest > 2 * model.settings.longest_wait_seconds
    if model.pending_scan or indexer.why_scan or indexer.queue.is_urgent or is_late:
        return "catching up"
    is_complete = not (indexer.watch.unwatched or indexer.unreadable or indexer.guard.missing)
    return "live" if is_complete and not model.is_polled else "polled"


def _detail(model: EngineModel, now: float) -> str:
    """Return the sentence of `status` that gives the reason for the state."""
    match model.state:
        case "offline":
            return model.offline
        case "held":
            return model.indexer.absences.why_held
        case "starting":
            what = "the tables wait for the database" if model.indexer.scans_done else "the first scan runs"
            if not model.flushes.generation:
                return f"{what}; alfwatchd has written no tables here yet"
            return f"{what}; the tables on disk are those of the last run"
        case "catching up":
            return "changes are being scanned"
        case "polled":
            return _why_late(model, now) + _why_polled(model)
        case "live":
            return "every change is seen at once" + _but_links(model)


def _but_links(model: EngineModel) -> str:
    if not model.indexer.linked:
        return ""
    return f"; folders that links lead to are scanned every {model.settings.poll_interval_seconds:.0f} s and by sync"


def _why_polled(model: EngineModel) -> str:
    if model.indexer.watch.problem:
        return model.indexer.watch.problem
    if not model.is_polled:
        n_unknown = len(model.indexer.unreadable) + len(model.indexer.guard.missing)
        return f"{n_unknown} folders cannot be read and keep their last known rows: see problems"
    if model.settings.watch == "poll":
        return f"polling is set: scanned every {model.settings.poll_interval_seconds:.0f} s"
    types = ", ".join(sorted(model.indexer.guard.fs_types))
    return f"changes on {types} cannot all be seen: scanned every {model.settings.poll_interval_seconds:.0f} s"


def _why_late(model: EngineModel, now: float) -> str:
    """Return the first words of the detail where a scan of a polled tree takes longer than the interval, else nothing.

    The scan that runs counts, and before it is late, the last one that ended.
    """
    interval = model.settings.poll_interval_seconds
    if model.state != "polled" or not (model.is_polled or model.indexer.watch.unwatched):
        return ""
    whole = [scan for scan in model.indexer.queue.scans if not scan.top]
    lasted = [scan.seconds for scan in whole if scan.seconds is not None][-1:]
    longest = max([*lasted, *(now - scan.started for scan in whole if not scan.done)], default=0.0)
    if longest <= interval:
        return ""
    paced = "reconcile_entries_per_second or " if model.settings.reconcile_entries_per_second else ""
    return (
        f"polled late: a scan takes {longest:.0f} s, and one is to begin every {interval:.0f} s; raise {paced}"
        "poll_interval_seconds; "
    )


def status_line(model: EngineModel, now: float) -> str:
    """Return the most important facts in one line, for systemd. Engine's thread only; `now` is on its clock."""
    counts = model.indexer.tables.counts
    saved = " NOT SAVED" if model.flushes.error else ""
    return f"{model.state}: {counts.n_sessions} sessions, {counts.n_datasets} datasets{saved}; {_detail(model, now)}"
