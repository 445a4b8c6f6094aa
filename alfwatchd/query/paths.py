"""Finds the folders of sessions: the tables tell lab and number, and the disk how the folder is called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from alfwatchd.query.sessions import SessionRow


class SessionFolders:
    """Finds folders of sessions below a root.

    Parameters
    ----------
    root : Path or None
        None if it is not known. Then, and if there is no such folder, nothing is looked at.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root if root is not None and root.is_dir() else None
        self._has_labs = cache(lambda lab: _is_there(f"{self._root}/{lab}/Subjects"))

    def find(self, session: SessionRow) -> str:
        """Return the path of a session relative to the root.

        It is the path by which ONE looks for the session, unless only another one is on the disk: without the lab,
        which may come from the setting `lab`, or with a number that has no zeros in front.
        """
        usual = f"{session.subject}/{session.date}/{session.number:03d}"
        if session.lab:
            usual = f"{session.lab}/Subjects/{usual}"
        if self._root is None or _is_there(f"{self._root}/{usual}"):
            return usual
        return next((path for path in self._others(session) if _is_there(f"{self._root}/{path}")), usual)

    def _others(self, session: SessionRow) -> Iterator[str]:
        has_labs = bool(session.lab) and self._has_labs(session.lab)
        above = f"{session.lab}/Subjects/{session.subject}" if has_labs else session.subject
        for number in (f"{session.number:03d}", f"{session.number}", f"{session.number:02d}"):
            yield f"{above}/{session.date}/{number}"


def stays_below(path: str) -> bool:
    """Tell whether a path from a table, which any program may have written, stays below what it is relative to."""
    return all(part not in ("", ".", "..") for part in path.split("/"))


def _is_there(path: str) -> bool:
    return os.access(path, os.F_OK)
