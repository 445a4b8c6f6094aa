"""Turns requests into messages to the engine, and carries out prunes. Used by the server's threads only."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alfwatchd import api
from alfwatchd.api import (
    AnyRequest,
    PrunedNotice,
    RecomputeRequest,
    RemovingNotice,
    RootCheckRequest,
    SetRequest,
    SnapshotRequest,
    SyncRequest,
)
from alfwatchd.errors import Busy, NotAllowed, PruneRefused, UsageError
from alfwatchd.figures import FiguresRequest
from alfwatchd.prune import operations, trash_jobs
from alfwatchd.prune.plan import NO_REFERENCE, OWN_TABLES, PrunePlan, folders_above
from alfwatchd.prune.wording import name_prune, refusals_named
from alfwatchd.settings import Settings
from alfwatchd.store.id_history import find_id
from alfwatchd.store.reader import find_path
from alfwatchd.tree.sessions import TablesView
from alfwatchd.web import root_header
from alfwatchd.web.control_rights import ControlRights
from alfwatchd.web.peer import Peer
from alfwatchd.web.request_bodies import ApplyBody, EmptyBody, PlanBody, SetBody, UndoBody
from alfwatchd.web.thread_calls import in_thread

_log = logging.getLogger(__name__)

MAX_PLANS = 8
MAX_PLANNED_FILES = 500_000
"""The most files in all plans that are kept, at some 600 bytes each; a single larger plan is kept, too."""
MAX_PLANNING = 4
"""The most plans that are made at a time. Each reads reference tables, whose network mount may give no answer."""

MAX_LOOKING = 8
"""The most paths of clients that are looked at at a time. The network mount of each may give no answer."""
LOOK_SECONDS = 10.0
"""After this time, a client's path that gives no answer is refused."""
_ACTOR = "the daemon's user"


class ControlService:
    """Answers requests. All public methods run in the server's event loop.

    Parameters
    ----------
    post : callable
        Posts a message to the engine, which answers every request, also when the daemon stops.
    settings : callable
        Returns the settings in force.
    """

    def __init__(
        self,
        post: Callable[[AnyRequest | FiguresRequest | PrunedNotice | RemovingNotice], None],
        settings: Callable[[], Settings],
    ) -> None:
        self._post = post
        self._settings = settings
        self.rights = ControlRights(settings)
        """Checked before a request comes here; see `web.rights_guard`."""
        self._plans: OrderedDict[str, PrunePlan] = OrderedDict()
        self._mounts_of: dict[str, int] = {}
        """Id of a plan -> `TablesView.n_mount_changes` when it was made."""
        self._looking = threading.BoundedSemaphore(MAX_LOOKING)
        self._planning = threading.BoundedSemaphore(MAX_PLANNING)
        self._pruning = threading.Lock()
        self.n_pruned_bytes = 0
        """Size of the files that prunes have taken; only a prune, while no other one runs, changes it."""

    @property
    def root(self) -> Path:
        """The root that this daemon keeps."""
        return self._settings().root

    async def check_root(self, header: bytes) -> None:
        """Make sure that a request means the root that this daemon keeps; see `web.root_header`.

        Raises
        ------
        UsageError
            The header does not hold an absolute path.
        WrongRoot
            It is another root, or the path gave no answer in time.
        Busy
            Too many other paths are being looked at.
        """
        wanted = root_header.decode_root(header)
        if wanted == os.fsencode(self.root):  # without a look: the root may be on a mount that is away
            return
        if not self._looking.acquire(blocking=False):
            raise Busy(f"{os.fsdecode(wanted)}: {MAX_LOOKING} other paths are being looked at; try again later")
        try:
            await asyncio.wait_for(in_thread("request", self._look, wanted), LOOK_SECONDS)
        except TimeoutError as error:
            why = f", and the path gave no answer within {LOOK_SECONDS:.0f} seconds"
            raise root_header.wrong_root(wanted, self.root, why) from error

    async def ask(self, make: Callable[[Future[Any]], AnyRequest | FiguresRequest]) -> Any:
        """Post a request and wait for the engine's answer."""
        reply: Future[Any] = Future()
        self._post(make(reply))
        return await asyncio.wrap_future(reply)

    async def find_id(self, old: str) -> api.IdsReply:
        """Tell what became of an id.

        Raises
        ------
        UsageError
            The text is not a UUID.
        StateError
            The file of changes cannot be read.
        """
        settings = self._settings()
        return await in_thread("request", find_id, settings.state_dir, settings.out_dir, old)

    async def recompute_ids(self, peer: Peer) -> api.RecomputeReply:
        """Have all ids computed again; ids in earlier tables do not count.

        Raises
        ------
        RootOffline, TablesError
            It cannot be done now.
        """
        _log.warning("all ids are recomputed on request of %s", peer)
        return await self.ask(RecomputeRequest)  # type: ignore[no-any-return]

    async def set_columns(self, body: SetBody, peer: Peer) -> api.SetReply:
        """Have columns of a session set, in memory and on disk.

        Raises
        ------
        UsageError
            No such session is here, a database knows it, or a value makes no sense.
        Busy, RootOffline, TablesError
            It cannot be done now.
        """
        path = await in_thread("request", find_path, self._settings().out_dir, body.session)
        _log.warning(
            "columns are set on request of %s path=%r qc=%r projects=%r task_protocol=%r",
            peer, path, body.qc, body.projects, body.task_protocol,
        )  # fmt: skip
        make = functools.partial(
            SetRequest, path=path, qc=body.qc, projects=body.projects, task_protocol=body.task_protocol
        )
        return await self.ask(make)  # type: ignore[no-any-return]

    async def plan(self, body: PlanBody) -> api.PruneReply:
        """Plan a prune of what is on disk now.

        Raises
        ------
        UsageError
            The reference is not an absolute path.
        Busy
            Too many prunes are being planned.
        AlfwatchdError
            As `operations.plan_prune`, or from the engine.
        """
        options = operations.PruneOptions(
            _folder(body.reference), body.keep_empty_sessions, body.max_fraction, body.newer
        )
        source = options.reference or self._settings().prune.reference or OWN_TABLES
        with refusals_named(str(self.root), str(source)):
            # Do not wait for the flush: it may fail until this prune frees disk space.
            await self.ask(functools.partial(SyncRequest, flushed=False))
            await self.ask(RootCheckRequest)
            view: TablesView = await self.ask(SnapshotRequest)
            plan, reply = await in_thread("request", self._plan, view, options)
        self._mounts_of[plan.plan_id] = view.n_mount_changes
        self._remember(plan)
        return reply

    async def apply(self, body: ApplyBody, peer: Peer) -> api.PruneReply:
        """Carry out a plan. If the client disconnects, this is cancelled, and stops at the next file.

        Raises
        ------
        NotAllowed
            Pruning over the socket is off.
        UsageError
            There is no such plan.
        Busy
            Another prune is running.
        PruneRefused
            A part of the root cannot be read now.
        """
        plan, mark = self._plans.get(body.plan_id), self._mounts_of.get(body.plan_id, 0)
        with refusals_named(str(self.root), plan.reference if plan is not None else ""):
            self._require_pruning()
            if plan is None:
                raise UsageError(f"plan {body.plan_id!r}: no such plan, or it is too old; make one with /v1/prune/plan")
            if plan.reference == OWN_TABLES:
                raise UsageError(NO_REFERENCE)
            return await self._apply_wanted(plan, mark, peer)

    async def _apply_wanted(self, plan: PrunePlan, mark: int, peer: Peer) -> api.PruneReply:
        """Apply a plan; stop at the next file if this is cancelled."""
        has_left = threading.Event()
        try:
            reply = await in_thread("request", self._apply, plan, mark, peer, has_left)
        except asyncio.CancelledError:
            has_left.set()
            self._forget(plan.plan_id)
            raise
        self._forget(plan.plan_id)
        return reply

    async def undo(self, body: UndoBody, peer: Peer) -> api.TrashReply:
        """Move the files of a plan back from the trash, also if the client disconnects; raises as `apply`."""
        self._require_pruning()
        await self.ask(SnapshotRequest)  # fails while the root is offline
        return await asyncio.shield(asyncio.ensure_future(in_thread("request", self._undo, body.plan_id, peer)))

    async def empty(self, body: EmptyBody, peer: Peer) -> api.TrashReply:
        """Delete files from the trash, also if the client disconnects; raises as `apply`."""
        self._require_pruning()
        await self.ask(RootCheckRequest)
        return await asyncio.shield(asyncio.ensure_future(in_thread("request", self._empty, body.plan_id, peer)))

    async def list_plans(self) -> api.PlansReply:
        """Return the latest plans, and what became of them."""
        return await in_thread("request", trash_jobs.list_plans, self._settings())

    def _remember(self, plan: PrunePlan) -> None:
        """Keep a plan so that it can be applied; forget the oldest plans if there are too many, or too large ones."""
        self._plans[plan.plan_id] = plan
        self._plans.move_to_end(plan.plan_id)
        n_files = sum(len(each.files) for each in self._plans.values())
        while len(self._plans) > MAX_PLANS or (n_files > MAX_PLANNED_FILES and len(self._plans) > 1):
            oldest = next(iter(self._plans.values()))
            self._forget(oldest.plan_id)
            n_files -= len(oldest.files)

    def _forget(self, plan_id: str) -> None:
        self._plans.pop(plan_id, None)
        self._mounts_of.pop(plan_id, None)

    def _require_pruning(self) -> None:
        if not self._settings().prune.enabled:
            raise NotAllowed("pruning over the socket is off; set prune.enabled = true in the daemon's settings")

    # In worker threads.

    def _look(self, wanted: bytes) -> None:
        try:
            root_header.check_root(wanted, self.root)
        finally:
            self._looking.release()

    def _plan(self, view: TablesView, options: operations.PruneOptions) -> tuple[PrunePlan, api.PruneReply]:
        if not self._planning.acquire(blocking=False):
            raise Busy(f"{MAX_PLANNING} prunes are being planned already; try again later")
        try:
            settings = self._settings()
            plan = operations.plan_prune(view, settings, options)
            return plan, operations.preview(
                settings, plan, lambda: self._may_continue(view.n_mount_changes), actor=_ACTOR
            )
        finally:
            self._planning.release()

    def _apply(self, plan: PrunePlan, mark: int, peer: Peer, has_left: threading.Event) -> api.PruneReply:
        with self._alone():
            try:
                return self._apply_alone(plan, mark, peer, has_left)
            finally:
                touched = {above for path in plan.paths for above in folders_above(path)}
                self._post(PrunedNotice(tuple(touched)))

    def _apply_alone(self, plan: PrunePlan, mark: int, peer: Peer, has_left: threading.Event) -> api.PruneReply:
        """Apply a plan and log every step, because the client may not be there to read the answer."""
        settings = self._settings()
        about = f"by {peer} {name_prune(plan)}"
        self._may_continue(mark)
        _log.warning("prune begins plan=%s files=%d %s", plan.plan_id, len(plan.files), about)
        reply = operations.apply(
            settings,
            plan,
            lambda: self._may_continue(mark),
            lambda line: _log.info("%s %s", line, about),
            actor=_ACTOR,
            is_wanted=lambda: not has_left.is_set(),
            log_end=lambda line: _log.warning("%s %s", line, about),
            removing=lambda session: self._post(RemovingNotice(session)),
        )
        self.n_pruned_bytes += reply.n_bytes
        return reply

    def _may_continue(self, mark: int) -> None:
        """Ask the engine, before each session, to look at root and mounts; raise if one has changed since the plan."""
        reply: Future[int] = Future()
        self._post(RootCheckRequest(reply))
        if reply.result() != mark:
            raise PruneRefused("mounts at or below the root have changed since the plan; make a new one")

    def _undo(self, plan_id: str, peer: Peer) -> api.TrashReply:
        with self._alone():
            _log.warning("undo of a prune begins plan=%s %s", plan_id, peer)
            reply, folders = trash_jobs.undo(self._settings(), plan_id, _logging(peer), _ACTOR)
        self._post(PrunedNotice(folders))
        return reply

    def _empty(self, plan_id: str | None, peer: Peer) -> api.TrashReply:
        with self._alone():
            _log.warning("the trash is emptied plan=%s %s", plan_id or "all", peer)
            reply = trash_jobs.empty(self._settings(), plan_id, _logging(peer), _ACTOR)
        self._post(PrunedNotice(()))
        return reply

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._pruning.acquire(blocking=False):
            raise Busy("another prune is running; try again when it is done")
        try:
            yield
        finally:
            self._pruning.release()


def _logging(peer: Peer) -> Callable[[str], None]:
    """Return a function that logs a line with the peer that asked for the prune."""
    return lambda line: _log.info("%s by %s", line, peer)


def _folder(reference: str | None) -> Path | None:
    if reference is None:
        return None
    if not reference.startswith("/") or "\0" in reference:
        raise UsageError(f"reference = {reference!r}: should be an absolute path, as the daemon sees it")
    return Path(reference)
