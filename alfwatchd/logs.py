"""Where log lines go and how they look: plain on a terminal, with a priority prefix for the journal."""

from __future__ import annotations

import logging
import sys

from alfwatchd import systemd

# sd-daemon(3): the journal takes the level from the prefix and adds the time itself.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _JournalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"<{_PRIORITIES.get(record.levelno, 6)}>{super().format(record)}"


def set_up(level: str) -> None:
    """Send log lines to stderr."""
    handler = logging.StreamHandler()
    if systemd.journal_attached(sys.stderr):
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
