"""Keeps the control socket: if its file is removed, it is made again, so that clients find the daemon."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable

from alfwatchd.errors import AlfwatchdError, ConfigError
from alfwatchd.service import systemd
from alfwatchd.settings import Settings
from alfwatchd.web.control_socket import ControlSocket

_log = logging.getLogger(__name__)


class Control:
    """The socket that systemd passed, whose file belongs to systemd, or one of our own. Used by one thread.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    AlfwatchdError
        As `web.control_socket.ControlSocket`; a `ConfigError` if systemd passed anything but one stream socket.
    """

    def __init__(self, settings: Settings) -> None:
        self._own: ControlSocket | None = None
        self._trouble = ""
        passed = systemd.listen_fds()
        if not passed:
            self._own = ControlSocket(
                settings.socket, settings.control.group, for_all=settings.control.read == "tables"
            )
            self.listening, self.path = self._own.listening, str(settings.socket)
            return
        self.listening = socket.socket(fileno=passed[0])
        is_stream = self.listening.family == socket.AF_UNIX and self.listening.type == socket.SOCK_STREAM
        if len(passed) > 1 or not is_stream:
            self.listening.close()
            raise ConfigError("the socket unit should have exactly one ListenStream=, and that should be a path")
        self.path = self.listening.getsockname()

    def keep(self, replace: Callable[[socket.socket], None]) -> None:
        """Make the file of the socket again if it was removed, or log an error if only systemd can do so.

        Parameters
        ----------
        replace : callable
            Given the new socket; listens to it and closes the old one.
        """
        trouble = ""
        if self._own is None:
            if not os.access(self.path, os.F_OK):
                trouble = "its file was removed; run systemctl restart on its unit"
        else:
            trouble = self._renew(self._own, replace)
        if trouble and not self._trouble:
            _log.error("clients cannot find the control socket path=%s error=%s", self.path, trouble)
        self._trouble = trouble

    def close(self) -> None:
        """Close the socket, and remove its file if it is our own."""
        if self._own is not None:
            self._own.close()
        self.listening.close()

    def _renew(self, own: ControlSocket, replace: Callable[[socket.socket], None]) -> str:
        try:
            listening = own.renew()
        except AlfwatchdError as error:
            return str(error)
        if listening is not None:
            replace(listening)
            _log.warning("the control socket was removed and is made again path=%s", self.path)
        return ""
