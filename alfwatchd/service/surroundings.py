"""What the program needs of the place where it runs, checked before it begins to work."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from alfwatchd.alf.grammar import parse_date
from alfwatchd.errors import ConfigError, OutDirError
from alfwatchd.settings import Settings
from alfwatchd.users import this_user

_log = logging.getLogger(__name__)

_PROC = ("/proc/self/fd", "/proc/self/mountinfo")


def require() -> None:
    """Make sure that the folder ``/proc`` is there and that names of files are read as UTF-8.

    Raises
    ------
    ConfigError
        Says what is missing and how to get it.
    """
    if missing := next((path for path in _PROC if not os.access(path, os.R_OK)), None):
        raise ConfigError(
            f"{missing}: is not there, and the program cannot work without it: mount it (mount -t proc proc /proc)"
        )
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise ConfigError(
            f"Python reads the names of files as {encoding} here, and the ids that follow from names would be others "
            "than elsewhere: set PYTHONUTF8=1 in the environment before Python starts"
        )


def require_out_dir(out_dir: Path, root: Path) -> None:
    """Make sure that tables can be written to the output folder.

    Raises
    ------
    OutDirError
        It, or the root in which it lies, is missing, no folder, or not writable.
    """
    if out_dir.is_relative_to(root) and not root.is_dir():
        if root.exists():
            raise OutDirError(f"{root}: the root is a file; give the folder that holds the recordings")
        raise OutDirError(f"{root}: the root does not exist: check how it is spelled, and whether its disk is mounted")
    if not out_dir.is_dir():
        raise OutDirError(f"{out_dir}: the output folder does not exist or is not a folder; make it first")
    if not os.access(out_dir, os.W_OK | os.X_OK):
        raise OutDirError(
            f"{out_dir}: the output folder is not writable for {this_user()}: give this user write access, or choose "
            "another folder with --out-dir"
        )


def warn_of_places(settings: Settings) -> None:
    """Log a warning for each folder that the program writes to and that lies among the data."""
    if _lies_among_data(settings.out_dir, settings.root):
        _log.warning(
            "out_dir lies among the data: One opens tables in the folder whose sessions they list, so use the root, or "
            "a folder outside it path=%s",
            settings.out_dir,
        )
    for target in (entry.target for entry in settings.publish if "://" not in entry.target):
        if _lies_among_data(Path(os.path.realpath(target)), settings.root):
            _log.warning("a publish target lies among the data: use a folder outside the root path=%s", target)


def _lies_among_data(folder: Path, root: Path) -> bool:
    """Tell whether a folder lies in a lab, or in a subject, of a root."""
    if folder == root or not folder.is_relative_to(root):
        return False
    top, *below = folder.relative_to(root).parts
    return (root / top / "Subjects").is_dir() or any(parse_date(name) for name in below)
