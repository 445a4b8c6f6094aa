"""Keeps events coming: makes the watcher, adds watches, drops sync cookies, and proves by a heartbeat that it works."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable

from alfwatchd.errors import WatchError, WatchLimit
from alfwatchd.tree.folder import NOT_WATCHED, Folder
from alfwatchd.tree.rows import Problem
from alfwatchd.tree.watch_claims import Claims
from alfwatchd.watch.watcher import Watcher

_log = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 15.0
"""A broken chain is noticed after twice as long at the latest."""


class WatchSupervisor:
    """The watcher, the folders that it watches, and the proof that it works. Engine's thread only.

    Parameters
    ----------
    new_watcher : callable or None
        Makes a watcher; None if nothing is to be watched.
    """

    def __init__(self, new_watcher: Callable[[], Watcher] | None = None) -> None:
        self.claims = Claims()
        self.unwatched: set[Folder] = set()
        """Folders that should be watched and are not."""
        self.problem = ""
        """Why folders are not watched, and what to do; empty if all is well."""
        self.n_renewed = 0
        """How often the chain was rebuilt: watch descriptors from before the last time mean nothing now."""
        self._new_watcher = new_watcher
        self._watcher: Watcher | None = None
        self._names = itertools.count()
        self._heartbeat = ""
        self._since = 0.0

    @property
    def is_on(self) -> bool:
        """Whether events arrive, as far as known."""
        return self._watcher is not None

    @property
    def inotify_fd(self) -> int:
        """Descriptor by which worker processes add watches; -1 where nothing is watched."""
        return self._watcher.inotify_fd if self._watcher is not None else -1

    def renew(self, now: float) -> None:
        """Rebuild the chain. A scan of everything must follow: it adds the watches."""
        self.close()
        self.n_renewed += 1
        self._heartbeat, self._since = "", now
        if self._new_watcher is None:
            return
        try:
            self._watcher = self._new_watcher()
            self.problem = ""
        except WatchError as error:
            if self.problem != str(error):
                _log.error("nothing is watched, polling instead error=%s", error)
            self.problem = str(error)

    def close(self) -> None:
        """End the watcher."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        self.claims.forget_all()
        self.unwatched.clear()

    def arm(self, folder: Folder, fd: int) -> None:
        """Watch an open folder; to be done before it is listed."""
        if self._watcher is None:
            return
        try:
            wd = self._watcher.add(fd)
        except WatchError as error:
            if not self.problem:
                _log.warning("folder not watched, polled instead path=%r error=%s", folder.path, error)
            if isinstance(error, WatchLimit) or not self.problem:
                self.problem = str(error)
            self.unwatched.add(folder)
            freed = self.claims.unclaim(folder)  # what it may have is the watch of what was there before
            if freed is not None:
                self.release([freed])
        else:
            self.claim(folder, wd)

    def claim(self, folder: Folder, wd: int) -> None:
        """Note that a folder is watched, here or by a worker process."""
        if wd == NOT_WATCHED:
            return
        freed = self.claims.claim(folder, wd)
        if self.unwatched and folder in self.unwatched:
            self.forget_unwatched([folder])
        if freed is not None:
            self.release([freed])

    def release_unclaimed(self, wd: int) -> None:
        """Remove a watch of a worker process if no folder claims it."""
        if wd != NOT_WATCHED and not self.claims.watched_by(wd):
            self.release([wd])

    def forget_unwatched(self, folders: Iterable[Folder]) -> None:
        """Note that folders are watched after all, or gone."""
        was_incomplete = bool(self.unwatched)
        self.unwatched.difference_update(folders)
        if was_incomplete and not self.unwatched:
            self.problem = ""

    def release(self, freed: list[int]) -> None:
        """Remove watches that no folder claims any more."""
        if self._watcher is not None:
            for wd in freed:
                self._watcher.remove(wd)

    def problems(self) -> list[Problem]:
        """Return what a person should do to have everything watched."""
        if not self.problem:
            return []
        what = f"{len(self.unwatched)} folders are" if self.is_on else "all folders are"
        return [Problem("not_watched", "", f"{what} not watched: {self.problem}")]

    def drop_cookie(self) -> str:
        """Drop a sync cookie and return its name. `PathsChanged` holds this name when the cookie comes back.

        Raises
        ------
        WatchError
            It cannot be made.
        """
        if self._watcher is None:
            raise WatchError("nothing is watched")
        name = f"c{next(self._names)}"
        self._watcher.drop_cookie(name)
        return name

    def cookie_returned(self, name: str) -> None:
        """Note that a cookie came back."""
        if name == self._heartbeat:
            self._heartbeat = ""

    def excuse_heartbeat(self) -> None:
        """Forget the heartbeat: its cookie may be among lost events. Their message shows that the chain works."""
        self._heartbeat = ""

    def beat(self, now: float) -> str:
        """Check by the heartbeat that events arrive, and rebuild the chain if they do not.

        Returns
        -------
        str
            Why everything must be scanned; empty if all is well. If not empty, the chain was rebuilt.
        """
        if self._watcher is not None and not self._watcher.is_alive:
            self.renew(now)
            return "the reader of events ended"
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

    def audit(self) -> list[str]:
        """Compare the watches with those that the kernel has. Only tests call this.

        Returns
        -------
        list of str
            One line per difference: a folder without its watch, a watch on another inode, a watch of no folder.
        """
        if self._watcher is None:
            return []
        kernel = self._watcher.watched_inodes()
        wrong = [f"stale watch {wd}" for wd in kernel if not self.claims.watched_by(wd)]
        for wd in self.claims:
            wrong += [
                f"{folder.path}: inode {folder.ino}, but watch {wd} is on {kernel.get(wd)}"
                for folder in self.claims.watched_by(wd)
                if kernel.get(wd) != folder.ino
            ]
        return wrong
