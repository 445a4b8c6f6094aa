"""inotify -> messages. The only importer of watchdog, and of its `InotifyFD` only.

watchdog's recursive observer loses folders without an error (docs/design/watching.md), so only the layer below it is
used: descriptor and reader thread. `tree.watch_claims` knows which watch stands for which folder. `InotifyFD` has no
documented stability; ``tests/watch/test_watcher.py`` tests what this module relies on.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from watchdog.observers.inotify_c import InotifyFD

from alfwatchd import threads
from alfwatchd.errors import NoThreads, WatchError, WatchLimit
from alfwatchd.watch import inotify
from alfwatchd.watch.events import EventsLost, EventsRead, FolderEvents, PathsChanged

_GONE = inotify.IN_IGNORED | inotify.IN_UNMOUNT
_SELF = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF
_WENT = inotify.IN_DELETE | inotify.IN_MOVED_FROM
_WRITTEN = inotify.IN_MODIFY | inotify.IN_CLOSE_WRITE
_BUFFER_SIZE = 1 << 20
"""Room for all that the kernel keeps: 16,384 events of 32 to 64 bytes, unless names are longer than 32 bytes."""
REST_SECONDS = 0.01
"""How long the reader lets events gather after each read."""
_RESTLESS_SIZE = 1 << 16
"""Bytes in one read, of some 1,300 events, above which events come too fast for a rest: the kernel keeps 16,384."""

Post = Callable[[EventsRead | EventsLost], None]


class Watcher:
    """One inotify descriptor with its reader thread.

    Parameters
    ----------
    post : callable
        Gets `EventsRead` and `EventsLost`, in the reader thread; must be quick and never raise.
    cookie_dir : Path
        Private folder whose new files are sync cookies; it must be on a local file system. Removed at the end.

    Raises
    ------
    WatchLimit
        No inotify instance is left for this user.
    WatchError
        The cookie folder cannot be made or watched, inotify is denied, or no thread can be started.
    """

    def __init__(self, post: Post, cookie_dir: Path) -> None:
        self._cookie_dir = cookie_dir
        try:
            self._reader = _Reader(post)
        except OSError as error:
            raise _no_instance(error) from error
        try:
            self._make_cookie_dir()
        except OSError as error:
            self._reader.close_descriptors()
            if error.errno == errno.ENOSPC and cookie_dir.is_dir():
                raise inotify.limit_reached() from error
            raise WatchError(f"{cookie_dir}: cannot watch the folder of sync cookies: {error.strerror}") from error
        try:
            threads.begin(self._reader)
        except NoThreads as error:
            self._reader.close_descriptors()
            raise WatchError(str(error)) from error

    def add(self, fd: int) -> int:
        """Watch an open folder.

        Adding goes through the descriptor, so that the folder that is watched is the one that will be listed.

        Returns
        -------
        int
            Watch descriptor; the same one again for a folder that is watched already.

        Raises
        ------
        WatchLimit
            The user's limit of watches is reached.
        WatchError
            The folder cannot be watched.
        """
        return inotify.watch_folder(self._reader.fd, fd)

    def remove(self, wd: int) -> None:
        """Stop watching; a descriptor that the kernel has removed already is fine."""
        inotify.remove_watch(self._reader.fd, wd)

    @property
    def inotify_fd(self) -> int:
        """The descriptor, for worker processes that add watches to it."""
        return self._reader.fd

    @property
    def is_alive(self) -> bool:
        """Whether the reader thread runs."""
        return bool(self._reader.is_alive())

    def drop_cookie(self, name: str) -> None:
        """Make and remove a sync cookie: when `PathsChanged` brings its name, all earlier events have come.

        Raises
        ------
        WatchError
            The file cannot be made.
        """
        cookie = self._cookie_dir / name
        try:
            try:
                self._watch_cookies()  # again each time: another process may have removed the folder
            except (FileNotFoundError, NotADirectoryError):
                self._make_cookie_dir()
            cookie.unlink(missing_ok=True)  # left by a process that was killed: nothing would be made
            cookie.touch(exist_ok=False)
            cookie.unlink(missing_ok=True)
            self._reader.hurry()
        except OSError as error:
            raise WatchError(f"{cookie}: cannot make a sync cookie: {error.strerror}") from error

    def watched_inodes(self) -> dict[int, int]:
        """Return watch descriptor -> inode as the kernel has them (proc(5), fdinfo); the cookie folder is left out."""
        found = {}
        for line in Path(f"/proc/self/fdinfo/{self._reader.fd}").read_text().splitlines():
            if line.startswith("inotify "):
                fields = dict(field.split(":", 1) for field in line.split()[1:])
                found[int(fields["wd"], 16)] = int(fields["ino"], 16)
        found.pop(self._reader.cookie_wd, None)
        return found

    def close(self) -> None:
        """Stop the reader and remove all watches. Events that were read before may still be parsed."""
        self._reader.stop()
        self._reader.hurry()
        self._reader.join()
        self._reader.close_descriptors()
        with suppress(OSError):
            self._cookie_dir.rmdir()

    def _make_cookie_dir(self) -> None:
        """Make and watch the folder; a file or a link in its place is removed."""
        if self._cookie_dir.is_symlink() or not self._cookie_dir.is_dir():
            self._cookie_dir.unlink(missing_ok=True)
            self._cookie_dir.mkdir(parents=True, mode=0o700)
        self._watch_cookies()

    def _watch_cookies(self) -> None:
        if self._cookie_dir.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self._cookie_dir))
        self._reader.cookie_wd = inotify.watch_path(self._reader.fd, bytes(self._cookie_dir))


class _Reader(InotifyFD):  # type: ignore[misc]
    """Reads events in its own thread and posts them; joins them per folder in the thread that parses them."""

    def __init__(self, post: Post) -> None:
        super().__init__()
        self._post = post
        self._is_open = True
        self._hurry = threading.Event()
        self.cookie_wd = -1
        self.name = "watcher"

    @property
    def fd(self) -> int:
        return int(self._inotify_fd)

    def hurry(self) -> None:
        """End a rest, so that what is there now is read at once. Any thread may call."""
        self._hurry.set()

    def close_descriptors(self) -> None:
        """Close the descriptors of a reader that never began or ended by itself. Call this only after its end."""
        self._close_resources()

    def _close_resources(self) -> None:
        # Whether `InotifyFD` does this depends on where the reader ended. Twice would close what others opened since.
        if self._is_open:
            self._is_open = False
            super()._close_resources()

    def run(self) -> None:
        try:
            while self.should_keep_running():
                buffer = self._read_event_buffer(_BUFFER_SIZE)
                if buffer:
                    self._post(EventsRead(buffer, self._parse))
                    if len(buffer) < _RESTLESS_SIZE:
                        self._rest()
        except Exception as error:  # noqa: BLE001 - whatever ends the reader must not do so in silence
            self._post(EventsLost(f"the reader of events died: {error!r}", reader_alive=False))

    def _rest(self) -> None:
        """Let more events gather, unless a cookie was dropped.

        An event that comes after a rest is delivered at once. With 5,000 new files per second, a rest of 10 ms makes
        100 messages of what were some 6,000, each of which woke the engine: 7 us of CPU per event instead of 28.
        """
        self._hurry.wait(REST_SECONDS)
        self._hurry.clear()

    def _parse(self, buffer: bytes) -> list[PathsChanged | EventsLost]:
        """Return what a buffer of the kernel tells, joined per folder."""
        lost: list[PathsChanged | EventsLost] = []
        folders: dict[int, FolderEvents] = {}
        cookies: list[str] = []
        unwatched: list[int] = []
        n_events = 0
        for wd, mask, name in inotify.parse(buffer):
            if mask & inotify.IN_Q_OVERFLOW:
                lost.append(EventsLost("overflow of the kernel's event queue"))
            elif wd == self.cookie_wd:
                if mask & inotify.IN_CREATE:
                    cookies.append(os.fsdecode(name))
            elif mask & _GONE:
                unwatched.append(wd)
            else:
                n_events += 1
                events = folders.get(wd)
                if events is None:
                    events = folders[wd] = FolderEvents()
                _add_event(events, mask, name)
        return [*lost, PathsChanged(folders, tuple(cookies), tuple(unwatched), n_events)]


def _no_instance(error: OSError) -> WatchError:
    """Return the error for a kernel that gives no inotify descriptor."""
    if error.errno == errno.EMFILE:
        return WatchLimit(
            f"no inotify instance is left: {error.strerror}; raise fs.inotify.max_user_instances with sysctl, or the "
            "limit of open files"
        )
    return WatchError(
        f"inotify is not available: {error.strerror}; if a sandbox or container denies it, allow the system call "
        "inotify_init1 there"
    )


def _add_event(events: FolderEvents, mask: int, name: bytes) -> None:
    """Note an event about a name in a folder, or about the folder itself."""
    if mask & (inotify.IN_ISDIR | _SELF) or not name:
        events.listing = True
        if mask & _WENT:
            events.gone.add(os.fsdecode(name))
        return
    text = os.fsdecode(name)
    if not mask & inotify.IN_ATTRIB:
        events.attributes.discard(text)
    elif text not in events.names:
        events.attributes.add(text)
    events.names.add(text)
    if mask & _WRITTEN:
        events.rewritten.add(text)
