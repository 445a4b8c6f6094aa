"""The Python client of the control API: one request at a time to a running daemon, over its Unix socket.

Only the standard library, so that a command starts quickly.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from alfwatchd import api
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.errors import RequestFailed, TooOften
from alfwatchd.web.connecting import connect
from alfwatchd.web.feed_reader import FeedReader, Wanted
from alfwatchd.web.follow import Changes
from alfwatchd.web.replies import read_error, read_reply
from alfwatchd.web.root_header import HEADER, decode_root, encode_root

if TYPE_CHECKING:
    import socket

    from alfwatchd.web.follow_async import AsyncChanges

_WAIT_SECONDS = 1.0
"""How long to wait at least where the daemon says that it is too soon to ask again."""
_MOST_ANSWER_BYTES = 1 << 30


class Client:
    """Talks to the daemon that serves a socket. Any thread; each call opens its own connection.

    Parameters
    ----------
    socket_path : str or Path
        Control socket of the daemon.
    timeout : float or None
        Seconds to wait for an answer; None waits as long as the daemon needs, which may scan everything.
    root : str, Path or None
        The root that is meant: a daemon that keeps another one refuses. With None, any daemon answers, except to
        requests that change something below ``/v1/prune`` and to ``rescan(accept_root=True)``, which need a root.

    Raises
    ------
    NoDaemon
        From each method, if nothing answers on the socket.
    WrongRoot
        From each method, if the daemon keeps another root than `root`.
    AlfwatchdError
        From each method, of the class that the daemon answered with.
    """

    def __init__(self, socket_path: str | Path, timeout: float | None = None, root: str | Path | None = None) -> None:
        self.socket_path = Path(socket_path)
        self.timeout = timeout
        self.root = Path(os.path.realpath(root)) if root is not None else None

    def find_root(self) -> Path:
        """Ask which root the daemon keeps. Unlike `Status.root`, it is exact for names that are not UTF-8."""
        _, headers = self._exchange("GET", "/v1/status")
        return Path(os.fsdecode(decode_root(headers.get(HEADER, "").encode("latin-1"))))

    def status(self) -> api.Status:
        """Ask what the daemon knows."""
        return read_reply(api.Status, self._ask("GET", "/v1/status"))

    def metrics(self, accept: str = "text/plain") -> bytes:
        """Ask for all metrics: as Prometheus' text, or as OpenMetrics with ``application/openmetrics-text``."""
        return self._answer("GET", "/metrics", None, {"Accept": accept})[0]

    def sync(self, on_wait: Callable[[TooOften], object] = lambda _: None) -> api.SyncReply:
        """Wait until every change made before the call is in the tables on disk.

        A user without control rights may ask once in ten seconds; this call waits until it may ask again.

        Parameters
        ----------
        on_wait : callable
            Called with the daemon's answer before each such wait.

        Raises
        ------
        TooOften
            That wait would take longer than `timeout`.
        """
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        while True:
            try:
                return read_reply(api.SyncReply, self._ask("POST", "/v1/sync"))
            except TooOften as error:
                if deadline is not None and time.monotonic() + error.wait_seconds > deadline:
                    raise
                on_wait(error)
                time.sleep(max(error.wait_seconds, _WAIT_SECONDS))

    def flush(self) -> api.FlushReply:
        """Wait until the tables in memory are on disk."""
        return read_reply(api.FlushReply, self._ask("POST", "/v1/flush"))

    def rescan(self, path: str = "", *, accept_root: bool = False) -> api.RescanReply:
        """Scan a folder, relative to the root, and all below it again.

        Parameters
        ----------
        path : str
            Empty for the whole root.
        accept_root : bool
            Accept the current root even if it is a different disk or folder than last time, and its mounts likewise.
        """
        body = {"path": path, "accept_root": accept_root}
        return read_reply(api.RescanReply, self._ask("POST", "/v1/rescan", body))

    def ids(self, old: str) -> api.IdsReply:
        """Ask what became of the id of a session or dataset."""
        return read_reply(api.IdsReply, self._ask("GET", f"/v1/ids/{quote(old, safe='')}"))

    def recompute_ids(self) -> api.RecomputeReply:
        """Have all ids computed again, from the paths or from the database; ids in earlier tables do not count."""
        return read_reply(api.RecomputeReply, self._ask("POST", "/v1/recompute_ids"))

    def set_columns(
        self,
        session: str,
        *,
        qc: str | None = None,
        projects: str | None = None,
        task_protocol: str | None = None,
    ) -> api.SetReply:
        """Set columns of a session that no database knows, and wait until they are on disk.

        Parameters
        ----------
        session : str
            Its path, relative to the root, or its eid. A rel_path behind the path means one dataset, or those in a
            folder.
        qc : str or None
            Of its datasets: NOT_SET, PASS, WARNING, FAIL or CRITICAL.
        projects : str or None
            Names with commas between them.
        task_protocol : str or None
        """
        body = {"session": session, "qc": qc, "projects": projects, "task_protocol": task_protocol}
        return read_reply(api.SetReply, self._ask("POST", "/v1/set", body))

    def plan_prune(
        self,
        reference: str | None = None,
        *,
        keep_empty_sessions: bool = False,
        max_fraction: float | None = None,
        newer: bool = False,
    ) -> api.PruneReply:
        """Ask what a prune would delete.

        Parameters
        ----------
        reference : str or None
            Folder of the reference tables, as the daemon sees it; None for its setting.
        keep_empty_sessions : bool
        max_fraction : float or None
            0 to 1; None for the daemon's setting.
        newer : bool
            Whether to delete files that are newer than the reference, too.
        """
        body = {
            "reference": reference,
            "keep_empty_sessions": keep_empty_sessions,
            "max_fraction": max_fraction,
            "newer": newer,
        }
        return read_reply(api.PruneReply, self._ask("POST", "/v1/prune/plan", body))

    def apply_prune(self, plan_id: str) -> api.PruneReply:
        """Delete the files of a plan that are unchanged since.

        The daemon stops at the next file if this call ends before the answer: after `timeout` seconds, or when this
        process ends. Its log says which files it deleted.
        """
        return read_reply(api.PruneReply, self._ask("POST", "/v1/prune/apply", {"plan_id": plan_id}))

    def undo_prune(self, plan_id: str) -> api.TrashReply:
        """Move the files of a plan from the trash back to their places; never over a file that is there."""
        return read_reply(api.TrashReply, self._ask("POST", "/v1/prune/undo", {"plan_id": plan_id}))

    def empty_trash(self, plan_id: str | None = None) -> api.TrashReply:
        """Delete the files of a plan from the trash; None: of all plans."""
        return read_reply(api.TrashReply, self._ask("POST", "/v1/prune/empty", {"plan_id": plan_id}))

    def list_plans(self) -> api.PlansReply:
        """Ask for the latest plans, and what became of them."""
        return read_reply(api.PlansReply, self._ask("GET", "/v1/prune/plans"))

    def changes(
        self,
        since: str | int = "now",
        *,
        follow: bool = True,
        lab: str | None = None,
        subject: str | None = None,
        flushed: bool = True,
    ) -> Changes:
        """Tell which sessions changed, and, if wanted, wait for more.

        ::

            for change in Client(socket).changes():
                if isinstance(change, Fresh):
                    take_the_whole_tables()
                else:
                    print(change.path, change.added)

        Parameters
        ----------
        since : str or int
            ``now``: what changes from now on. A `cursor` of an earlier call, or a generation: what changed after it.
            ``start``: all that the journal has.
        follow : bool
            Whether to wait for more, without end and over restarts of the daemon.
        lab, subject : str or None
            Only sessions of these.
        flushed : bool
            Whether to tell only what is in the tables on disk. If false, changes that are not are told as well, with
            `generation` None, and again when they are.

        Returns
        -------
        Changes
            Iterator of `Change` and `Fresh`. The latter says that the feed cannot tell what changed, as `since` is too
            old or of a lost journal: take the whole tables.
        """
        return Changes(self._reader(Wanted(str(since), follow, lab, subject, flushed)), self._open)

    def changes_async(
        self,
        since: str | int = "now",
        *,
        follow: bool = True,
        lab: str | None = None,
        subject: str | None = None,
        flushed: bool = True,
    ) -> AsyncChanges:
        """As `changes`, for ``async for``."""
        from alfwatchd.web.follow_async import AsyncChanges  # asyncio takes time that commands do not have

        return AsyncChanges(self._reader(Wanted(str(since), follow, lab, subject, flushed)), self._open)

    def _reader(self, wanted: Wanted) -> FeedReader:
        return FeedReader(wanted, self._root_header(), str(self.socket_path))

    def _open(self) -> socket.socket:
        return connect(str(self.socket_path))

    def _root_header(self) -> dict[str, str]:
        return {HEADER: encode_root(os.fsencode(self.root))} if self.root is not None else {}

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._exchange(method, path, body)[0]

    def _exchange(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], http.client.HTTPMessage]:
        """Send a request and return the answer, which is a JSON object, and its headers."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        text, told = self._answer(method, path, json.dumps(body) if body is not None else None, headers)
        return self._parse(text), told

    def _answer(
        self, method: str, path: str, body: str | None, headers: dict[str, str]
    ) -> tuple[bytes, http.client.HTTPMessage]:
        """Send a request and return the body of the answer and its headers; raise the error that it tells of."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self._open()
        connection.sock.settimeout(self.timeout)
        try:
            headers |= self._root_header()
            with suppress(
                BrokenPipeError, ConnectionResetError
            ):  # the daemon may answer and close before it has read all
                connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = response.read(_MOST_ANSWER_BYTES + 1)
        except TimeoutError as error:
            raise RequestFailed(f"{self.socket_path}: no answer within {self.timeout} seconds; is it busy?") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._ended(error) from error
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise read_error(self._parse(answer), response.headers.get("Retry-After", ""))
        return answer, response.headers

    def _parse(self, text: bytes) -> dict[str, Any]:
        try:
            answer = parse_json(text, _MOST_ANSWER_BYTES)
        except ValueError as error:
            raise self._ended(error) from error
        if not isinstance(answer, dict):
            raise RequestFailed(f"{self.socket_path}: this is not an answer of an alfwatchd daemon: {answer!r}")
        return answer

    def _ended(self, error: Exception) -> RequestFailed:
        return RequestFailed(f"{self.socket_path}: the daemon ended the connection ({error!r}); look at its log")
