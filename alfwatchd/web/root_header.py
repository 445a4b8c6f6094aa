"""The header `Alfwatchd-Root`: which root a request means, so that a daemon never answers for another daemon's root.

Only the standard library, because the client of the control API imports it, too.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from alfwatchd.errors import UsageError, WrongRoot

HEADER = "Alfwatchd-Root"


def encode_root(path: bytes) -> str:
    """Return the header's value for an absolute path: a path may hold any byte, a header holds ASCII only."""
    return quote(path, safe="/")


def decode_root(value: bytes) -> bytes:
    """Return the path that a header's value stands for.

    Raises
    ------
    UsageError
        It is not an absolute path.
    """
    path = unquote_to_bytes(value.strip())
    if not path.startswith(b"/") or b"\0" in path:
        shown = value.decode("utf-8", "replace")
        raise UsageError(f"{HEADER} = {shown!r}: should be the absolute path of a root, percent-encoded")
    return path.rstrip(b"/") or b"/"


def check_root(wanted: bytes, root: Path) -> None:
    """Make sure that a path leads to the root, also through a link or another mount. On a dead mount, it may block.

    Parameters
    ----------
    wanted : bytes
        Absolute path.
    root : Path
        The root that the daemon keeps, with links resolved.

    Raises
    ------
    WrongRoot
        It leads to another folder, or to none.
    """
    if os.path.realpath(wanted) == os.fsencode(root):
        return
    try:
        is_same = _find_folder(wanted) == _find_folder(os.fsencode(root))
    except OSError:  # one of them is missing, so their paths decide
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
    # With O_PATH, the daemon needs no right to read the folder, and opening has no side effects.
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        about = os.fstat(fd)
    finally:
        os.close(fd)
    return about.st_dev, about.st_ino
