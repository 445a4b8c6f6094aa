"""Whole subtrees -> listings: each folder is opened through its parent, watched, then listed.

A full scan is made of units, the date folders, which can be read in any order and by any process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from alfwatchd.errors import WatchError
from alfwatchd.scan.scanner import Scanner, open_below, open_folder
from alfwatchd.tree.folder import NOT_LISTED, NOT_WATCHED, Folder, Listing

_LONGEST_PATH = 4095
"""In bytes, without the closing NUL: PATH_MAX of Linux."""
_MOST_LEVELS = 24
"""Each level keeps a folder open, and a process may open few files. The caller looks at deeper folders."""

Arm = Callable[[int], int]
"""Watches an open folder and returns the watch descriptor; may raise `WatchError`."""


class Found(NamedTuple):
    """One folder that was read.

    Parameters
    ----------
    parent : int
        Place of its parent among the folders found before it, from 0; -1 for the folder that the crawl began with.
    name : str
    wd : int
        Watch descriptor, or `NOT_WATCHED`.
    listing : Listing or None
        None if the folder could be watched and then not listed.
    """

    parent: int
    name: str
    wd: int
    listing: Listing | None


class _Level(NamedTuple):
    """An open folder whose sub-folders are being read; `length` is that of its path, in bytes."""

    number: int
    fd: int
    folder: Folder
    length: int
    names: Iterator[str]


def not_watched(_: int) -> int:
    """Watch nothing."""
    return NOT_WATCHED


def crawl(scanner: Scanner, top: Folder, arm: Arm = not_watched) -> Iterator[Found]:
    """Read a folder and all below it, each folder before its sub-folders.

    Folders that cannot be read or watched are left out with all below them, and so are links. The caller knows from the
    listings which sub-folders there are, and looks at those that are missing by itself.

    Parameters
    ----------
    scanner : Scanner
    top : Folder
        Not changed.
    arm : callable

    Raises
    ------
    OSError
        `top` cannot be opened.
    """
    levels: list[_Level] = []
    n_found = 0
    try:
        fd, folder, parent = open_folder(scanner.root, top), top, -1
        length = len(os.fsencode(f"{scanner.root}/{top.path}"))
        while True:
            found = _read(scanner, fd, folder, parent, arm)
            listing = found.listing if found is not None else None
            if found is not None:
                yield found
                n_found += 1
            if listing is not None and listing.folders and len(levels) < _MOST_LEVELS:
                levels.append(_Level(n_found - 1, fd, folder, length, iter(listing.folders.keys() - listing.links)))
            else:
                os.close(fd)
            opened = _open_next(levels)
            if opened is None:
                return
            fd, folder, parent, length = opened
    finally:
        for level in levels:
            os.close(level.fd)


def _read(scanner: Scanner, fd: int, folder: Folder, parent: int, arm: Arm) -> Found | None:
    try:
        wd = arm(fd)
    except WatchError:
        return None
    try:
        return Found(parent, folder.name, wd, scanner.list_folder(fd, folder))
    except OSError:
        return Found(parent, folder.name, wd, None)


def _open_next(levels: list[_Level]) -> tuple[int, Folder, int, int] | None:
    """Open the next folder below the deepest level that has one left; close the levels that have none."""
    while levels:
        level = levels[-1]
        for name in level.names:
            length = level.length + 1 + len(os.fsencode(name))
            if length > _LONGEST_PATH:  # could be opened here, but not by a program that reads the tables
                continue
            with suppress(OSError):
                fd = open_below(level.fd, name)
                return fd, level.folder.make_child(name, NOT_LISTED), level.number, length
        os.close(level.fd)
        levels.pop()
    return None
