"""Notices when readers open the tables, so that a reader gets two files that belong together.

`one.alf.cache.load_tables` opens one file after the other, in the order of the folder, each twice (footer, then rows).
Seconds may lie between: with a million rows it takes four seconds to get from the datasets to the sessions. inotify
tells of each opening as it happens, but not which program opened the file, nor which file it will open next. So each
opening of one file is taken to be followed by an opening of the other one, and a flush waits for it for some time. An
opening of the other file answers the newest one that waits. A program that reads in another order, or only one file,
does no harm; a flush may wait for it in vain. If several programs read at once, the kernel may make one event of two
openings: then openings are not counted, and the flush waits for the whole time.
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
"""Openings of a file, one after the other, by a program that reads it once."""
_CROWDED_SECONDS = 60.0
"""For so long after several programs read at once, others may do so, too."""
UNSEEN_SECONDS = 0.3
"""How long a flush waits for programs that may have opened a file before it was watched."""


class Readers:
    """The programs that read two files of a folder. Used by one thread at a time.

    Readers on other hosts are not noticed. If the kernel refuses a watch, none are: then `last_opened` returns the
    current time, and `wait_for` does not wait.

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
        """Files that were there when the watch began: only these can have been opened unseen."""
        self._watch()

    def close(self) -> None:
        """Remove the watch."""
        if self._closing is not None:
            self._closing()
        self._fd, self._is_watching = None, False

    def look(self) -> None:
        """Note the openings since the last call. Call it often: an opening gets the time of the call."""
        self._note_all(Counter())

    def last_opened(self, name: str) -> float:
        """Return when a file was last opened, at the latest, in seconds on the monotonic clock."""
        self.look()
        return self._opened[name] if self._is_watching else time.monotonic()

    def wait_for(self, name: str, seconds: float) -> None:
        """Wait until the programs that have opened a file by now have opened the other one, too.

        Parameters
        ----------
        name : str
            The file opened first.
        seconds : float
            How long to wait at most, from each opening.
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
        """Ignore one opening of each of these files by this process itself."""
        self._watch()
        self.look()
        try:
            yield
        finally:
            self._note_all(Counter(names))

    def _watch(self) -> None:
        """Watch the folder, or the one that took its place; nothing happens if it is watched already."""
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
        """Note all openings, without those of this process itself."""
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
