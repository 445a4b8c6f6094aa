"""Whole subtrees -> listings: each folder is opened through its parent, watched, then listed.

A full scan is made of units, the date folders, which can be read in any order and by any process. Run as a program
(``python -m alfwatchd.scan.subtree``), this is the worker process that `crawlers` starts.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from alfwatchd.alf.exclude import compile_exclude
from alfwatchd.errors import WatchError
from alfwatchd.scan.scanner import Scanner, open_below, open_folder
from alfwatchd.tree.folder import NOT_LISTED, NOT_WATCHED, Folder, Listing
from alfwatchd.tree.rows import PackedFiles, shared_names

_LONGEST_PATH = 4095
"""In bytes, without the closing NUL: PATH_MAX of Linux."""
_MOST_LEVELS = 24
"""Each has an open folder, and a process may have few. What lies deeper is left to the caller."""

Arm = Callable[[int], int]
"""Watches an open folder and returns the watch descriptor; may raise `WatchError`."""


class Found(NamedTuple):
    """One folder that was read.

    Parameters
    ----------
    parent : int
        Which of the folders that were found before it lies in, counted from 0; -1 for the one the crawl began with.
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

    What cannot be read, or watched, is left out with all below it, and so are links: the caller, who knows which
    sub-folders the listings name, looks at these in its own way.

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
            if length > _LONGEST_PATH:  # could be opened here, but by nobody who reads the tables
                continue
            with suppress(OSError):
                fd = open_below(level.fd, name)
                return fd, level.folder.make_child(name, NOT_LISTED), level.number, length
        os.close(level.fd)
        levels.pop()
    return None


# Between processes: plain tuples, which pickle in a third of the time.


def flatten(found: Found) -> tuple[Any, ...]:
    """Return what `restore` takes."""
    if found.listing is None:
        return tuple(found)  # the class has another name in a process that runs this module as a program
    dev, ino, folders, packed, *rest = found.listing
    return (*found[:3], dev, ino, folders, *packed[:3], *(rest if any(rest) else ()))


def restore(flat: tuple[Any, ...]) -> Found:
    """Return what was flattened, in another process."""
    if len(flat) == len(Found._fields):
        return Found(*flat)
    parent, name, wd, dev, ino, folders, names, signatures, n_bytes, *rest = flat
    packed = PackedFiles(shared_names(names), signatures, n_bytes)
    return Found(parent, name, wd, Listing(dev, ino, folders, packed, *rest))


def main() -> None:
    """Read units in several processes; arguments: the inotify descriptor, or -1, and a pipe for each process."""
    inotify_fd, *pipes = map(int, sys.argv[1:])
    arm = _make_arm(inotify_fd)
    gc.disable()  # nothing here makes cycles that last, and looking for them takes 10 % of the time
    mine, *others = pipes
    for fd in others:
        if os.fork() == 0:  # a tenth of the time that another Python takes to start
            mine = fd
            break
    for fd in pipes:
        if fd != mine:
            os.close(fd)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(Connection(mine), arm)


def _make_arm(inotify_fd: int) -> Arm:
    if inotify_fd < 0:
        return not_watched
    from alfwatchd.watch.watcher import add_watch

    return partial(add_watch, inotify_fd)


def _serve(pipe: Connection, arm: Arm) -> None:
    """Read units until nobody wants any more: batches of (number, path) in, batches of (number, folders) out."""
    root, patterns = pickle.loads(pipe.recv_bytes())
    scanner = Scanner(root, compile_exclude(patterns))
    while True:
        units = pickle.loads(pipe.recv_bytes())
        answer = [(number, _read_unit(scanner, path, arm)) for number, path in units]
        pipe.send_bytes(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))


def _read_unit(scanner: Scanner, path: str, arm: Arm) -> list[tuple[Any, ...]]:
    try:
        return [flatten(found) for found in crawl(scanner, Folder.at(path), arm)]
    except OSError:
        return []


if __name__ == "__main__":
    main()
