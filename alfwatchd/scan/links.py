"""Symbolic links that have the place of a folder: where they lead, and whether what is there belongs to the root."""

from __future__ import annotations

import errno
import os
import stat
from enum import Enum
from typing import NamedTuple

from alfwatchd.alf import grammar
from alfwatchd.alf.exclude import Excluded
from alfwatchd.alf.grammar import Kind
from alfwatchd.alf.printable import printable
from alfwatchd.scan.advice import count_datasets
from alfwatchd.tree.rows import Problem

_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_MOST_ENTRIES = 1000


class Where(Enum):
    """Where a link leads, as seen from the root."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    ABOVE = "above"
    """To a folder that the root is, or lies in."""
    NOWHERE = "nowhere"
    NO_FOLDER = "no folder"
    UNKNOWN = "unknown"
    """It cannot be looked at now."""


class Target(NamedTuple):
    """What a link leads to.

    Parameters
    ----------
    where : Where
    path : str
        Absolute path, links resolved; empty where it is not known.
    ino : int
        Inode of the folder.
    """

    where: Where
    path: str = ""
    ino: int = 0


def find_target(root: str, path: str, fd: int) -> Target:
    """Find out where a link leads.

    Parameters
    ----------
    root : str
        Absolute path, links resolved.
    path : str
        The link, relative to the root.
    fd : int
        Descriptor of the folder that holds it.
    """
    try:
        about = os.stat(path.rpartition("/")[2], dir_fd=fd)
    except OSError as error:
        return Target(Where.NOWHERE if error.errno in _NOWHERE else Where.UNKNOWN)
    if not stat.S_ISDIR(about.st_mode):
        return Target(Where.NO_FOLDER)
    place = os.path.realpath(f"{root}/{path}")
    if _lies_in(root, place):
        return Target(Where.ABOVE, place)
    return Target(Where.INSIDE if _lies_in(place, root) else Where.OUTSIDE, place, about.st_ino)


def _lies_in(path: str, folder: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def say_not_followed(root: str, path: str, kind: Kind, target: Target, excluded: Excluded) -> list[Problem]:
    """Tell of a link that is not followed, if data seem to be behind it.

    Parameters
    ----------
    root : str
    path : str
        The link, relative to the root.
    kind : Kind
        What a folder of this name would be.
    target : Target
    excluded : callable
        See `alf.exclude`.
    """
    if not _holds_data(root, path, kind, excluded):
        return []
    message = (
        f"a link to {target.path}, which is not followed, so that nothing behind it is indexed: set follow_links = "
        "true, or mount that folder here"
    )
    return [Problem("link_not_followed", printable(path), printable(message))]


def say_inside(root: str, path: str, kind: Kind, target: Target, excluded: Excluded) -> list[Problem]:
    """Tell of a link to a folder in the root, if data seem to be in it that are not indexed at their own place.

    Parameters as for `say_not_followed`.
    """
    place = os.path.relpath(target.path, root)
    has_subjects = kind is Kind.TOP and os.access(f"{target.path}/Subjects", os.F_OK)
    is_indexed = grammar.kind_of(f"{place}/Subjects" if has_subjects else place) is not None
    if is_indexed or excluded(f"{place}/") or not _holds_data(root, path, kind, excluded):
        return []
    message = (
        f"a link to {place} in the root, a place where nothing is indexed, and links that stay in the root are not "
        "followed: move that folder here, in place of the link, or mount it here"
    )
    return [Problem("link_not_followed", printable(path), printable(message))]


def say_second_level(path: str, target: Target) -> list[Problem]:
    """Tell of a link that lies in a folder to which another link led."""
    message = (
        f"a link to {target.path} in a folder that was reached by a link: only one level is followed, so that nothing "
        "behind it is indexed; make a link to it in the root"
    )
    return [Problem("link_not_followed", printable(path), printable(message))]


def say_loop(path: str) -> Problem:
    """Tell of a link to a folder that the root lies in."""
    return Problem("link_loop", printable(path), "the link leads to a folder that the root lies in: remove it")


def _holds_data(root: str, path: str, kind: Kind, excluded: Excluded) -> bool:
    if kind is Kind.TOP:  # people keep links to all sorts of folders at the top
        return _holds_subjects(f"{root}/{path}")
    return kind < Kind.SESSION or count_datasets(root, [path], excluded)[0] > 0


def _holds_subjects(folder: str) -> bool:
    """Tell whether a folder looks like a lab or a subject."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry, _ in zip(entries, range(_MOST_ENTRIES), strict=False)]
    except OSError:
        return False
    return any(name == "Subjects" or grammar.parse_date(name) is not None for name in names)
