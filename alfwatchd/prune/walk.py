"""The way from the root down to what a prune touches: by folder descriptors, through no link and no strange mount."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from alfwatchd import linux
from alfwatchd.errors import RootOffline
from alfwatchd.prune.plan import SessionPlace

FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PROTECTED = "a link in the root leads to it"
Protected = AbstractSet[tuple[int, int]]
"""(st_dev, inode) of files and folders that stay, with all below them."""


@contextmanager
def open_root(root: Path) -> Iterator[int]:
    """Open the root.

    Raises
    ------
    RootOffline
        It is not there, or a link is.
    """
    try:
        root_fd = os.open(root, os.O_RDONLY | FOLDER)
    except OSError as error:
        message = f"the root {root} cannot be opened ({error.strerror}), nothing was deleted: is it mounted?"
        raise RootOffline(message) from error
    try:
        yield root_fd
    finally:
        os.close(root_fd)


def open_folder(base_fd: int, path: str, protected: Protected = frozenset()) -> AbstractContextManager[int]:
    """Walk from an open folder down to `path` and yield its descriptor, good for looking names up.

    Other file systems may be mounted on the way: this is for the folders above sessions.

    Raises
    ------
    OSError
        With an errno that `reason` knows.
    """
    return _walk_down(base_fd, path, _open_any, protected)


@contextmanager
def open_session(
    root_fd: int, session: str, place: SessionPlace | None, protected: Protected = frozenset()
) -> Iterator[int]:
    """Open a session folder that is still the one that was planned, as `open_folder` does.

    A copy that is mounted over it, or over a folder above it, has another mount or inode: files of a copy made of hard
    links are equal in all that ``stat`` tells.
    """
    with open_folder(root_fd, session, protected) as session_fd:
        if place is None or place_of(session_fd) != place:
            raise OSError(errno.ESTALE, "lies in another folder, or another mount, than when the plan was made")
        yield session_fd


def open_inside(session_fd: int, path: str, protected: Protected = frozenset()) -> AbstractContextManager[int]:
    """Walk from a session folder, or one inside it, down to `path`, into no other mount and no other file system."""
    return _walk_down(session_fd, path, open_inner, protected)


@contextmanager
def _walk_down(base_fd: int, path: str, open_next: Callable[[str, int], int], protected: Protected) -> Iterator[int]:
    folder_fd = os.dup(base_fd)
    try:
        for name in path.split("/") if path else ():
            inner_fd = open_next(name, folder_fd)
            os.close(folder_fd)
            folder_fd = inner_fd
            _check_protected(folder_fd, protected)
        yield folder_fd
    finally:
        os.close(folder_fd)


def _open_any(name: str, folder_fd: int) -> int:
    return os.open(name, os.O_PATH | FOLDER, dir_fd=folder_fd)


@contextmanager
def list_entries(folder_fd: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """List a folder that is open for looking names up only."""
    readable_fd = os.open(".", os.O_RDONLY | FOLDER, dir_fd=folder_fd)
    try:
        with os.scandir(readable_fd) as entries:
            yield entries
    finally:
        os.close(readable_fd)


def place_of(fd: int) -> SessionPlace:
    """Return where an open folder lies."""
    about = linux.statx("", dir_fd=fd)
    mount_id = about.mount_id if about.mount_id is not None else _mount_id(fd)
    return SessionPlace(mount_id, about.dev, about.ino)


def reason(error: OSError, actor: str) -> str:
    """Say why something is kept.

    Parameters
    ----------
    error : OSError
    actor : str
        The user that prunes: ``the daemon's user`` or ``this user``.
    """
    match error.errno:
        case errno.ENOENT:
            return "is gone already"
        case errno.ELOOP | errno.ENOTDIR:
            return "a folder on its path is gone or is a link now; links are not followed"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"{actor} may not write there ({error.strerror})"
        case _:
            return error.strerror or str(error)


def open_inner(name: str, folder_fd: int, flags: int = os.O_PATH) -> int:
    """Open a folder in one of a session, in the same mount and file system; EXDEV if it is in another.

    Parameters
    ----------
    name : str
    folder_fd : int
    flags : int
        ``O_PATH`` for looking names up, ``O_RDONLY`` for listing.
    """
    inner_fd = _open_in_mount(name, folder_fd, flags)
    # A btrfs subvolume is another st_dev and no mount.
    if os.fstat(inner_fd).st_dev != os.fstat(folder_fd).st_dev:
        os.close(inner_fd)
        raise _other_mount(name)
    return inner_fd


def _open_in_mount(name: str, folder_fd: int, flags: int) -> int:
    try:
        return linux.open_in_mount(name, flags | FOLDER, dir_fd=folder_fd)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise _other_mount(name) from error
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    inner_fd = os.open(name, flags | FOLDER, dir_fd=folder_fd)
    try:
        if _mount_id(inner_fd) != _mount_id(folder_fd):
            raise _other_mount(name)
    except OSError:
        os.close(inner_fd)
        raise
    return inner_fd


def _other_mount(name: str) -> OSError:
    return OSError(errno.EXDEV, f"lies in {name!r}, another file system or mount than its session")


def _mount_id(fd: int) -> int:
    """Return the id of the mount that an open folder is reached through (``mnt_id`` in proc(5), fdinfo)."""
    found = linux.statx("", dir_fd=fd).mount_id
    if found is not None:
        return found
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    told = next((line for line in lines if line.startswith("mnt_id:")), None)
    if told is None:
        raise OSError(errno.ENOSYS, "this kernel does not tell one mount from another")
    return int(told.split(":")[1])


def _check_protected(fd: int, protected: Protected) -> None:
    if protected:
        about = os.fstat(fd)
        if (about.st_dev, about.st_ino) in protected:
            raise OSError(errno.EBUSY, PROTECTED)
