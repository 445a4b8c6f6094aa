"""One request at a time to a running daemon, over its Unix socket. For the command line, scripts and tests.

Only the standard library: a command must answer at once, and there is nothing here that an HTTP library would add.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from alfwatchd import errors
from alfwatchd.core import replies
from alfwatchd.errors import AlfwatchdError, NoDaemon, RequestFailed

_CONNECT_SECONDS = 5.0


class Client:
    """Talks to the daemon that serves a socket. Any thread; each call opens its own connection.

    Parameters
    ----------
    socket_path : str or Path
        Control socket of the daemon.
    timeout : float or None
        Seconds to wait for an answer; None waits as long as it takes, which may be a scan of everything.

    Raises
    ------
    NoDaemon
        From each method, if nothing answers on the socket.
    AlfwatchdError
        From each method, of the class that the daemon answered with.
    """

    def __init__(self, socket_path: str | Path, timeout: float | None = None) -> None:
        self.socket_path = Path(socket_path)
        self.timeout = timeout

    def status(self) -> replies.Status:
        """Ask what the daemon knows."""
        answer = self._ask("GET", "/v1/status")
        return replies.Status(
            **{
                **answer,
                "rescans": [replies.RescanNote(**each) for each in answer["rescans"]],
                "problems": [replies.ProblemReply(**each) for each in answer["problems"]],
            }
        )

    def sync(self) -> replies.SyncReply:
        """Wait until every change made before the call is in the tables on disk."""
        return replies.SyncReply(**self._ask("POST", "/v1/sync"))

    def flush(self) -> replies.FlushReply:
        """Wait until the tables in memory are on disk."""
        return replies.FlushReply(**self._ask("POST", "/v1/flush"))

    def rescan(self, path: str = "", *, accept_root: bool = False) -> replies.RescanReply:
        """Scan a folder, relative to the root, and all below it again.

        Parameters
        ----------
        path : str
            Empty for the whole root.
        accept_root : bool
            Take root and mounts as they are, though they are not what they were.
        """
        return replies.RescanReply(**self._ask("POST", "/v1/rescan", {"path": path, "accept_root": accept_root}))

    def plan_prune(
        self, reference: str | None = None, *, keep_empty_sessions: bool = False, max_fraction: float | None = None
    ) -> replies.PruneReply:
        """Ask what a prune would delete.

        Parameters
        ----------
        reference : str or None
            Folder of the reference tables, as the daemon sees it; None for its setting.
        keep_empty_sessions : bool
        max_fraction : float or None
            0 to 1; None for the daemon's setting.
        """
        body = {"reference": reference, "keep_empty_sessions": keep_empty_sessions, "max_fraction": max_fraction}
        return _prune_reply(self._ask("POST", "/v1/prune/plan", body))

    def apply_prune(self, plan_id: str) -> replies.PruneReply:
        """Delete exactly what a plan says and is unchanged since."""
        return _prune_reply(self._ask("POST", "/v1/prune/apply", {"plan_id": plan_id}))

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = _UnixConnection(str(self.socket_path), self.timeout)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NoDaemon(
                f"{self.socket_path}: no daemon answers here; start `alfwatchd`, or name its socket with --socket"
            ) from error
        except PermissionError as error:
            raise errors.NotAllowed(
                f"{self.socket_path}: this user may not use the socket; ask to be added to the daemon's control.group"
            ) from error
        except TimeoutError as error:
            raise RequestFailed(f"{self.socket_path}: no answer within {self.timeout} seconds; is it busy?") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RequestFailed(f"{self.socket_path}: the daemon broke off ({error!r}); look at its log") from error
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise _error(answer)
        return dict(answer)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, socket_path: str, timeout: float | None) -> None:
        super().__init__("localhost")
        self._socket_path = socket_path
        self._answer_timeout = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CONNECT_SECONDS)
        self.sock.connect(self._socket_path)
        self.sock.settimeout(self._answer_timeout)


def _error(answer: dict[str, Any]) -> AlfwatchdError:
    """Return the error that the daemon answered with, as the class it had there."""
    found = getattr(errors, str(answer.get("error")), None)
    kind = found if isinstance(found, type) and issubclass(found, AlfwatchdError) else RequestFailed
    return kind(str(answer.get("message", answer)))


def _prune_reply(answer: dict[str, Any]) -> replies.PruneReply:
    lists = {key: [replies.PruneItem(**each) for each in answer[key]] for key in ("files", "folders", "kept")}
    return replies.PruneReply(**{**answer, **lists})
