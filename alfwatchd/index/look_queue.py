"""Which folder is looked at next: urgent looks first, then those of the scan that runs, if one does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from alfwatchd.alf.grammar import Kind
from alfwatchd.index.dirty import DirtyMark
from alfwatchd.tree.folder import Changes, Folder


@dataclass(slots=True)
class Ticket:
    """A place in the queue: once it is `done`, all that was queued before it has been looked at."""

    done: bool = False


@dataclass(slots=True)
class Scan:
    """One scan of the whole tree, or of one folder and all below it.

    Parameters
    ----------
    reason : str
        For status and log.
    started : float
        On the caller's clock, in seconds.
    paced : bool
        Whether it may take its time, so as not to disturb.
    """

    reason: str
    started: float
    paced: bool = False
    top: str = ""
    """Path of the folder, relative to the root."""
    seconds: float | None = None
    """How long it took, once it is done."""
    changes: Changes = field(default_factory=Changes)
    done: bool = False


@dataclass(slots=True, eq=False)
class Look:
    """Look at a folder: at what its mark names, or at the whole; `deep` for all below it, too."""

    folder: Folder
    is_urgent: bool
    deep: bool = False
    mark: DirtyMark | None = None
    is_unit: bool = False
    """Whether it may be crawled, with all below it, in any order and by any process."""


class LookQueue:
    """The queues. Owned by one thread."""

    def __init__(self) -> None:
        self.current: Scan | None = None
        self.scans: deque[Scan] = deque(maxlen=10)
        """The last ones, the running one included."""
        self._next: Scan | None = None
        self._urgent: deque[Look | Ticket] = deque()
        self._background: deque[Look] = deque()
        self._out: set[Look] = set()
        """Units that worker processes read."""

    @property
    def is_waiting(self) -> bool:
        """Whether anything is to be looked at, here or by worker processes."""
        return bool(self._urgent or self._background or self._out)

    @property
    def is_ready(self) -> bool:
        """Whether anything is to be looked at here."""
        return bool(self._urgent or self._background)

    @property
    def is_last(self) -> bool:
        """Whether all units of the scan that are left are being read by workers."""
        return not self._background

    @property
    def is_urgent(self) -> bool:
        """Whether anything other than a paced scan is to be looked at."""
        pass_goes_on = bool(self._background or self._out)
        return bool(self._urgent or (pass_goes_on and self.current is not None and not self.current.paced))

    @property
    def unpaced_scans(self) -> list[Scan]:
        """The scans that run or follow at full speed."""
        return [each for each in (self.current, self._next) if each is not None and not each.paced]

    @property
    def is_caught_up(self) -> bool:
        """Whether nothing urgent is to be looked at before the next ticket, if there is one."""
        return not self._urgent or isinstance(self._urgent[0], Ticket)

    def is_paced(self, look: Look) -> bool:
        """Tell whether a look is part of a scan that may take its time."""
        return not look.is_urgent and self.current is not None and self.current.paced

    def add(self, folders: Iterable[tuple[Folder, DirtyMark | None]]) -> None:
        """Queue urgent looks; without a mark, a folder is looked at with all below it."""
        self._urgent.extend(Look(folder, is_urgent=True, deep=mark is None, mark=mark) for folder, mark in folders)

    def add_ticket(self) -> Ticket:
        """Take a place behind all urgent looks."""
        ticket = Ticket()
        self._urgent.append(ticket)
        return ticket

    def follow(self, look: Look, folders: Iterable[Folder]) -> None:
        """Queue what a look revealed, with all below it, in front of everything else of its kind."""
        if look.is_urgent:
            self._urgent.extendleft(reversed([Look(folder, is_urgent=True, deep=True) for folder in folders]))
            return
        is_full_speed = not self.is_paced(look)
        found = [
            Look(folder, is_urgent=False, deep=True, is_unit=is_full_speed and folder.kind is Kind.DATE)
            for folder in folders
        ]
        self._background.extendleft(reversed(found))

    def hand_out(self, look: Look) -> None:
        """Note that a worker process reads a unit."""
        self._out.add(look)

    def note_returned(self, look: Look) -> bool:
        """Note that a worker returned a unit, read or not; return False if its scan is over or was given up."""
        if look not in self._out:
            return False
        self._out.remove(look)
        return True

    def put_back(self, folders: Iterable[Folder]) -> None:
        """Queue what could not be crawled, to be looked at folder by folder."""
        self._background.extend(Look(folder, is_urgent=False, deep=True) for folder in folders)

    def look_again(self, folder: Folder, now: float) -> None:
        """List a folder next."""
        self._urgent.appendleft(Look(folder, is_urgent=True, mark=DirtyMark(now, now, listing=True)))

    def retry(self, look: Look, now: float) -> None:
        """List the parent of a folder next, and then the folder itself, whatever its mark names."""
        again = Look(look.folder, look.is_urgent or self.is_paced(look), look.deep, look.mark)
        if again.mark is not None:
            again.mark.listing = True
        (self._urgent if again.is_urgent else self._background).appendleft(again)
        if look.folder.parent is not None:
            self.look_again(look.folder.parent, now)

    def start_scan(self, new: Scan, root: Folder, top: Folder) -> Scan:
        """Begin a scan, or let exactly one more follow the one that runs; return the one that serves for both."""
        if self.current is None or (self.current.paced and not new.paced):
            self._begin(new, top)
            return new
        if self._next is None:
            self._next, self._next_top = new, top
        else:
            self._next.paced &= new.paced
            if self._next_top is not top:
                self._next.top, self._next_top = "", root
        return self._next

    def next_look(self, *, background: bool) -> Look | None:
        """Remove and return the next look; None if nothing is waiting."""
        while self._urgent:
            look = self._urgent.popleft()
            if isinstance(look, Look):
                return look
            look.done = True
        return self._background.popleft() if background and self._background else None

    def end_scan(self, now: float) -> Scan | None:
        """End the scan that runs, if nothing of it is left, begin the next, and return the one that ended."""
        ended = self.current
        if ended is None or self._background or self._out:
            return None
        ended.done, ended.seconds = True, now - ended.started
        self.current, following = None, self._next
        self._next = None
        if following is not None:
            following.started = now
            self._begin(following, self._next_top)
        return ended

    def clear(self) -> None:
        """Forget everything; a scan must follow."""
        self._urgent.clear()
        self._background.clear()
        self._out.clear()
        self._give_up_current()
        self._next = None

    def _give_up_current(self) -> None:
        """Leave no scan among the last ones that seems to run for ever."""
        if self.current is not None and self.current in self.scans:
            self.scans.remove(self.current)
        self.current = None

    def _begin(self, new: Scan, top: Folder) -> None:
        self._give_up_current()
        self.current = new
        self.scans.append(new)
        self._background.clear()
        self._out.clear()
        self._background.append(Look(top, is_urgent=False, deep=True))
