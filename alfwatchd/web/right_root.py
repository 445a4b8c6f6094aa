"""Whether the root that a request names is the one that is kept here."""

from __future__ import annotations

import os
from pathlib import Path

from alfwatchd.errors import WrongRoot


def check_root(wanted: bytes, root: Path) -> None:
    """Make sure that a path leads to the root, be it through a link or another mount. May wait for a dead mount.

    Parameters
    ----------
    wanted : bytes
        Absolute path.
    root : Path
        Links resolved.

    Raises
    ------
    WrongRoot
        It leads elsewhere, or nowhere.
    """
    if os.path.realpath(wanted) == os.fsencode(root):
        return
    try:
        is_same = _find_folder(wanted) == _find_folder(os.fsencode(root))
    except OSError:  # one of them is not there, so the paths decide
        is_same = False
    if not is_same:
        raise wrong_root(wanted, root)


def wrong_root(wanted: bytes, root: Path, why: str = "") -> WrongRoot:
    """Return the error that names both roots."""
    return WrongRoot(
        f"{os.fsdecode(wanted)}: the daemon that was asked keeps another root, {root}{why}; name the socket of the "
        "daemon that keeps this one with --socket, or start one"
    )


def _find_folder(path: bytes) -> tuple[int, int]:
    # O_PATH: the daemon needs no right to read it, and nothing is opened that has an effect.
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        about = os.fstat(fd)
    finally:
        os.close(fd)
    return about.st_dev, about.st_ino
