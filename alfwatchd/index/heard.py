"""Whether events have told all that happened to the files of a folder since they were last looked at."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from alfwatchd.index.dirty import DirtyMark
from alfwatchd.index.look_queue import Scan

_NOTHING: AbstractSet[str] = frozenset()


class Heard:
    """Owned by one thread. Events are complete from the end of the first scan that began after some were lost."""

    def __init__(self) -> None:
        self._is_complete = True
        self._mending: Scan | None = None

    def lose(self) -> None:
        """Note that events, or marks that were made of them, are lost: any file may have been written to."""
        self._is_complete = False
        self._mending = None

    def begin(self, each: Scan) -> None:
        """Note that a scan is about to begin, or to follow the one that runs."""
        if not self._is_complete and not each.top:
            self._mending = each

    def end(self, each: Scan) -> None:
        """Note that a scan has looked at all that it covers."""
        if each is self._mending:
            self._is_complete, self._mending = True, None

    def unwritten(self, mark: DirtyMark | None) -> AbstractSet[str]:
        """Return the files of a watched folder that were not written to although their change times may be others.

        The kernel tells of each write, and of the end of each mapping that could be written through, before it tells
        of the new attributes. If the writer still holds a mapping, the event of its end is still to come.
        """
        return mark.attributes if mark is not None and self._is_complete else _NOTHING
