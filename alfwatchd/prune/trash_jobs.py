"""What people ask of the trash: undo, empty, list. From settings to replies, the same with and without a daemon."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from alfwatchd.alf.printable import printable
from alfwatchd.api import PlansReply, PlanState, PruneItem, TrashReply
from alfwatchd.errors import UsageError
from alfwatchd.prune import empty_trash
from alfwatchd.prune.empty_trash import Emptied
from alfwatchd.prune.plan import KeptItem, folders_above
from alfwatchd.prune.plan_files import PlanRecords
from alfwatchd.prune.trash_manifest import plan_of
from alfwatchd.settings import Settings

Log = Callable[[str], None]


def undo(settings: Settings, plan_id: str, log: Log, actor: str = "this user") -> tuple[TrashReply, tuple[str, ...]]:
    """Bring back what a plan has moved into the trash.

    Returns
    -------
    tuple of (TrashReply, tuple of str)
        The reply, and all folders in which something is back, relative to the root.

    Raises
    ------
    UsageError
        `plan_id` is not the id of a plan.
    RootOffline, PruneRefused, Busy
        As `empty_trash.undo`.
    """
    _check_plan(plan_id)
    started = time.monotonic()
    done, is_left = empty_trash.undo(settings.root, plan_id, log, actor)
    log(
        f"prune undone root={str(settings.root)!r} plan={plan_id} files={len(done.files)} kept={len(done.kept)} "
        f"bytes={done.n_bytes} seconds={time.monotonic() - started:.2f}"
    )
    reply = TrashReply(
        action="undone",
        plans=[] if is_left else [plan_id],
        n_files=len(done.files),
        n_folders=len(done.folders),
        n_bytes=done.n_bytes,
        kept=_items(done.kept),
        complete=not (is_left or done.kept),
    )
    if not is_left:
        _note(settings, "undone", [plan_id])
    changed = {above for file in done.files for above in folders_above(file.path)}
    return reply, tuple(changed | {above for path in done.folders for above in folders_above(path)})


def empty(settings: Settings, plan_id: str | None, log: Log, actor: str = "this user") -> TrashReply:
    """Delete what one plan, or each plan (None), has moved into the trash; raises as `undo`."""
    if plan_id is not None:
        _check_plan(plan_id)
    return _emptied(settings, empty_trash.empty(settings.root, plan_id, log, actor), log)


def empty_due(settings: Settings, log: Log, now: float | None = None, actor: str = "this user") -> TrashReply:
    """Delete what is due in the trash, and finish interrupted runs. See `empty_trash.empty_due`; `now` None is now."""
    done = empty_trash.empty_due(settings.root, time.time() if now is None else now, log, actor)
    return _emptied(settings, done, log)


def list_plans(settings: Settings) -> PlansReply:
    """Return the plans that the state folder remembers."""
    return PlansReply(PlanRecords(settings.state_dir).list())


def _emptied(settings: Settings, done: Emptied, log: Log) -> TrashReply:
    if done.n_files or done.plans:
        log(
            f"trash emptied root={str(settings.root)!r} plans={','.join(done.plans)} files={done.n_files} "
            f"kept={len(done.kept)} bytes={done.n_bytes}"
        )
    _note(settings, "emptied", done.plans)
    _note(settings, "undone", done.undone)
    return TrashReply("emptied", done.plans, done.n_files, 0, done.n_bytes, _items(done.kept), not done.kept)


def _note(settings: Settings, state: PlanState, names: Iterable[str]) -> None:
    records = PlanRecords(settings.state_dir)
    for plan_id in {plan_of(name) or name for name in names}:
        records.note_state(plan_id, state)


def _check_plan(plan_id: str) -> None:
    if plan_of(plan_id) != plan_id:
        raise UsageError(f"{plan_id!r}: is not the id of a plan; alfwatchd prune --list shows all")


def _items(kept: Iterable[KeptItem]) -> list[PruneItem]:
    return [PruneItem(printable(item.path), item.file_size, item.reason) for item in kept]
