"""What a prune must know of the disk beforehand; changes nothing.

That is the state of each planned file, the place of each session, and what the folders are like that it may remove.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from alfwatchd import linux
from alfwatchd.alf import grammar
from alfwatchd.prune import walk
from alfwatchd.prune.plan import FileState, PlannedFile, PrunePlan
from alfwatchd.prune.trash_manifest import FolderState, is_file_path, is_folder_path

DEEPEST = 32
"""Components of the longest path that is looked into for empty sub-folders."""
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_NO_ACLS = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def by_session(folders: Iterable[str], files: Iterable[PlannedFile]) -> dict[str, list[PlannedFile]]:
    """Return the planned files of each session, in the order of the session's path."""
    found: dict[str, list[PlannedFile]] = {folder: [] for folder in folders}
    for file in files:
        session, _ = grammar.split_dataset(file.path) or ("", "")
        found.setdefault(session, []).append(file)
    return dict(sorted(found.items()))


def state_of(about: linux.Stat) -> FileState:
    """Return what a plan holds of a file."""
    return FileState(about.dev, about.ino, about.size, about.mtime_ns, about.ctime_ns, about.btime_ns)


def look_at_folders(root_fd: int, plan: PrunePlan) -> tuple[FolderState, ...]:
    """Return what the folders are like that a plan may remove, and those that its files lie in.

    A folder comes after the one it lies in. Folders that cannot be looked at are left out: they are not removed.
    """
    found: dict[str, FolderState] = {}
    removable = set(plan.folders)
    for session, planned in by_session(plan.folders, plan.files).items():
        if not is_folder_path(session):
            continue
        inside = [file.path.rpartition("/")[0] for file in planned if is_file_path(file.path)]
        _look_at_way(root_fd, session, found, goes=session in removable)
        for path in sorted({between for folder in inside for between in _folders_between(session, folder)}):
            _look(root_fd, path, found, goes=session in removable)
        if session in removable and plan.places.get(session) is not None:
            _look_below(root_fd, session, found)
    return tuple(found[path] for path in sorted(found, key=lambda path: path.split("/")))


def _look_at_way(root_fd: int, session: str, found: dict[str, FolderState], *, goes: bool) -> None:
    """Look at a session folder and those above it; the direct children of the root never go."""
    path = session
    while path and not (path in found and (found[path].goes or not goes)):
        _look(root_fd, path, found, goes=goes and "/" in path)
        path = path.rpartition("/")[0]


def _look_below(root_fd: int, folder: str, found: dict[str, FolderState]) -> None:
    if folder.count("/") >= DEEPEST:
        return
    try:
        with walk.open_folder(root_fd, folder) as folder_fd, walk.list_entries(folder_fd) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for name in names:
        _look(root_fd, f"{folder}/{name}", found, goes=True)
        _look_below(root_fd, f"{folder}/{name}", found)


def _folders_between(session: str, folder: str) -> Iterator[str]:
    while len(folder) > len(session):
        yield folder
        folder = folder.rpartition("/")[0]


def _look(root_fd: int, path: str, found: dict[str, FolderState], *, goes: bool) -> None:
    try:
        with walk.open_folder(root_fd, path) as folder_fd:
            about = os.fstat(folder_fd)
            acls = {name: value for name in _ACLS if (value := _acl(folder_fd, name)) is not None}
    except OSError:
        return
    found[path] = FolderState(
        path, goes, about.st_ino, stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid,
        about.st_atime_ns, about.st_mtime_ns, acls,
    )  # fmt: skip


def _acl(folder_fd: int, name: str) -> bytes | None:
    with _named(folder_fd) as path:
        try:
            return os.getxattr(path, name)
        except OSError as error:
            if error.errno in _NO_ACLS:
                return None
            raise


@contextmanager
def _named(folder_fd: int) -> Iterator[str | int]:
    """Yield what `os.getxattr` takes for a folder that is open for looking names up only."""
    path = f"/proc/self/fd/{folder_fd}"
    if os.access(path, os.F_OK):
        yield path
        return
    readable_fd = os.open(".", os.O_RDONLY | walk.FOLDER, dir_fd=folder_fd)
    try:
        yield readable_fd
    finally:
        os.close(readable_fd)
