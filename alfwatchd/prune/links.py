"""Finds where the symbolic links in a root lead. What they lead to is never pruned: the links would then dangle."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from alfwatchd.alf.grammar import TRASH
from alfwatchd.errors import PruneRefused, RootOffline

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors of a folder that has gone since it was listed."""
_MOST_HOPS = 40
"""Length of a chain of links to links; the kernel follows no longer one."""
_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""Errors of a link that leads to nothing: there is nothing to protect."""
_MOST_WALKS = 3
"""Attempts to walk the root without a folder vanishing meanwhile."""


def find_link_targets(root: Path) -> frozenset[tuple[int, int]]:
    """Walk a whole root, hidden and excluded folders included, and follow each symbolic link.

    This finds neither links that are made later nor links outside the root that lead into it.

    Parameters
    ----------
    root : Path
        Its trash is left out.

    Returns
    -------
    frozenset of (int, int)
        ``(st_dev, st_ino)`` of each file and folder that a link leads to, inside or outside the root.

    Raises
    ------
    PruneRefused
        A folder cannot be read, or a link cannot be followed, so that it may lead to what would be deleted.
    RootOffline
        The root cannot be opened.
    """
    try:
        root_fd = os.open(root, _FOLDER)
    except OSError as error:
        message = f"the root {root} cannot be opened ({error.strerror}), nothing was deleted: is it mounted?"
        raise RootOffline(message) from error
    try:
        for _ in range(_MOST_WALKS):
            found: set[tuple[int, int]] = set()
            if _walk(root_fd, root, found):
                return frozenset(found)
    finally:
        os.close(root_fd)
    raise PruneRefused(
        f"{root}: other programs rename or remove folders all the time, so prune may have missed links in them; "
        "nothing was deleted; try again when these programs have ended"
    )


def _walk(root_fd: int, root: Path, found: set[tuple[int, int]]) -> bool:
    """Add the targets of all links. Return False if a folder vanished: it may lie elsewhere now, with its links."""
    folders, is_whole = [""], True
    while folders:
        inner = _look_into(root_fd, root, folders.pop(), found)
        is_whole &= inner is not None
        folders += inner or []
    return is_whole


def _look_into(root_fd: int, root: Path, folder: str, found: set[tuple[int, int]]) -> list[str] | None:
    """Add the targets of the links in a folder, and return the folders in it; None if this folder has vanished."""
    try:
        fd = os.open(folder or ".", _FOLDER, dir_fd=root_fd)
    except OSError as error:
        if folder and error.errno in _GONE:
            return None
        if folder and _is_of_fsck(root_fd, folder):
            return []
        raise _refusal(root, folder, error, "a link in it could lead to what would go") from error
    folders = []
    prefix = f"{folder}/" if folder else ""
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_symlink():
                    _add_target(fd, root, f"{prefix}{entry.name}", found)
                elif entry.is_dir(follow_symlinks=False) and (folder or entry.name != TRASH):
                    folders.append(f"{prefix}{entry.name}")
    except OSError as error:
        raise _refusal(root, folder, error, "a link in it could lead to what would go") from error
    finally:
        os.close(fd)
    return folders


def _is_of_fsck(root_fd: int, folder: str) -> bool:
    """Tell whether this is the folder in which fsck puts what it finds; only the root user can read it."""
    try:
        return folder.rpartition("/")[2] == "lost+found" and os.stat(folder, dir_fd=root_fd).st_uid == 0
    except OSError:
        return False


def _add_target(fd: int, root: Path, path: str, found: set[tuple[int, int]]) -> None:
    """Add what a link leads to, and the folders that its path passes: ``a/b/../c`` needs ``b``."""
    place = path.rpartition("/")[2]
    try:
        _add(fd, place, found)
        for _ in range(_MOST_HOPS):
            text = os.readlink(place, dir_fd=fd)
            target = os.path.join(os.path.dirname(place), text)
            for detour in _detours(target):
                _add(fd, detour, found)
            if not stat.S_ISLNK(os.stat(target, dir_fd=fd, follow_symlinks=False).st_mode):
                return
            place = target
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise _refusal(root, path, error, "this link could lead to what would go") from error


def _add(fd: int, place: str, found: set[tuple[int, int]]) -> None:
    about = os.stat(place, dir_fd=fd)
    if stat.S_ISDIR(about.st_mode) or stat.S_ISREG(about.st_mode):
        found.add((about.st_dev, about.st_ino))


def _detours(path: str) -> Iterator[str]:
    """Yield the part of a path before each ``..`` in it."""
    parts = path.split("/")
    for number, part in enumerate(parts):
        if part == ".." and any(each not in ("", ".", "..") for each in parts[:number]):
            yield "/".join(parts[:number])


def _refusal(root: Path, path: str, error: OSError, why: str) -> PruneRefused:
    where = root / path if path else root
    return PruneRefused(
        f"{where}: cannot be read ({error.strerror}), and {why}, so nothing is deleted; make it readable, or remove it"
    )
