"""The way from the root down to a file: by folder descriptors, through no link and into no other mount."""

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
"""(st_dev, inode) of files and folders that stay, with all that is below them."""


@contextmanager
def open_root(root: Path) -> Iterator[int]:
    """Open the root, and yield its descriptor.

    Raises
    ------
    RootOffline
        There is no such folder, or a link has its name.
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
    """Walk from an open folder down to `path`, and yield a descriptor that is good for looking names up (``O_PATH``).

    Other file systems may be mounted on the way: this is for folders above sessions.

    Raises
    ------
    OSError
        A folder on the way cannot be opened, is a link, or is protected. `reason` puts it into words.
    """
    return _walk_down(base_fd, path, _open_any, protected)


@contextmanager
def open_session(
    root_fd: int, session: str, place: SessionPlace | None, protected: Protected = frozenset()
) -> Iterator[int]:
    """Open a session folder as `open_folder` does, if it is still the one that was planned.

    A copy that was mounted over it, or over a folder above it, has another mount id or inode. That is the only
    difference if the copy was made of hard links: its files are equal in all that ``stat`` tells.

    Raises
    ------
    OSError
        As `open_folder`; or it is another folder than the planned one, or the plan has no place for it (None).
    """
    with open_folder(root_fd, session, protected) as session_fd:
        if place is None or place_of(session_fd) != place:
            raise OSError(errno.ESTALE, "lies in another folder, or another mount, than when the plan was made")
        yield session_fd


def open_inside(session_fd: int, path: str, protected: Protected = frozenset()) -> AbstractContextManager[int]:
    """Walk from a session folder, or one inside it, down to `path` as `open_folder` does, but into no other mount."""
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
    """Yield the entries of a folder that is open only for looking names up."""
    readable_fd = os.open(".", os.O_RDONLY | FOLDER, dir_fd=folder_fd)
    try:
        with os.scandir(readable_fd) as entries:
            yield entries
    finally:
        os.close(readable_fd)


def place_of(fd: int) -> SessionPlace:
    """Return where an open folder lies; raises `OSError` where the kernel does not tell its mount."""
    about = linux.statx("", dir_fd=fd)
    mount_id = about.mount_id if about.mount_id is not None else _mount_id(fd)
    return SessionPlace(mount_id, about.dev, about.ino)


def reason(error: OSError, actor: str) -> str:
    """Return, for people, why a file or folder stays.

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
    """Open a folder in a folder of a session.

    Parameters
    ----------
    name : str
    folder_fd : int
    flags : int
        ``O_PATH`` for looking names up, ``O_RDONLY`` for listing.

    Returns
    -------
    int
        A descriptor, which the caller closes.

    Raises
    ------
    OSError
        EXDEV if it lies in another mount or file system.
    """
    inner_fd = _open_in_mount(name, folder_fd, flags)
    # A btrfs subvolume has another st_dev, but is not a mount.
    if os.fstat(inner_fd).st_dev != os.fstat(folder_fd).st_dev:
        os.close(inner_fd)
        raise _other_mount(name)
    return inner_fd


def _open_in_mount(name: str, folder_fd: int, flags: int) -> int:
    """Open a folder in a folder, unless it is a mount point, on kernels without ``openat2`` too."""
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
