"""A bounded look at a root in which no session was found: it is empty, or something is there that should be one."""

from __future__ import annotations

import os
from collections import deque

from alfwatchd.alf import other_layouts
from alfwatchd.alf.exclude import Excluded
from alfwatchd.alf.file_names import INFO, ZIP
from alfwatchd.alf.other_layouts import Sight
from alfwatchd.alf.printable import printable
from alfwatchd.alf.set_aside import is_set_aside

_MOST_FOLDERS = 300
_MOST_FILES_OF_A_FOLDER = 20
_OUR_STATE = "state.sqlite"
_OUR_FILES = (".pqt", ".pqt.tmp", ".lock")
_NOTES = (".cfg", ".conf", ".ini", ".log", ".md", ".rst", ".toml", ".txt", ".yaml", ".yml")
"""Ends of names of files that people keep beside data: alone in the top folder, they are no data."""


def look(root: str, excluded: Excluded | None = None) -> str:
    """Say what to do about a root without sessions.

    Parameters
    ----------
    root : str
        Absolute path, links resolved.
    excluded : callable or None
        See `alf.exclude`.

    Returns
    -------
    str
        Empty if nothing is in it but empty folders, our own files, notes, and what is set aside: so a lab begins.
    """
    seen_folders, seen_files = list[str](), list[str]()
    waiting = deque([""])
    while waiting and len(seen_folders) < _MOST_FOLDERS:
        here = waiting.popleft()
        folders, files = _list(root, here)
        if _OUR_STATE in files:
            continue
        prefix = f"{here}/" if here else ""
        kept = [prefix + name for name in files if not _is_ours(name) and (here or not name.endswith(_NOTES))]
        seen_files += [path for path in kept if excluded is None or not excluded(path)][:_MOST_FILES_OF_A_FOLDER]
        inner = [prefix + name for name in folders if not is_set_aside(name)]
        inner = [path for path in inner if excluded is None or not excluded(f"{path}/")]
        seen_folders += inner
        waiting += inner
    return printable(other_layouts.advise(root, Sight(seen_folders, seen_files))) if seen_files else ""


def _list(root: str, folder: str) -> tuple[list[str], list[str]]:
    """Return the names of the folders in a folder, and of all else; a link counts as a file."""
    folders, files = list[str](), list[str]()
    try:
        with os.scandir(f"{root}/{folder}") as entries:
            for entry in entries:
                (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    except OSError:  # the scan has told of it
        return [], []
    return sorted(folders), sorted(files)


def _is_ours(name: str) -> bool:
    return name.startswith(".") or name.endswith(_OUR_FILES) or name in (INFO, ZIP)
