"""The right that each request needs, and whether a client has it."""

from __future__ import annotations

import asyncio
import enum
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.errors import Busy, NotAllowed, TooOften
from alfwatchd.settings import Settings
from alfwatchd.web import refusals
from alfwatchd.web.peer import Peer, find_group
from alfwatchd.web.sync_limit import SYNC_SECONDS, SyncLimit
from alfwatchd.web.table_readers import find_obstacle
from alfwatchd.web.thread_calls import in_thread

MOST_LOOKS = 8
"""For how many clients at a time permissions are looked at. A dead mount may give no answer; further clients wait."""
LOOK_SECONDS = 10.0
"""How long a client waits for that at most."""


class Right(enum.Enum):
    """What a client needs for a request."""

    READ = enum.auto()
    """To be allowed to read: `control.read`."""
    SYNC = enum.auto()
    """As `READ`, and without control rights only one in `sync_limit.SYNC_SECONDS`; or control rights."""
    CONTROL = enum.auto()
    """Control rights: the root user, the daemon's user, and members of `control.group`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The right that a request needs, and what a refusal calls the request: "may not ..."."""

    right: Right
    action: str


RULES: Mapping[tuple[str, str], Rule] = {
    ("GET", "/openapi.json"): Rule(Right.READ, "ask for the description of the API"),
    ("GET", "/metrics"): Rule(Right.READ, "ask for the metrics"),
    ("GET", "/v1/status"): Rule(Right.READ, "ask for the status"),
    ("GET", "/v1/changes"): Rule(Right.READ, "ask for changes"),
    ("GET", "/v1/changes/stream"): Rule(Right.READ, "follow changes"),
    ("GET", "/v1/ids/{old}"): Rule(Right.READ, "ask for ids"),
    ("GET", "/v1/prune/plans"): Rule(Right.READ, "list plans"),
    ("POST", "/v1/sync"): Rule(Right.SYNC, "sync"),
    ("POST", "/v1/flush"): Rule(Right.CONTROL, "flush"),
    ("POST", "/v1/rescan"): Rule(Right.CONTROL, "rescan"),
    ("POST", "/v1/recompute_ids"): Rule(Right.CONTROL, "recompute ids"),
    ("POST", "/v1/set"): Rule(Right.CONTROL, "set columns"),
    ("POST", "/v1/prune/plan"): Rule(Right.CONTROL, "plan a prune"),
    ("POST", "/v1/prune/apply"): Rule(Right.CONTROL, "prune"),
    ("POST", "/v1/prune/undo"): Rule(Right.CONTROL, "undo a prune"),
    ("POST", "/v1/prune/empty"): Rule(Right.CONTROL, "empty the trash"),
}
"""Method and path of each request -> what it needs. A request that is not here is answered with 404."""


class ControlRights:
    """Decides what a client may do. Used by the server's event loop.

    Parameters
    ----------
    settings : callable
        Returns the settings in force.
    clock : callable
        Returns seconds, as `time.monotonic`.

    Raises
    ------
    ConfigError
        There is no such group as `control.group`.
    """

    def __init__(self, settings: Callable[[], Settings], clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        group = settings().control.group  # a change needs a restart
        self._gid = find_group(group) if group else None
        self._limit = SyncLimit()
        self._turns = asyncio.Semaphore(MOST_LOOKS)

    def is_trusted(self, peer: Peer) -> bool:
        """Tell whether a client has control rights, without a question to a directory service."""
        return _is_owner(peer) or (self._gid is not None and self._gid in (peer.gid, *(peer.groups or ())))

    async def check(self, peer: Peer, rule: Rule) -> None:
        """Make sure that a client may send a request now.

        Raises
        ------
        NotAllowed
            It may not; the message says why, and what an administrator can do.
        TooOften
            It may later.
        Busy
            The permissions of the tables cannot be found out now.
        """
        if self._may_at_once(peer, rule):
            return
        has_control = await self._in_turn(peer, rule)
        if rule.right is Right.SYNC and not has_control and (wait := self._limit.take(peer.uid, self._clock())):
            raise TooOften(
                f"uid={peer.uid} may sync again in {wait:.1f} seconds: without control rights, a user syncs once in "
                f"{SYNC_SECONDS:.0f} seconds; an administrator can put this user into control.group",
                wait,
            )

    async def check_again(self, peer: Peer, rule: Rule) -> bool:
        """Tell whether a client that was allowed to read still may."""
        if self._may_at_once(peer, rule):
            return True
        try:
            await self._in_turn(peer, rule)
        except (NotAllowed, Busy):
            return False
        return True

    def _may_at_once(self, peer: Peer, rule: Rule) -> bool:
        if rule.right is Right.READ and self._settings().control.read == "owner":
            return _is_owner(peer)
        return self.is_trusted(peer)

    async def _in_turn(self, peer: Peer, rule: Rule) -> bool:
        """Judge a client in a thread; return whether it has control rights."""
        out_dir, loop = self._settings().out_dir, asyncio.get_running_loop()

        def judge() -> bool:
            try:
                return self._judge(peer, rule)
            finally:
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._turns.release)

        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._turns.acquire()
                try:
                    judging = in_thread("rights", judge)
                except Busy:
                    self._turns.release()
                    raise
                return await judging
        except TimeoutError as error:
            raise Busy(
                f"{out_dir}: the disk or server did not tell within {LOOK_SECONDS:.0f} seconds which users may read "
                "the tables; try again later. Clients with control rights are answered"
            ) from error

    # In worker threads.

    def _judge(self, peer: Peer, rule: Rule) -> bool:
        """Return whether a client has control rights; raise `NotAllowed` if it may not do this."""
        settings = self._settings()
        group, read = settings.control.group, settings.control.read
        refused = f"{peer} may not {rule.action}"
        if rule.right is Right.READ and read == "owner":
            raise NotAllowed(f"{refused}: {refusals.ONLY_OWNER}")
        if self._gid is not None and self._gid in peer.all_groups():
            return True
        if rule.right is Right.CONTROL:
            raise NotAllowed(f"{refused}: {refusals.only_control(group, peer)}")
        if read == "group" or read == "owner":
            raise NotAllowed(f'{refused} (control.read = "{read}"): {refusals.only_control(group, peer)}')
        tables = (settings.out_dir / SESSIONS, settings.out_dir / DATASETS)
        if obstacle := find_obstacle(tables, peer.caller()):
            raise NotAllowed(f"{refused}: {refusals.only_readers(obstacle, tables, peer)}")
        return False


def _is_owner(peer: Peer) -> bool:
    return peer.uid in (0, os.getuid())
