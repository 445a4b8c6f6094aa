"""Connects to the control socket of a daemon."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from alfwatchd.errors import AlfwatchdError, NoDaemon, NotAllowed, RequestFailed
from alfwatchd.web.refusals import not_connected

CONNECT_SECONDS = 5
"""How long a client waits for the daemon to accept its connection."""


def connect(socket_path: str) -> socket.socket:
    """Return a connection.

    Raises
    ------
    NoDaemon
        Nothing answers on the socket.
    NotAllowed
        This user may not use it.
    RequestFailed
        The daemon accepts no connection.
    """
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
