"""Where requests become messages to the engine, and where prunes are carried out. The server's threads only."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from alfwatchd import pruning
from alfwatchd.control_socket import Peer
from alfwatchd.core import messages, replies
from alfwatchd.core.messages import Message, TablesView
from alfwatchd.core.prune_plan import NO_REFERENCE, OWN_TABLES, PrunePlan
from alfwatchd.errors import Busy, NotAllowed, PruneRefused, RootOffline, UsageError
from alfwatchd.id_changes import find_id
from alfwatchd.settings import Fraction, Settings

_log = logging.getLogger(__name__)

_MAX_PLANS = 8
_MAX_PLANNED_FILES = 500_000
"""In all plans together, unless one alone has more: each takes some 300 bytes."""
_MAX_PLANNING = 4
"""Each reads reference tables, which may lie on a network mount that is away."""

_T = TypeVar("_T")


class RescanBody(BaseModel):
    """What to scan again."""

    model_config = ConfigDict(extra="forbid", strict=True)
    path: str = Field("", max_length=4096, description="Folder relative to the root; empty for all of it.")
    accept_root: bool = Field(default=False, description="Take the root as it is, though it is not what it was.")


class PlanBody(BaseModel):
    """What a prune is measured against."""

    model_config = ConfigDict(extra="forbid", strict=True)
    reference: str | None = Field(
        None, max_length=4096, description="Folder of the reference tables: an absolute path, as the daemon sees it."
    )
    keep_empty_sessions: bool = Field(default=False, description="Delete files only, no folders.")
    max_fraction: Fraction | None = Field(None, description="Largest fraction of datasets and bytes that may go.")
    newer: bool = Field(default=False, description="Whether what is newer than the reference may go, too.")


class ApplyBody(BaseModel):
    """Which plan to carry out."""

    model_config = ConfigDict(extra="forbid", strict=True)
    plan_id: str = Field(
        max_length=64, description="As in the plan; the daemon knows the last eight, fewer large ones."
    )


class Desk:
    """Answers requests. All methods are for the server's event loop.

    Parameters
    ----------
    post : callable
        Takes messages to the engine, which answers each of them, also when it ends.
    settings : callable
        Returns the settings in force.
    """

    def __init__(self, post: Callable[[Message], None], settings: Callable[[], Settings]) -> None:
        self._post = post
        self._settings = settings
        self._plans: OrderedDict[str, PrunePlan] = OrderedDict()
        self._planning = threading.BoundedSemaphore(_MAX_PLANNING)
        self._pruning = threading.Lock()

    async def ask(self, make: Callable[[Future[Any]], Message]) -> Any:
        """Post a request and wait for the engine's answer."""
        reply: Future[Any] = Future()
        self._post(make(reply))
        return await asyncio.wrap_future(reply)

    async def find_id(self, old: str) -> replies.IdsReply:
        """Tell what became of an id.

        Raises
        ------
        UsageError
            It is no UUID.
        StateError
            The file of changes cannot be read.
        """
        settings = self._settings()
        return await _in_thread(find_id, settings.state_dir, settings.out_dir, old)

    async def plan(self, body: PlanBody) -> replies.PruneReply:
        """Plan a prune of what is on disk now.

        Raises
        ------
        UsageError
            The reference is no absolute path.
        Busy
            Too many are being planned.
        AlfwatchdError
            As `pruning.plan_prune`, or from the engine.
        """
        options = pruning.PruneOptions(_folder(body.reference), body.keep_empty_sessions, body.max_fraction, body.newer)
        # Not flushed: a prune may be what makes room for the flush.
        await self.ask(functools.partial(messages.SyncRequest, flushed=False))
        view: TablesView = await self.ask(messages.SnapshotRequest)
        plan, reply = await _in_thread(self._plan, view, options)
        self._remember(plan)
        return reply

    async def apply(self, body: ApplyBody, peer: Peer) -> replies.PruneReply:
        """Carry out a plan that was made. Goes on if the client leaves meanwhile.

        Raises
        ------
        NotAllowed
            Pruning is off, or not for this peer.
        UsageError
            There is no such plan.
        Busy
            Another prune is running.
        PruneRefused
            A part of the root cannot be read now.
        """
        return await asyncio.shield(asyncio.ensure_future(self._apply_planned(body, peer)))

    async def _apply_planned(self, body: ApplyBody, peer: Peer) -> replies.PruneReply:
        await _in_thread(self._check_may_prune, peer)
        plan = self._plans.get(body.plan_id)
        if plan is None:
            raise UsageError(f"plan {body.plan_id!r}: no such plan, or it is too old; make one with /v1/prune/plan")
        if plan.reference == OWN_TABLES:
            raise UsageError(NO_REFERENCE)
        view: TablesView = await self.ask(messages.SnapshotRequest)  # fails while the root is offline
        if view.unsure:
            raise PruneRefused(f"{view.unsure[0]}: not readable any more; nothing was deleted, make a new plan")
        reply = await _in_thread(self._apply, plan, peer)
        self._plans.pop(body.plan_id, None)
        return reply

    def _remember(self, plan: PrunePlan) -> None:
        """Keep a plan to be carried out, and forget the oldest ones of too many, or of ones that are too large."""
        self._plans[plan.plan_id] = plan
        self._plans.move_to_end(plan.plan_id)
        n_files = sum(len(each.files) for each in self._plans.values())
        while len(self._plans) > _MAX_PLANS or (n_files > _MAX_PLANNED_FILES and len(self._plans) > 1):
            _, oldest = self._plans.popitem(last=False)
            n_files -= len(oldest.files)

    def _check_may_prune(self, peer: Peer) -> None:
        """Let root, the daemon's user and members of `control.group` prune, if pruning is enabled at all."""
        settings = self._settings()
        if not settings.prune.enabled:
            raise NotAllowed("pruning over the socket is off; set prune.enabled = true in the daemon's settings")
        group = settings.control.group
        if peer.uid not in (0, os.getuid()) and not (group and peer.is_in(group)):
            raise NotAllowed(f"{peer} may not prune; root, the daemon's user and members of control.group may")

    # In worker threads.

    def _plan(self, view: TablesView, options: pruning.PruneOptions) -> tuple[PrunePlan, replies.PruneReply]:
        if not self._planning.acquire(blocking=False):
            raise Busy(f"{_MAX_PLANNING} prunes are being planned already; try again later")
        try:
            settings = self._settings()
            plan = pruning.plan_prune(view, settings, options)
            return plan, pruning.preview(settings, plan, self._may_continue)
        finally:
            self._planning.release()

    def _apply(self, plan: PrunePlan, peer: Peer) -> replies.PruneReply:
        if not self._pruning.acquire(blocking=False):
            raise Busy("another prune is running; try again when it is done")
        who = str(peer)
        try:
            _log.warning("prune begins plan=%s files=%d %s", plan.plan_id, len(plan.files), who)
            reply = pruning.apply(
                self._settings(), plan, self._may_continue, lambda line: _log.info("%s by %s", line, who)
            )
        finally:
            self._pruning.release()
        gone = [item.path for item in (*reply.files, *reply.folders)]
        self._post(messages.PrunedNotice(tuple({path.rpartition("/")[0] for path in gone})))
        return reply

    def _may_continue(self) -> None:
        """Ask the engine whether the root is still what it was; asked before each session."""
        reply: Future[TablesView] = Future()
        self._post(messages.SnapshotRequest(reply))
        view = reply.result()
        if view.unsure:
            raise RootOffline(f"{view.unsure[0]}: not readable any more")


def _in_thread(function: Callable[..., _T], *arguments: object) -> Awaitable[_T]:
    """Run a function as `asyncio.to_thread` does, in a thread that the end of the process does not wait for."""
    done: Future[_T] = Future()

    def run() -> None:
        try:
            result = function(*arguments)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            messages.refuse(done, error)
        else:
            messages.answer(done, result)

    threading.Thread(target=run, name="prune", daemon=True).start()
    return asyncio.wrap_future(done)


def _folder(reference: str | None) -> Path | None:
    if reference is None:
        return None
    if not reference.startswith("/") or "\0" in reference:
        raise UsageError(f"reference = {reference!r}: should be an absolute path, as the daemon sees it")
    return Path(reference)
