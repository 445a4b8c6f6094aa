"""The Python client of the control API: one request at a time to a running daemon, over its Unix socket.

Only the standard library, so that a command starts quickly.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from alfwatchd import api, errors
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.errors import AlfwatchdError, NoDaemon, NotAllowed, RequestFailed, TooOften
from alfwatchd.web.refusals import not_connected
from alfwatchd.web.root_header import HEADER, decode_root, encode_root

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CONNECT_SECONDS = 5
"""How long a client waits for the daemon to accept its connection."""
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
        return _reply(api.Status, self._ask("GET", "/v1/status"))

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
                return _reply(api.SyncReply, self._ask("POST", "/v1/sync"))
            except TooOften as error:
                if deadline is not None and time.monotonic() + error.wait_seconds > deadline:
                    raise
                on_wait(error)
                time.sleep(max(error.wait_seconds, _WAIT_SECONDS))

    def flush(self) -> api.FlushReply:
        """Wait until the tables in memory are on disk."""
        return _reply(api.FlushReply, self._ask("POST", "/v1/flush"))

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
        return _reply(api.RescanReply, self._ask("POST", "/v1/rescan", body))

    def ids(self, old: str) -> api.IdsReply:
        """Ask what became of the id of a session or dataset."""
        return _reply(api.IdsReply, self._ask("GET", f"/v1/ids/{quote(old, safe='')}"))

    def recompute_ids(self) -> api.RecomputeReply:
        """Have all ids computed again, from the paths or from the database; ids in earlier tables do not count."""
        return _reply(api.RecomputeReply, self._ask("POST", "/v1/recompute_ids"))

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
        return _reply(api.SetReply, self._ask("POST", "/v1/set", body))

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
        return _reply(api.PruneReply, self._ask("POST", "/v1/prune/plan", body))

    def apply_prune(self, plan_id: str) -> api.PruneReply:
        """Delete the files of a plan that are unchanged since.

        The daemon stops at the next file if this call ends before the answer: after `timeout` seconds, or when this
        process ends. Its log says which files it deleted.
        """
        return _reply(api.PruneReply, self._ask("POST", "/v1/prune/apply", {"plan_id": plan_id}))

    def undo_prune(self, plan_id: str) -> api.TrashReply:
        """Move the files of a plan from the trash back to their places; never over a file that is there."""
        return _reply(api.TrashReply, self._ask("POST", "/v1/prune/undo", {"plan_id": plan_id}))

    def empty_trash(self, plan_id: str | None = None) -> api.TrashReply:
        """Delete the files of a plan from the trash; None: of all plans."""
        return _reply(api.TrashReply, self._ask("POST", "/v1/prune/empty", {"plan_id": plan_id}))

    def list_plans(self) -> api.PlansReply:
        """Ask for the latest plans, and what became of them."""
        return _reply(api.PlansReply, self._ask("GET", "/v1/prune/plans"))

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._exchange(method, path, body)[0]

    def _exchange(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], http.client.HTTPMessage]:
        """Send a request and return the answer and its headers."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = _connect(str(self.socket_path))
        connection.sock.settimeout(self.timeout)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            if self.root is not None:
                headers[HEADER] = encode_root(os.fsencode(self.root))
            with suppress(
                BrokenPipeError, ConnectionResetError
            ):  # the daemon may answer and close before it has read all
                connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            answer = parse_json(response.read(_MOST_ANSWER_BYTES + 1), _MOST_ANSWER_BYTES)
        except TimeoutError as error:
            raise RequestFailed(f"{self.socket_path}: no answer within {self.timeout} seconds; is it busy?") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RequestFailed(
                f"{self.socket_path}: the daemon ended the connection ({error!r}); look at its log"
            ) from error
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise RequestFailed(f"{self.socket_path}: this is not an answer of an alfwatchd daemon: {answer!r}")
        if response.status != http.HTTPStatus.OK:
            raise _error(answer, response.headers)
        return answer, response.headers


def _connect(socket_path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not `settimeout`: it makes connect(2) fail at once while other clients wait to be accepted.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", CONNECT_SECONDS, 0))
        connection.connect(socket_path)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
    except OSError as error:
        connection.close()
        raise _not_connected(socket_path, error) from error
    return connection


def _not_connected(socket_path: str, error: OSError) -> AlfwatchdError:
    match error:
        case FileNotFoundError() | ConnectionRefusedError() | NotADirectoryError():
            return NoDaemon(
                f"{socket_path}: no daemon answers here; start `alfwatchd`, or name its socket with --socket"
            )
        case PermissionError():
            return NotAllowed(f"{socket_path}: {not_connected(Path(socket_path))}")
        case BlockingIOError():
            return RequestFailed(f"{socket_path}: the daemon accepted no connection within {CONNECT_SECONDS} seconds")
        case _:
            return RequestFailed(f"{socket_path}: cannot connect ({error.strerror or error})")


_Reply = TypeVar("_Reply", bound="DataclassInstance")

_ITEMS: dict[str, type[DataclassInstance]] = {
    "rescans": api.RescanNote,
    "problems": api.ProblemReply,
    "targets": api.TargetStatus,
    "files": api.PruneItem,
    "folders": api.PruneItem,
    "kept": api.PruneItem,
    "steps": api.IdStep,
    "plans": api.PlanRecord,
}


def _reply(kind: type[_Reply], answer: dict[str, Any]) -> _Reply:
    """Return an answer as a reply; fields that this version does not know, from a newer daemon, are ignored."""
    known = {field.name for field in fields(kind)} & answer.keys()
    try:
        answer = {**answer, **_nested(answer, known)}
        listed = [key for key in known if _is_of_items(key, answer[key])]
        items = {key: [_reply(_ITEMS[key], each) for each in answer[key]] for key in listed}
        return kind(**{key: answer[key] for key in known} | items)
    except TypeError as error:
        raise RequestFailed(
            f"the daemon's answer lacks fields ({error}): the daemon runs another version of alfwatchd; restart it"
        ) from error


def _is_of_items(key: str, value: Any) -> bool:
    """Tell whether a value is a list of replies; `plans` is a list of ids in some answers."""
    return key in _ITEMS and (key != "plans" or all(isinstance(each, dict) for each in value))


def _nested(answer: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """Return the parts of an answer that are replies themselves."""
    return {"adopt": _reply(api.AdoptStatus, answer["adopt"])} if "adopt" in known and answer["adopt"] else {}


def _error(answer: dict[str, Any], headers: http.client.HTTPMessage) -> AlfwatchdError:
    """Return the daemon's error, of the class that it had there."""
    found = getattr(errors, str(answer.get("error")), None)
    kind = found if isinstance(found, type) and issubclass(found, AlfwatchdError) else RequestFailed
    error = kind(str(answer.get("message", answer)))
    if isinstance(error, TooOften):
        told = headers.get("Retry-After", "")
        error.wait_seconds = float(told) if told.isascii() and told.isdigit() else 0.0
    return error
