"""Where the symbolic links in a root lead: what they lead to is never pruned, or they would lead nowhere."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from alfwatchd.errors import PruneRefused, RootOffline

TRASH = ".alfwatchd-trash"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors of a folder that is gone since it was listed."""
_DETOUR = re.compile(r"(?<![./])/+\.\.(?=/|$)")
_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""Errors of a link that leads to nothing: there is nothing to protect."""


def find_link_targets(root: Path) -> frozenset[tuple[int, int]]:
    """Walk a whole root, hidden and excluded folders included, for symbolic links.

    Links that are made later, and links elsewhere that lead into the root, are not seen.

    Parameters
    ----------
    root : Path
        Its trash is left out.

    Returns
    -------
    frozenset of (int, int)
        ``(st_dev, st_ino)`` of each file and folder that a link leads to in the end, also of those outside the root.

    Raises
    ------
    PruneRefused
        A folder cannot be read, or what a link leads to cannot be looked at: what would go may be needed there.
    RootOffline
        The root cannot be opened.
    """
    try:
        root_fd = os.open(root, _FOLDER)
    except OSError as error:
        message = f"the root {root} cannot be opened ({error.strerror}), nothing was deleted: is it mounted?"
        raise RootOffline(message) from error
    found: set[tuple[int, int]] = set()
    folders = [""]
    try:
        while folders:
            folder = folders.pop()
            folders += _look_into(root_fd, root, folder, found)
    finally:
        os.close(root_fd)
    return frozenset(found)


def _look_into(root_fd: int, root: Path, folder: str, found: set[tuple[int, int]]) -> list[str]:
    """Add the targets of the links in a folder, and return the folders in it."""
    try:
        fd = os.open(folder or ".", _FOLDER, dir_fd=root_fd)
    except OSError as error:
        if folder and (error.errno in _GONE or _is_of_fsck(root_fd, folder)):
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
    """Tell whether a folder is where the repair of a file system puts what it finds: it is closed to all but root."""
    try:
        return folder.rpartition("/")[2] == "lost+found" and os.stat(folder, dir_fd=root_fd).st_uid == 0
    except OSError:
        return False


def _add_target(fd: int, root: Path, path: str, found: set[tuple[int, int]]) -> None:
    """Add what a link leads to, and the folders that it passes only to leave them again: ``a/b/../c`` needs ``b``."""
    name = path.rpartition("/")[2]
    try:
        text = os.readlink(name, dir_fd=fd)
        for place in [name, *(text[: match.start()] for match in _DETOUR.finditer(text))]:
            about = os.stat(place, dir_fd=fd)
            if stat.S_ISDIR(about.st_mode) or stat.S_ISREG(about.st_mode):
                found.add((about.st_dev, about.st_ino))
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise _refusal(root, path, error, "this link could lead to what would go") from error


def _refusal(root: Path, path: str, error: OSError, why: str) -> PruneRefused:
    where = root / path if path else root
    return PruneRefused(
        f"{where}: cannot be read ({error.strerror}), and {why}, so nothing is deleted; make it readable, or remove it"
    )
