"""Keeps the chain of events alive: makes watchers, drops sync cookies, and beats a heart through the whole chain."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

from alfwatchd.errors import WatchError
from alfwatchd.indexer import Indexer
from alfwatchd.watcher import Watcher

_log = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 30.0


class Watching:
    """The watcher of an indexer and the proof that it works.

    Parameters
    ----------
    indexer : Indexer
        Its `watcher` is set here and nowhere else.
    new_watcher : callable or None
        Makes a watcher; None where nothing is to be watched.
    """

    def __init__(self, indexer: Indexer, new_watcher: Callable[[], Watcher] | None) -> None:
        self._indexer = indexer
        self._new_watcher = new_watcher
        self._names = itertools.count()
        self._heartbeat = ""
        self._since = 0.0

    @property
    def is_on(self) -> bool:
        """Whether events arrive, as far as known."""
        return self._indexer.watcher is not None

    def renew(self, now: float) -> None:
        """Build the chain anew; a scan of everything must follow, which arms the watches."""
        self.close()
        self._heartbeat, self._since = "", now
        if self._new_watcher is None:
            return
        try:
            self._indexer.watcher = self._new_watcher()
        except WatchError as error:
            if self._indexer.watch_problem != str(error):
                _log.error("nothing is watched, polling instead error=%s", error)
            self._indexer.watch_problem = str(error)

    def drop_cookie(self) -> str:
        """Drop a sync cookie and return its name, by which `PathsChanged` will tell that it came back.

        Raises
        ------
        WatchError
            It cannot be made.
        """
        if self._indexer.watcher is None:
            raise WatchError("nothing is watched")
        name = f"c{next(self._names)}"
        self._indexer.watcher.drop_cookie(name)
        return name

    def take_cookie(self, name: str) -> None:
        """Note that a cookie came back."""
        if name == self._heartbeat:
            self._heartbeat = ""

    def beat(self, now: float) -> str:
        """Beat the heart if it is time.

        Returns
        -------
        str
            Why everything must be scanned; empty if all is well. The chain was built anew then.
        """
        if now - self._since < _HEARTBEAT_SECONDS:
            return ""
        if not self.is_on:
            self.renew(now)
            return "watching begins again" if self.is_on else ""
        if self._heartbeat:
            self.renew(now)
            return "the heartbeat of the watcher did not come back"
        self._since = now
        try:
            self._heartbeat = self.drop_cookie()
        except WatchError as error:
            _log.warning("no heartbeat error=%s", error)
        return ""

    def close(self) -> None:
        """End the watcher."""
        if self._indexer.watcher is not None:
            self._indexer.watcher.close()
            self._indexer.watcher = None
            self._indexer.tree.forget_all_watches()
