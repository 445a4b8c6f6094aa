"""Which users may read and write a file: carried over to the file that replaces it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from alfwatchd.acl import XATTR

_OWNER_AND_GROUP, _GROUP = 0o770, 0o070


@dataclass(frozen=True, slots=True)
class Access:
    """Group, permission bits and ACL of a file.

    Parameters
    ----------
    gid : int
    mode : int
        The nine permission bits.
    acl : bytes or None
        As the kernel packs it; None where the file has none.
    """

    gid: int
    mode: int
    acl: bytes | None

    @classmethod
    def of(cls, path: Path, *, dir_fd: int | None = None) -> Access | None:
        """Return the access of a regular file; None for anything else, also a link.

        Parameters
        ----------
        path : Path
            With `dir_fd`, a name in that folder.
        dir_fd : int or None
        """
        try:
            about = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        except OSError:
            return None
        if not stat.S_ISREG(about.st_mode):
            return None
        whole = path if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}", path)
        return cls(about.st_gid, about.st_mode & 0o777, _read_acl(whole))

    @property
    def most_for_others(self) -> int:
        """Permission bits that the successor may have while it is written, so that no other user reads it then."""
        return self.mode | _OWNER_AND_GROUP

    def give(self, fd: int) -> None:
        """Give this access to an open, new file, as far as this user may.

        If this user is not in the group, the file keeps its own group, which gets no right that it would not have had.
        An ACL that the file has got from its folder stays, if there is none here. No failure is an error: tables that
        are right matter more.
        """
        made = os.fstat(fd)
        if made.st_gid == self.gid or _give_group(fd, self.gid):
            if self.acl is not None and _give_acl(fd, self.acl):
                return
            mode = self.mode if self.acl is None else self.mode & ~_GROUP
        else:
            mode = self.mode & (~_GROUP | made.st_mode)
        if _read_acl(fd) is None and mode != stat.S_IMODE(made.st_mode):
            with suppress(OSError):
                os.fchmod(fd, mode)


def _give_group(fd: int, gid: int) -> bool:
    try:
        os.fchown(fd, -1, gid)
    except OSError:
        return False
    return True


def _give_acl(fd: int, acl: bytes) -> bool:
    try:
        os.setxattr(fd, XATTR, acl)
    except OSError:
        return False
    return True


def _read_acl(file: Path | int) -> bytes | None:
    with suppress(OSError):
        return os.getxattr(file, XATTR)
    return None
