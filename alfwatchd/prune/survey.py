"""Looks at the folders that a prune may remove, so that an undo can make them again as they were. Changes nothing."""

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
"""Components of a path below which no more empty sub-folders are looked for."""
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_NO_ACLS = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def by_session(folders: Iterable[str], files: Iterable[PlannedFile]) -> dict[str, list[PlannedFile]]:
    """Return session path -> its planned files, sorted by session path; a session in `folders` may have no files."""
    found: dict[str, list[PlannedFile]] = {folder: [] for folder in folders}
    for file in files:
        session, _ = grammar.split_dataset(file.path) or ("", "")
        found.setdefault(session, []).append(file)
    return dict(sorted(found.items()))


def state_of(about: linux.Stat) -> FileState:
    """Return the part of ``statx`` that a plan holds of a file."""
    return FileState(about.dev, about.ino, about.size, about.mtime_ns, about.ctime_ns, about.btime_ns)


def look_at_folders(root_fd: int, plan: PrunePlan) -> tuple[FolderState, ...]:
    """Return the state of all folders that a plan may remove, and of those that its files lie in.

    Each folder comes after the one that it lies in. A folder that cannot be looked at is left out, and so not removed.
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
    """Look at a session folder and those above it. The direct children of the root never go."""
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
    """Yield what `os.getxattr` accepts for a folder that is open only for looking names up."""
    path = f"/proc/self/fd/{folder_fd}"
    if os.access(path, os.F_OK):
        yield path
        return
    readable_fd = os.open(".", os.O_RDONLY | walk.FOLDER, dir_fd=folder_fd)
    try:
        yield readable_fd
    finally:
        os.close(readable_fd)
