"""Notices who opens the tables, so that nobody who reads both gets halves that do not belong together.

`one.alf.cache.load_tables` opens one file after the other, in the order of the folder, each twice (footer, then rows),
and seconds may lie between: with a million rows it takes four to get from the datasets to the sessions. inotify tells
of each opening as it happens, but neither by whom nor what he will open next. So each opening of one file waits for an
opening of the other one, for some time, and the newest is answered first: who reads in another order, or one file
only, does no harm, but that a flush may wait for him in vain. Where several read at once, the kernel may make one event
of two openings: then nobody is counted, and the time is waited for.
"""

from __future__ import annotations

import os
import select
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alfwatchd.watch import inotify

_WATCHED = inotify.IN_OPEN | inotify.IN_ACCESS | inotify.IN_CLOSE_NOWRITE | inotify.IN_ONLYDIR
"""With what comes between two openings, because the kernel makes one event of two equal ones that follow each other."""
_MOST_WAITING = 32
_OF_ONE_READER = 2
"""Openings of a file, one after the other, by who reads it once."""
_CROWDED_SECONDS = 60.0
"""How long after several were seen to read at once, others may."""
UNSEEN_SECONDS = 0.3
"""How long somebody is waited for who may have opened a file before it was watched."""


class Readers:
    """Who reads two files of a folder. Used by one thread at a time.

    Where the kernel refuses a watch, and of readers on other hosts, nothing is noticed: then `last_opened` is always
    now, and nobody waits.

    Parameters
    ----------
    folder : Path
    first, second : str
        Names of the two files.
    """

    def __init__(self, folder: Path, first: str, second: str) -> None:
        self._folder = folder
        self._other = {first: second, second: first}
        self._waiting: dict[str, list[float]] = {first: [], second: []}
        """When a file was opened, at the latest, for each opening that the other one's has not answered."""
        self._opened = dict.fromkeys(self._other, time.monotonic())
        self._crowded_until = 0.0
        self._fd: int | None = None
        self._closing: Callable[[], object] | None = None
        self._is_watching = False
        self._watched_since = 0.0
        self._found: frozenset[str] = frozenset()
        """Files that were there when the watch began: others nobody has opened unseen."""
        self._watch()

    def close(self) -> None:
        """Notice nobody any more."""
        if self._closing is not None:
            self._closing()
        self._fd, self._is_watching = None, False

    def look(self) -> None:
        """Take notice of what happened; the sooner, the better is known when it did."""
        self._note_all(Counter())

    def last_opened(self, name: str) -> float:
        """Return when somebody opened a file, on the monotonic clock, at the latest."""
        self.look()
        return self._opened[name] if self._is_watching else time.monotonic()

    def wait_for(self, name: str, seconds: float) -> None:
        """Wait until nobody who has opened a file by now still needs what the other one holds now.

        Parameters
        ----------
        name : str
            The file opened first.
        seconds : float
            How long anybody is waited for, from that opening.
        """
        self.look()
        began = time.monotonic()
        uncounted = [self._opened[name]] if began < self._crowded_until else []
        if name in self._found:
            time.sleep(max(0.0, self._watched_since + min(seconds, UNSEEN_SECONDS) - began))
        while True:
            self.look()
            asked = [when for when in (*self._waiting[name], *uncounted) if when <= began]
            left = max(asked, default=0.0) + seconds - time.monotonic()
            if self._fd is None or not self._is_watching or not asked or left <= 0:
                return
            select.select([self._fd], [], [], left)

    @contextmanager
    def opening(self, *names: str) -> Iterator[None]:
        """Let an opening of these files by this process itself, no more than one each, go unnoticed."""
        self._watch()
        self.look()
        try:
            yield
        finally:
            self._note_all(Counter(names))

    def _watch(self) -> None:
        """Watch the folder, or that which lies in its place now; nothing happens if it is watched."""
        if self._fd is None:
            try:
                self._fd = inotify.make()
            except OSError:
                return
            self._closing = weakref.finalize(self, os.close, self._fd)
        try:
            inotify.watch_path(self._fd, os.fsencode(self._folder), _WATCHED)
        except OSError:
            self._is_watching = False
            return
        if not self._is_watching:
            self._watched_since = time.monotonic()
            self._opened = dict.fromkeys(self._other, self._watched_since)
            self._found = frozenset(name for name in self._other if os.access(self._folder / name, os.F_OK))
        self._is_watching = True

    def _note_all(self, own: Counter[str]) -> None:
        """Take notice of all that happened, but for what this process itself opened."""
        now = time.monotonic()
        for _, mask, raw_name in inotify.read_events(self._fd) if self._fd is not None else ():
            if mask & inotify.IN_IGNORED:
                self._is_watching = False
            if not mask & (inotify.IN_OPEN | inotify.IN_Q_OVERFLOW):
                continue
            for each in self._other if mask & inotify.IN_Q_OVERFLOW else [os.fsdecode(raw_name)]:
                if own[each] > 0:
                    own[each] -= 1
                elif each in self._other:
                    self._note(each, now)

    def _note(self, name: str, now: float) -> None:
        self._opened[name] = now
        self._waiting[name] = [*self._waiting[name][1 - _MOST_WAITING :], now]
        if len(self._waiting[name]) > _OF_ONE_READER:
            self._crowded_until = now + _CROWDED_SECONDS
        del self._waiting[self._other[name]][-1:]
