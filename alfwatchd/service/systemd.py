"""What systemd and the daemon tell each other: notifications, watchdog, passed sockets, journal.

Outside systemd its variables are not set, and all of this does nothing. Any thread may call any function.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from typing import IO, Any

FIRST_PASSED_FD = 3
"""`SD_LISTEN_FDS_START`, sd_listen_fds(3)."""

_STATUS_SECONDS = 1.0
"""Each status costs systemd a message to everybody who watches the unit."""


class Service:
    """What the loop that does the work tells systemd, once in each round. That loop's thread only.

    A message that systemd does not take, because it is busy, is said again in the next round.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._interval = watchdog_interval(environ)
        self._ping_due = self._status_due = 0.0
        self._status = ""
        self._is_ready = False
        self._is_stopping = False
        self._reload_usec: int | None = None

    def begin_reload(self, monotonic_usec: int) -> None:
        """Tell that settings are about to be read again; READY follows in the next round."""
        self._is_ready = False
        self._reload_usec = monotonic_usec
        self._tell_reload()

    def tell(self, now: float, text: str, *, is_stopping: bool = False) -> float:
        """Tell what systemd should know now.

        Parameters
        ----------
        now : float
            CLOCK_MONOTONIC, in seconds.
        text : str
            One line for people, sent when it changes, but not in each round.
        is_stopping : bool
            Whether the last flush has begun.

        Returns
        -------
        float
            Seconds until the watchdog waits for the next call; infinite where there is none.
        """
        if is_stopping:
            self._is_stopping = self._is_stopping or stopping(self._environ)
        elif not self._is_ready:
            self._is_ready = self._tell_reload() and ready(text, self._environ)
        elif text != self._status and now >= self._status_due and status(text, self._environ):
            self._status, self._status_due = text, now + _STATUS_SECONDS
        return self.ping(now)

    def ping(self, now: float) -> float:
        """Feed the watchdog if it is time, also within a round that takes long; returns what `tell` returns."""
        if self._interval is None:
            return math.inf
        if now >= self._ping_due:
            is_taken = watchdog(self._environ)
            self._ping_due = now + (self._interval if is_taken else self._interval / 10)
        return self._ping_due - now

    def _tell_reload(self) -> bool:
        """Tell that a reload began, if that has not been taken yet."""
        if self._reload_usec is not None and reloading(self._reload_usec, self._environ):
            self._reload_usec = None
        return self._reload_usec is None


def ready(text: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell that starting, or a reload, is over; `text` is one line for people.

    Returns
    -------
    bool
        Whether systemd took the message. It waits for this one: where `NOTIFY_SOCKET` is set, say it again.
    """
    return _notify(environ, "READY=1", _status_line(text))


def status(text: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Set the line that `systemctl status` shows; returns whether systemd took it."""
    return _notify(environ, _status_line(text))


def reloading(monotonic_usec: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell that settings are being read again; `ready` ends it.

    Parameters
    ----------
    monotonic_usec : int
        CLOCK_MONOTONIC now, in microseconds. By it, `Type=notify-reload` (systemd 253) tells the answer to
        its own signal from an earlier one; older versions ignore it.

    Returns
    -------
    bool
        Whether systemd took the message.
    """
    return _notify(environ, "RELOADING=1", f"MONOTONIC_USEC={monotonic_usec}")


def stopping(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell that the last flush has begun; returns whether systemd took the message."""
    return _notify(environ, "STOPPING=1", _status_line("last flush"))


def watchdog(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell that the work loop goes round; called from anywhere else it would prove nothing."""
    return _notify(environ, "WATCHDOG=1")


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two calls of `watchdog`: half of the limit, as sd_watchdog_enabled(3) advises.

    Returns
    -------
    float or None
        Null where no watchdog waits for this process.
    """
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    limit_usec = _whole_number(environ.get("WATCHDOG_USEC"))
    return limit_usec / 2e6 if limit_usec else None


def listen_fds(environ: Mapping[str, str] = os.environ) -> list[int]:
    """Listening sockets that systemd passed to this process, in the order of the socket unit.

    Child processes do not inherit them. Their paths belong to systemd and must never be unlinked.

    Returns
    -------
    list of int
        File descriptors; empty where there was no socket activation.

    Raises
    ------
    OSError
        A promised descriptor is not open.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    fds = list(range(FIRST_PASSED_FD, FIRST_PASSED_FD + _whole_number(environ.get("LISTEN_FDS"))))
    for fd in fds:
        os.set_inheritable(fd, False)  # noqa: FBT003 - it takes no keywords
    return fds


def journal_attached(stream: IO[Any], environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `stream` goes straight to the journal, so that lines may begin with a priority, as in ``<4>``.

    That the variable is set proves nothing: it is inherited by programs whose output was redirected
    (systemd.exec(5), `JOURNAL_STREAM`).
    """
    try:
        target = os.fstat(stream.fileno())
    except (OSError, ValueError):  # a stream without a file below it, or a closed one
        return False
    return environ.get("JOURNAL_STREAM") == f"{target.st_dev}:{target.st_ino}"


def _notify(environ: Mapping[str, str], *lines: str) -> bool:
    """Send one datagram without waiting; see sd_notify(3).

    A failure is neither raised nor logged. What is lost is news about the service, never data; the next line
    replaces it, and if none arrives systemd itself says so and restarts the service. To wait would let a busy
    service manager stop the work loop.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # an abstract socket, unix(7)
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(0)
            sender.sendto("\n".join(lines).encode(errors="replace"), address)
    except OSError:
        return False
    return True


def _status_line(text: str) -> str:
    return "STATUS=" + " ".join(text.splitlines())  # a line break would begin another assignment


def _whole_number(text: str | None) -> int:
    """Zero stands for a variable that is missing or makes no sense."""
    return int(text) if text and text.isascii() and text.isdecimal() else 0
