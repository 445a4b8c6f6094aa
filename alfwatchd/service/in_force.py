"""The settings in force in a running daemon, and which of them a reload can change."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from alfwatchd.errors import ConfigError
from alfwatchd.service import logs, systemd
from alfwatchd.settings import Settings

_log = logging.getLogger(__name__)

# A change of one of these needs a new process: they decide where the daemon lives and what threads it has.
NEEDS_RESTART = (
    "root",
    "out_dir",
    "state_dir",
    "socket",
    "namespace",
    "follow_links",
    "hash_files",
    "hash_threads",
    "scan_workers",
    "watch",
    "journal",
    "control",
    "adopt",
    "serve",
    "publish",
)


class InForce:
    """The settings in force. SIGHUP replaces those that a running process can change."""

    def __init__(self, settings: Settings, load: Callable[[], Settings], service: systemd.Service) -> None:
        self.settings = settings
        self._load = load
        self._service = service

    def read_again(self) -> Settings:
        """Read the settings, and return those in force from now on. An `AlfwatchdError` keeps the old ones."""
        self._service.begin_reload(time.monotonic_ns() // 1000)
        try:
            new = self._load()
        except OSError as error:  # a relative path needs the current folder, which may have been removed
            raise ConfigError(f"the settings cannot be read: {error}") from error
        logs.set_level(new.log_level)
        for key in NEEDS_RESTART:
            if getattr(new, key) != getattr(self.settings, key):
                _log.warning("setting needs a restart to change key=%s", key)
        self.settings = new.model_copy(update={key: getattr(self.settings, key) for key in NEEDS_RESTART})
        return self.settings
