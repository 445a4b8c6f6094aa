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
"""For each status, systemd sends a message to every program that watches the unit."""


class Service:
    """What the loop that does the work tells systemd, once in each round. That loop's thread only.

    A message that systemd does not take, because it is busy, is sent again in the next round.
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
        """Feed the watchdog if it is time, also during a long step of the engine; return what `tell` returns."""
        if self._interval is None:
            return math.inf
        if now >= self._ping_due:
            is_taken = watchdog(self._environ)
            self._ping_due = now + (self._interval if is_taken else self._interval / 10)
        return self._ping_due - now

    def _tell_reload(self) -> bool:
        """Tell that a reload began, if systemd has not received that yet."""
        if self._reload_usec is not None and reloading(self._reload_usec, self._environ):
            self._reload_usec = None
        return self._reload_usec is None


def ready(text: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell that starting, or a reload, is over; `text` is one line for people.

    Returns
    -------
    bool
        Whether systemd took the message. It waits for this one: if not, and `NOTIFY_SOCKET` is set, send it again.
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
    """Tell that the work loop runs. Only that loop may call this: from another thread it would prove nothing."""
    return _notify(environ, "WATCHDOG=1")


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return the seconds between two calls of `watchdog`: half of the limit, as sd_watchdog_enabled(3) advises.

    Returns
    -------
    float or None
        None if no watchdog waits for this process.
    """
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    limit_usec = _whole_number(environ.get("WATCHDOG_USEC"))
    return limit_usec / 2e6 if limit_usec else None


def listen_fds(environ: Mapping[str, str] = os.environ) -> list[int]:
    """Return the listening sockets that systemd passed to this process, in the order of the socket unit.

    Child processes do not inherit them. Their paths belong to systemd and must never be unlinked.

    Returns
    -------
    list of int
        File descriptors; empty without socket activation.

    Raises
    ------
    OSError
        A descriptor that the environment names is not open.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    fds = list(range(FIRST_PASSED_FD, FIRST_PASSED_FD + _whole_number(environ.get("LISTEN_FDS"))))
    for fd in fds:
        os.set_inheritable(fd, False)  # noqa: FBT003 - it takes no keywords
    return fds


def journal_attached(stream: IO[Any], environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a stream goes directly to the journal, so that lines may begin with a priority, as in ``<4>``.

    The variable `JOURNAL_STREAM` alone proves nothing: programs whose output was redirected inherit it
    (systemd.exec(5)).
    """
    try:
        target = os.fstat(stream.fileno())
    except (OSError, ValueError):  # a stream without a file below it, or a closed one
        return False
    return environ.get("JOURNAL_STREAM") == f"{target.st_dev}:{target.st_ino}"


def _notify(environ: Mapping[str, str], *lines: str) -> bool:
    """Send one datagram without waiting; see sd_notify(3).

    Return whether it was sent. A failure is neither raised nor logged: only news about the service is lost, never data.
    The next message replaces it; if none arrives, systemd itself reports that and restarts the service. Waiting here
    would let a busy service manager stop the work loop.
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
    """Return the number in a variable; 0 if it is missing or not a number."""
    return int(text) if text and text.isascii() and text.isdecimal() else 0
