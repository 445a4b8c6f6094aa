"""Online and offline: whether the root is still the folder, on the disk, that the rows belong to."""

from __future__ import annotations

import logging

from alfwatchd.engine.model import EngineModel
from alfwatchd.engine.schedule import Timers
from alfwatchd.errors import RootOffline

_log = logging.getLogger(__name__)

OFFLINE_RETRY_SECONDS = 5.0
"""How often the daemon looks whether an offline root is back."""
_MOUNT_CHECK_SECONDS = 1.0


class Root:
    """Looks at the root and the mounts below it, and takes the engine offline and online. Engine's thread only.

    Times are on the engine's clock, in seconds.

    Parameters
    ----------
    model : EngineModel
        Begins offline.
    """

    def __init__(self, model: EngineModel) -> None:
        self._model = model
        self._guard = model.indexer.guard
        self._n_mount_changes = self._guard.n_mount_changes
        self._timers = Timers()
        self._timers.make_due("root", 0.0)

    # For requests.

    def require_online(self) -> None:
        """Raise `RootOffline` if the root was offline at the last look."""
        if self._model.offline:
            raise self._error()

    def require(self, now: float) -> None:
        """Look at the root and its mounts now; raise `RootOffline` if the root is gone or another one."""
        self.look(now)
        if self._model.offline:
            self._timers.make_due("root", now)
            self.try_again(now)
        self.require_online()

    def look(self, now: float) -> None:
        """Look at the root and its mounts now; go offline if the root is gone or another one."""
        if self._model.offline:
            return
        self._look_at_mounts()
        try:
            self._guard.check()
        except RootOffline as error:
            self.go_offline(str(error), now)

    # For the loop.

    def look_at_mounts_if_due(self, now: float) -> None:
        """Have everything scanned if something was mounted or unmounted since the last look."""
        if self._timers.is_due("mounts", now, _MOUNT_CHECK_SECONDS):
            self._look_at_mounts()

    def try_again(self, now: float) -> None:
        """Open an offline root if it is back. Looks every few seconds, and at once when something is mounted."""
        if self._have_mounts_changed():
            self._timers.make_due("root", now)
        if not self._timers.is_due("root", now, OFFLINE_RETRY_SECONDS):
            return
        try:
            self.open(now)
        except RootOffline as error:
            if str(error) != self._model.offline:
                _log.error("root offline, rows are kept reason=%s", error)
            self._model.stay_offline(str(error))

    def open(self, now: float, *, accept: bool = False) -> None:
        """Go online and begin to scan.

        Parameters
        ----------
        now : float
        accept : bool
            Whether to accept the current root even if it is a different disk or folder than last time.

        Raises
        ------
        RootOffline
            The root is missing, or another disk or folder than before.
        """
        indexer = self._model.indexer
        indexer.open_root(accept=accept)
        if indexer.scans_done:
            _log.info("root online root=%s", self._model.settings.root)
        self._model.go_online()
        if not indexer.watch.is_on:
            indexer.watch.renew(now)
        indexer.start_scan("root is back" if indexer.scans_done else "start", now)

    def go_offline(self, reason: str, now: float) -> None:
        """Keep all rows as they are, forget the work that is queued, and refuse the requests that wait."""
        _log.error("root offline, rows are kept reason=%s", reason)
        self._model.go_offline(reason)
        self._model.indexer.forget_work()
        self._model.forget_wanted_scan()
        self._timers.make_due("root", now)
        self._model.barriers.fail_all(self._error())

    def _error(self) -> RootOffline:
        return RootOffline(
            f"{self._model.offline}; offline since {self._model.offline_since}: its rows are kept, and the daemon "
            "continues by itself when the root is back"
        )

    def _look_at_mounts(self) -> None:
        if self._have_mounts_changed() and not self._model.pending_scan:
            self._model.want_scan("mounts changed")

    def _have_mounts_changed(self) -> bool:
        self._guard.poll_mounts()
        have_changed = self._guard.n_mount_changes != self._n_mount_changes
        self._n_mount_changes = self._guard.n_mount_changes
        return have_changed
