"""When the tables in memory are handed to the flusher. Engine's thread only; times are on its clock, in seconds."""

from __future__ import annotations

import logging

from alfwatchd.engine.model import EngineModel
from alfwatchd.engine.root import Root
from alfwatchd.errors import TablesError

_log = logging.getLogger(__name__)


def flush_due(model: EngineModel, now: float) -> float | None:
    """Return when to flush; None if nothing is to be written.

    Nothing is written before the first scan is complete, nor while the root is offline.
    """
    if model.offline or not model.has_rows(now) or not model.may_flush:
        return None
    return model.flushes.due(model.indexer.tables.n_changes, awaited=model.barriers.await_flush)


def flush_if_due(model: EngineModel, now: float) -> None:
    """Hand a snapshot to the flusher if that is due."""
    due = flush_due(model, now)
    if due is not None and due <= now:
        model.flushes.begin(model.indexer.tables.n_changes, now)
        model.pending.begin_flush(model.indexer.tables)
        model.flusher.submit(model.indexer.snapshot(), model.rules)


def note_failed_flush(model: EngineModel, error: str, now: float) -> None:
    """Plan the next attempt, and tell it to the clients that wait for the tables on disk."""
    model.pending.fail()
    wait = model.flushes.fail(error, now)
    _log.error("flush failed, tables on disk are old retry_seconds=%.0f error=%s", wait, error)
    why = f"{error}; the changes are kept in memory, the next attempt follows in {wait:.0f} s"
    model.barriers.fail_flush(TablesError(why))


def look_for_foreign_writes(model: EngineModel, root: Root, now: float) -> None:
    """Have the tables written again if another program changed or removed them.

    If their folder cannot be seen because the root went offline, nothing is written.
    """
    flushes = model.flushes
    if flushes.last is None or flushes.submitted is not None or flushes.is_forced:
        return
    if model.flusher.writer.is_untouched():
        return
    root.look(now)
    if not model.offline:
        _log.warning("another program changed the tables, writing them again out_dir=%s", model.settings.out_dir)
        flushes.force()
