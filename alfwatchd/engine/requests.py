"""How the engine answers what clients ask: at once, or through a barrier when all is done that the answer needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from alfwatchd.api import (
    AnyRequest,
    FlushRequest,
    RecomputeReply,
    RecomputeRequest,
    RescanRequest,
    RootCheckRequest,
    SetReply,
    SetRequest,
    SnapshotRequest,
    StatusRequest,
    SyncRequest,
    answer,
)
from alfwatchd.engine.barriers import Barrier, answer_flush, answer_rescan
from alfwatchd.engine.figures import make_figures
from alfwatchd.engine.flushing import look_for_foreign_writes
from alfwatchd.engine.model import EngineModel
from alfwatchd.engine.root import Root
from alfwatchd.engine.status import make_status
from alfwatchd.errors import Busy, PruneRefused, UsageError
from alfwatchd.figures import FiguresRequest
from alfwatchd.tables.set_columns import NewColumns


def answer_request(model: EngineModel, root: Root, message: AnyRequest | FiguresRequest, now: float) -> None:
    """Answer a request now, or add the barrier that will answer it. Engine's thread only.

    Raises
    ------
    AlfwatchdError
        The answer is this error.
    """
    match message:
        case StatusRequest():
            answer(message.reply, make_status(model, now))
        case FiguresRequest():
            answer(message.reply, make_figures(model, now))
        case SyncRequest():
            root.require(now)
            look_for_foreign_writes(model, root, now)
            model.barriers.begin_sync(message.reply, now, by_scan=model.is_polled, flushed=message.flushed)
        case FlushRequest():
            root.require(now)
            look_for_foreign_writes(model, root, now)
            model.barriers.add(Barrier(message.reply, now, answer_flush))
        case RescanRequest():
            model.barriers.add(_begin_rescan(model, root, message, now))
        case RecomputeRequest():
            root.require(now)
            model.recompute_ids()
            model.barriers.add(Barrier(message.reply, now, _answer_recompute(model)))
        case SetRequest():
            root.require(now)
            model.barriers.add(_begin_set(model, message, now))
        case SnapshotRequest():
            root.require_online()
            answer(message.reply, replace(model.indexer.view(), first_seen=model.first_seen.times))
        case RootCheckRequest():
            root.look(now)
            root.require_online()
            if why := model.why_unsure:
                raise PruneRefused(why)
            answer(message.reply, model.indexer.guard.n_mount_changes)


def _answer_recompute(model: EngineModel) -> Callable[[Barrier, float], RecomputeReply]:
    """Return the function that makes the answer to a request to recompute all ids."""

    def answer(barrier: Barrier, now: float) -> RecomputeReply:
        return RecomputeReply(barrier.generation, model.n_recomputed_ids, round(now - barrier.started, 6))

    return answer


def _begin_set(model: EngineModel, message: SetRequest, now: float) -> Barrier:
    if not model.has_rows(now):
        raise Busy(
            "the first scan is not complete, so no row can be set yet; try again when `alfwatchd status` is live"
        )
    path, n_datasets = model.set_columns(
        message.path, NewColumns.of(message.qc, message.projects, message.task_protocol)
    )

    def answer(barrier: Barrier, now: float) -> SetReply:
        return SetReply(path, n_datasets, barrier.generation, round(now - barrier.started, 6))

    return Barrier(message.reply, now, answer)


def _begin_rescan(model: EngineModel, root: Root, message: RescanRequest, now: float) -> Barrier:
    if message.accept_root and message.path:
        raise UsageError("accept_root is for the whole root; leave the path out")
    if message.accept_root:
        root.open(now, accept=True)
    root.require(now)
    top = model.indexer.tree.find("/".join(part for part in message.path.split("/") if part not in ("", ".")))
    if top is None:
        raise UsageError(f"{message.path}: no folder of this path is indexed; give one relative to the root")
    running = model.indexer.start_scan(f"rescan {message.path}".strip(), now, top=top)
    return Barrier(message.reply, now, answer_rescan, scans=[running])
