"""Sets up logging: plain lines on a terminal, lines with a priority prefix for the journal."""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading

from alfwatchd.addresses import redact
from alfwatchd.service import systemd

# sd-daemon(3): the journal takes the level from the prefix and adds the time itself.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

_log = logging.getLogger(__name__)


class _Formatter(logging.Formatter):
    """Keeps a message on one line, even if it contains a name of a file with line breaks."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        return super().formatMessage(record).replace("\n", r"\n").replace("\r", r"\r")

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))  # tracebacks may hold addresses, too


class _JournalFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _with_priority(record.levelno, super().format(record))


def set_up(level: str) -> None:
    """Send log lines of this level (``debug``, ``info``, ``warning``, ``error``) and above to stderr."""
    handler = logging.StreamHandler()
    if systemd.journal_attached(sys.stderr):
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """Change the lowest level that is logged."""
    logging.getLogger().setLevel(level.upper())


def log_uncaught() -> None:
    """Log uncaught errors of all threads with their traceback, and the stacks of all threads on SIGABRT."""
    faulthandler.enable()  # systemd's watchdog sends SIGABRT to a program that hangs
    sys.excepthook = _log_error
    threading.excepthook = lambda about: _log_error(about.exc_type, about.exc_value, about.exc_traceback, about.thread)


def complain(message: str) -> None:
    """Say on stderr why the program ends: to a person, or to the journal as an error."""
    text = redact(f"alfwatchd: {message}")
    sys.stderr.write((_with_priority(logging.ERROR, text) if systemd.journal_attached(sys.stderr) else text) + "\n")


def _log_error(
    _: type[BaseException], error: BaseException | None, __: object, thread: threading.Thread | None = None
) -> None:
    name = thread.name if thread is not None else "main"
    _log.critical("thread ended by an error thread=%s error=%r", name, error, exc_info=error)


def _with_priority(level: int, text: str) -> str:
    """Give each line its prefix; the journal takes a line without one for information."""
    return "\n".join(f"<{_PRIORITIES.get(level, 6)}>{line}" for line in text.splitlines())
