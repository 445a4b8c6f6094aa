"""Whether a user may read files: by mode and ACL of the files, and of all folders that lead to them.

The daemon has no privilege, so the kernel cannot be asked. Nothing is kept between two questions, so a right that was
taken away ends at once. Each folder and file costs some 15 us.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alfwatchd import acl
from alfwatchd.acl import READ, SEARCH, Caller, Permissions
from alfwatchd.alf.printable import printable
from alfwatchd.users import group_name, user_name

_NO_ACL = (errno.ENODATA, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """The first file or folder that keeps a user from reading.

    Parameters
    ----------
    path : Path
        The user may see it: it may search all folders above.
    why : str
        What is there.
    wanted : int
        The permission bit that is missing; 0 if permissions are not the reason.
    group : str
        A member of this group is not kept from it; empty if the file's group would not help, or is that of root.
    """

    path: Path
    why: str
    wanted: int = 0
    group: str = ""


def find_obstacle(files: Sequence[Path], caller: Caller) -> Obstacle | None:
    """Return what keeps a user from reading these files; None if it may read all of them.

    On a dead mount, this may block.

    Parameters
    ----------
    files : sequence of Path
        Absolute, without links. A link that is there now has taken the place of something else, and is not followed.
    caller : Caller
        Not the root user, who may read everything.
    """
    folders = {above: None for file in files for above in reversed(file.parents)}
    for folder in folders:
        if obstacle := _look(folder, caller, stat.S_ISDIR, "a folder", SEARCH):
            return obstacle
    for file in files:
        if obstacle := _look(file, caller, stat.S_ISREG, "a file", READ):
            return obstacle
    return None


def _look(path: Path, caller: Caller, is_kind: Callable[[int], bool], kind: str, wanted: int) -> Obstacle | None:
    try:
        about = path.lstat()
        if not is_kind(about.st_mode):
            return Obstacle(path, f"it is not {kind}")
        packed = _read_acl(path)
        file = Permissions(about.st_uid, about.st_gid, about.st_mode, acl.parse(packed) if packed else None)
    except (FileNotFoundError, NotADirectoryError):
        return Obstacle(path, "it is not there")
    except (OSError, ValueError) as error:
        return Obstacle(path, f"the daemon cannot find out who may use it ({error})")
    if acl.allows(file, caller, wanted):
        return None
    member = replace(caller, gids=caller.gids | {file.gid})
    helps = file.gid != 0 and acl.allows(file, member, wanted)
    return Obstacle(path, _describe(file), wanted, group_name(file.gid) if helps else "")


def _read_acl(path: Path) -> bytes | None:
    try:
        return os.getxattr(path, acl.XATTR, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_ACL:
            return None
        raise


def _describe(file: Permissions) -> str:
    mode = stat.S_IMODE(file.mode)
    owners = printable(f"owner {user_name(file.uid)}, group {group_name(file.gid)}")
    return f"{owners}, mode {mode:04o}{', with an ACL' if file.acl else ''}"
