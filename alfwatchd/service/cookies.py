"""Where sync cookies are made: in memory if possible, so that an idle daemon lets every disk sleep."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from alfwatchd import linux

_IN_MEMORY = frozenset({0x01021994, 0x858458F6})
"""tmpfs and ramfs, as ``statfs`` tells them."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it, and looked at before it is used


def choose_folder(state_dir: Path, environ: Mapping[str, str] = os.environ, shared: Path = SHARED_MEMORY) -> Path:
    """Return the folder of sync cookies: below ``$RUNTIME_DIRECTORY``, ``$XDG_RUNTIME_DIR`` or `shared`.

    The first that is in memory, and where a private folder can be made, is taken; else it is in the state folder. Two
    daemons never share one: its name tells which state folder it belongs to, also where several containers have one
    ``/dev/shm``.

    Parameters
    ----------
    state_dir : Path
        The daemon's own, and there.
    environ : mapping of str to str
    shared : Path
    """
    about = state_dir.stat()
    digest = hashlib.sha256(f"{about.st_dev} {about.st_ino} {os.geteuid()} {state_dir}".encode(errors="replace"))
    named = [environ.get(name, "").partition(":")[0] for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR")]
    for above in [*(Path(each) for each in named if each.startswith("/")), shared]:
        folder = above / f"alfwatchd-cookies-{digest.hexdigest()[:12]}"
        if _is_in_memory(above) and _make_private(folder):
            return folder
    return state_dir / "cookies"


def _is_in_memory(folder: Path) -> bool:
    try:
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return linux.file_system_type(fd) in _IN_MEMORY
    finally:
        os.close(fd)


def _make_private(folder: Path) -> bool:
    """Make a folder that no other user can use; False if it cannot be made, or another user was first."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o077
