"""One request at a time to a running daemon, over its Unix socket. For the command line, scripts and tests.

Only the standard library: a command must answer at once, and there is nothing here that an HTTP library would add.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from alfwatchd import api, errors
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.errors import AlfwatchdError, NoDaemon, NotAllowed, RequestFailed
from alfwatchd.web.wanted_root import HEADER, decode_root, encode_root

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_CONNECT_SECONDS = 5
_MOST_ANSWER_BYTES = 1 << 30


class Client:
    """Talks to the daemon that serves a socket. Any thread; each call opens its own connection.

    Parameters
    ----------
    socket_path : str or Path
        Control socket of the daemon.
    timeout : float or None
        Seconds to wait for an answer; None waits as long as it takes, which may be a scan of everything.
    root : str, Path or None
        The root that is meant. A daemon that keeps another one refuses. Without it, any daemon that answers will do,
        but for `plan_prune`, `apply_prune` and ``rescan(accept_root=True)``, which need it.

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

    def sync(self) -> api.SyncReply:
        """Wait until every change made before the call is in the tables on disk."""
        return _reply(api.SyncReply, self._ask("POST", "/v1/sync"))

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
            Take root and mounts as they are, though they are not what they were.
        """
        body = {"path": path, "accept_root": accept_root}
        return _reply(api.RescanReply, self._ask("POST", "/v1/rescan", body))

    def ids(self, old: str) -> api.IdsReply:
        """Ask what became of the id of a session or dataset."""
        return _reply(api.IdsReply, self._ask("GET", f"/v1/ids/{quote(old, safe='')}"))

    def recompute_ids(self) -> api.RecomputeReply:
        """Have all ids made anew, as they follow from the paths or are the database's, whatever earlier tables hold."""
        return _reply(api.RecomputeReply, self._ask("POST", "/v1/recompute_ids"))

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
            Whether what is newer than the reference may go, too.
        """
        body = {
            "reference": reference,
            "keep_empty_sessions": keep_empty_sessions,
            "max_fraction": max_fraction,
            "newer": newer,
        }
        return _reply(api.PruneReply, self._ask("POST", "/v1/prune/plan", body))

    def apply_prune(self, plan_id: str) -> api.PruneReply:
        """Delete exactly what a plan says and is unchanged since.

        The daemon stops at the next file if this call ends before its answer: after `timeout` seconds, or when this
        process ends. Its log says what went.
        """
        return _reply(api.PruneReply, self._ask("POST", "/v1/prune/apply", {"plan_id": plan_id}))

    def undo_prune(self, plan_id: str) -> api.TrashReply:
        """Bring back what a plan has moved into the trash; never over what is there."""
        return _reply(api.TrashReply, self._ask("POST", "/v1/prune/undo", {"plan_id": plan_id}))

    def empty_trash(self, plan_id: str | None = None) -> api.TrashReply:
        """Delete what a plan has moved into the trash; None: what all plans have."""
        return _reply(api.TrashReply, self._ask("POST", "/v1/prune/empty", {"plan_id": plan_id}))

    def list_plans(self) -> api.PlansReply:
        """Ask for the plans that are remembered, and what became of them."""
        return _reply(api.PlansReply, self._ask("GET", "/v1/prune/plans"))

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._exchange(method, path, body)[0]

    def _exchange(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], http.client.HTTPMessage]:
        """Send a request and return answer and headers."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = _connect(str(self.socket_path))
        connection.sock.settimeout(self.timeout)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            if self.root is not None:
                headers[HEADER] = encode_root(os.fsencode(self.root))
            with suppress(BrokenPipeError, ConnectionResetError):  # it may answer without reading, and close
                connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            answer = parse_json(response.read(_MOST_ANSWER_BYTES + 1), _MOST_ANSWER_BYTES)
        except TimeoutError as error:
            raise RequestFailed(f"{self.socket_path}: no answer within {self.timeout} seconds; is it busy?") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RequestFailed(f"{self.socket_path}: the daemon broke off ({error!r}); look at its log") from error
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise RequestFailed(f"{self.socket_path}: this is no answer of an alfwatchd daemon: {answer!r}")
        if response.status != http.HTTPStatus.OK:
            raise _error(answer)
        return answer, response.headers


def _connect(socket_path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not `settimeout`: a socket that does not block fails at once while others wait to be accepted, connect(2).
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _CONNECT_SECONDS, 0))
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
            return NotAllowed(
                f"{socket_path}: this user may not use the socket; ask to be added to the daemon's control.group"
            )
        case BlockingIOError():
            return RequestFailed(f"{socket_path}: the daemon took no connection within {_CONNECT_SECONDS} seconds")
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
    """Make a reply of an answer. A newer daemon may say more than this version knows."""
    known = {field.name for field in fields(kind)} & answer.keys()
    try:
        answer = {**answer, **_nested(answer, known)}
        listed = [key for key in known if _is_of_items(key, answer[key])]
        items = {key: [_reply(_ITEMS[key], each) for each in answer[key]] for key in listed}
        return kind(**{key: answer[key] for key in known} | items)
    except TypeError as error:
        raise RequestFailed(
            f"the daemon's answer lacks fields ({error}): it is of another version, restart it"
        ) from error


def _is_of_items(key: str, value: Any) -> bool:
    """Tell whether a list holds answers; `plans` is a list of names in some answers."""
    return key in _ITEMS and (key != "plans" or all(isinstance(each, dict) for each in value))


def _nested(answer: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """Return the parts of an answer that are answers themselves."""
    return {"adopt": _reply(api.AdoptStatus, answer["adopt"])} if "adopt" in known and answer["adopt"] else {}


def _error(answer: dict[str, Any]) -> AlfwatchdError:
    """Return the error that the daemon answered with, as the class it had there."""
    found = getattr(errors, str(answer.get("error")), None)
    kind = found if isinstance(found, type) and issubclass(found, AlfwatchdError) else RequestFailed
    return kind(str(answer.get("message", answer)))
