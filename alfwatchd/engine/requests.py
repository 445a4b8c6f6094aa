"""What clients ask of the engine, and how it is answered: at once, or by a barrier when all that it takes is done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from alfwatchd.api import (
    AnyRequest,
    FlushRequest,
    RecomputeReply,
    RecomputeRequest,
    RescanRequest,
    RootCheckRequest,
    SnapshotRequest,
    StatusRequest,
    SyncRequest,
    answer,
)
from alfwatchd.engine.barriers import Barrier, answer_flush, answer_rescan
from alfwatchd.engine.status import make_status
from alfwatchd.errors import AlfwatchdError, PruneRefused, UsageError

if TYPE_CHECKING:
    from alfwatchd.engine.engine import Engine

_log = logging.getLogger(__name__)


def answer_request(engine: Engine, message: AnyRequest, now: float) -> None:
    """Answer a request, or see to it that it is answered. Engine's thread only.

    Raises
    ------
    AlfwatchdError
        To be the answer.
    """
    match message:
        case StatusRequest():
            answer(message.reply, make_status(engine, now))
        case SyncRequest():
            engine.require_root(now)
            engine.look_for_foreign_writes(now)
            engine.barriers.begin_sync(message.reply, now, by_scan=engine.is_polled, flushed=message.flushed)
        case FlushRequest():
            engine.require_root(now)
            engine.look_for_foreign_writes(now)
            engine.barriers.add(Barrier(message.reply, now, answer_flush))
        case RescanRequest():
            engine.barriers.add(_begin_rescan(engine, message, now))
        case RecomputeRequest():
            engine.require_root(now)
            engine.rules, engine.n_recomputed_ids = engine.rules.without_kept_ids(), 0
            engine.flushes.is_forced = True
            engine.barriers.add(Barrier(message.reply, now, _answer_recompute(engine)))
        case SnapshotRequest():
            engine.require_online()
            answer(message.reply, replace(engine.indexer.view(), first_seen=engine.model.first_seen.times))
        case RootCheckRequest():
            engine.look_at_root(now)
            engine.require_online()
            if why := why_unsure(engine):
                raise PruneRefused(why)
            answer(message.reply, engine.indexer.guard.n_mount_changes)


def reload_settings(engine: Engine) -> None:
    """Take settings that were read again into force. Engine's thread only."""
    try:
        new = engine.model.reload()
    except AlfwatchdError as error:
        _log.error("settings refused, the old ones stay in force error=%s", error)
        return
    old, engine.settings = engine.settings, new
    engine.flushes.interval = new.flush_interval_seconds
    engine.indexer.absences.allow_losses(new.guard.max_lost_fraction)
    engine.indexer.dirty.set_times(new.settle_seconds, new.longest_wait_seconds)
    if new.lab != old.lab:
        engine.rules = replace(engine.rules, lab=new.lab)
        engine.flushes.is_forced = True
    if new.exclude != old.exclude:
        engine.indexer.exclude(new.exclude)
        engine.pending_scan = "exclude changed"
    _log.info("settings read again")


def why_unsure(engine: Engine) -> str:
    """Return why nothing may be deleted now, though the root is online; empty if it may.

    The one place for such reasons. It is asked before each session of a prune, so it must not copy or count anything.
    """
    indexer = engine.indexer
    if held := indexer.absences.why_held:
        return f"nothing is deleted while rows are held: {held}"
    if folder := next(iter(indexer.unreadable), None):
        return f"{folder.path or engine.settings.root}: cannot be read now; make it readable first"
    if place := next(iter(indexer.guard.missing), None):
        return f"{place}: is not what was mounted there ({indexer.guard.missing[place]}); mount it again first"
    return ""


def _answer_recompute(engine: Engine) -> Callable[[Barrier, float], RecomputeReply]:
    """Return what makes the answer to a request to make all ids anew."""

    def answer(barrier: Barrier, now: float) -> RecomputeReply:
        return RecomputeReply(barrier.generation or 0, engine.n_recomputed_ids, round(now - barrier.started, 6))

    return answer


def _begin_rescan(engine: Engine, message: RescanRequest, now: float) -> Barrier:
    if message.accept_root and message.path:
        raise UsageError("accept_root is for the whole root; leave the path out")
    if message.accept_root:
        engine.open_root(now, accept=True)
    engine.require_root(now)
    top = engine.indexer.tree.find("/".join(part for part in message.path.split("/") if part not in ("", ".")))
    if top is None:
        raise UsageError(f"{message.path}: no folder of this path is indexed; give one relative to the root")
    running = engine.indexer.start_scan(f"rescan {message.path}".strip(), now, top=top)
    return Barrier(message.reply, now, answer_rescan, scans=[running])
