"""Carries a prune plan out: the only code that deletes data.

Every path is walked anew from the root by folder descriptors that never follow a link, and a file is
unlinked through the descriptor of the folder in which it was just compared with the plan. So whatever is
moved, swapped or linked meanwhile, only the very files that were planned go, and only from the path that
was planned.

What no program can rule out: Linux has no "unlink if it is still this inode", so a file that is replaced in
the microseconds between comparison and unlink goes in its place; and content that is rewritten without a
change of size, modification time and inode counts as unchanged.

File systems may be mounted above sessions; whether each is the expected one is for `may_continue` to say. A
mount within a session is not entered, because what it covers or shows may not be what was planned.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from alfwatchd.core import alf
from alfwatchd.core.exclude import Excluded
from alfwatchd.core.prune_plan import FileState, KeptItem, PlannedFile, PruneOutcome, PrunePlan
from alfwatchd.errors import AlfwatchdError, RootOffline

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 32
"""Components of the longest path that is looked into for empty sub-folders."""

MayContinue = Callable[[], None]
Log = Callable[[str], None]


def apply_plan(
    root: Path,
    plan: PrunePlan,
    *,
    may_continue: MayContinue,
    log: Log,
    excluded: Excluded | None = None,
    find_protected: Callable[[], AbstractSet[tuple[int, int]]] = frozenset,
) -> PruneOutcome:
    """Delete what is planned and unchanged. Any thread may call it; one prune of a root at a time.

    A file goes if it is a regular file with the size, modification time and inode of the plan. A planned
    session folder goes if it holds nothing but empty folders, and then the folders above that this leaves
    empty, except the root and its direct children. Sessions that stay keep their folders, emptied ones
    included. What differs from the plan or cannot be deleted is kept with a reason, and the prune goes on.
    Killed half way, it leaves the rest for the next plan to find, but for an empty date, subject or
    `Subjects` folder at worst.

    Parameters
    ----------
    root : Path
        Links resolved.
    plan : PrunePlan
    may_continue : callable
        Called before each session; raises an `AlfwatchdError`, such as `RootOffline`, to stop.
    log : callable
        Given one line after each deletion.
    excluded : callable or None
        See `core.exclude`. What it names is kept, even if planned.
    find_protected : callable
        Called once, before the first deletion: ``(st_dev, st_ino)`` of files and folders that stay, with all below.

    Raises
    ------
    RootOffline
        If the root cannot be opened; nothing was deleted.
    """
    return _run(root, plan, may_continue, excluded, log, find_protected)


def preview_plan(
    root: Path, plan: PrunePlan, *, may_continue: MayContinue, excluded: Excluded | None = None
) -> PruneOutcome:
    """Return what `apply_plan` would do now, by the same walk, and change nothing. Parameters as there."""
    return _run(root, plan, may_continue, excluded, None)


@dataclass(slots=True)
class _Prune:
    """One run: how to act, and what was done so far."""

    root_fd: int
    excluded: Excluded | None
    log: Log | None
    """None for a preview."""
    deleted: list[PlannedFile] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[KeptItem] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    """What a preview takes for gone."""
    protected: AbstractSet[tuple[int, int]] = frozenset()

    def check_protected(self, about: os.stat_result) -> None:
        """Raise if a link leads to this."""
        if (about.st_dev, about.st_ino) in self.protected:
            raise OSError(errno.EBUSY, "a symbolic link leads to it, or to a folder that it lies in")


def _run(
    root: Path,
    plan: PrunePlan,
    may_continue: MayContinue,
    excluded: Excluded | None,
    log: Log | None,
    find_protected: Callable[[], AbstractSet[tuple[int, int]]] = frozenset,
) -> PruneOutcome:
    with _open_root(root) as root_fd:
        prune = _Prune(root_fd, excluded, log, protected=find_protected())
        stopped = _prune_sessions(prune, plan, may_continue)
    return PruneOutcome(tuple(prune.deleted), tuple(prune.removed), tuple(prune.kept), stopped)


def _prune_sessions(prune: _Prune, plan: PrunePlan, may_continue: MayContinue) -> AlfwatchdError | None:
    sessions: dict[str, list[PlannedFile]] = {folder: [] for folder in plan.folders}
    for file in plan.files:
        session, _ = alf.split_dataset(file.path) or ("", "")
        sessions.setdefault(session, []).append(file)
    removable = frozenset(plan.folders)
    for session in sorted(sessions):
        try:
            may_continue()
        except AlfwatchdError as stopped:
            return stopped
        for file in sessions[session]:
            _delete_file(prune, session, file)
        if session in removable:
            _remove_session(prune, session)
    return None


def _delete_file(prune: _Prune, session: str, file: PlannedFile) -> None:
    try:
        _check_path(prune, session, file.path)
        _unlink(prune, session, file)
    except OSError as error:
        prune.kept.append(KeptItem(file.path, file.state.size, _reason(error)))
        return
    prune.deleted.append(file)
    if prune.log is None:
        prune.gone.add(file.path)
    else:
        prune.log(f"dataset deleted path={file.path!r} file_size={file.state.size}")


def _unlink(prune: _Prune, session: str, file: PlannedFile) -> None:
    folder, _, name = file.path[len(session) + 1 :].rpartition("/")
    with (
        _open_folder(prune.root_fd, session) as session_fd,
        _open_folder(session_fd, folder, same_device=True) as folder_fd,
    ):
        _check_links(prune, file.path)
        _check_unchanged(os.stat(name, dir_fd=folder_fd, follow_symlinks=False), file.state)
        if prune.log is not None:
            os.unlink(name, dir_fd=folder_fd)


def _check_path(prune: _Prune, session: str, path: str) -> None:
    """Raise unless a path is one that a plan may hold. The grammar alone takes ``..`` for a subject."""
    if alf.parse_session(session) is None or not {".", ".."}.isdisjoint(path.split("/")):
        raise OSError(errno.EINVAL, "is no dataset or session below the root")
    _check_excluded(prune, path)


def _check_links(prune: _Prune, path: str) -> None:
    """Raise if a link leads to a file or folder, or to a folder above it."""
    if prune.protected:
        parts = path.split("/")
        for end in range(len(parts) + 1):
            above = "/".join(parts[:end]) or "."
            prune.check_protected(os.stat(above, dir_fd=prune.root_fd, follow_symlinks=False))


def _check_excluded(prune: _Prune, path: str) -> None:
    if prune.excluded is not None and prune.excluded(path):
        raise OSError(errno.EINVAL, "is, or holds what is, excluded by the settings")


def _check_unchanged(now: os.stat_result, planned: FileState) -> None:
    if not stat.S_ISREG(now.st_mode):
        raise OSError(errno.ESTALE, "is not a regular file any more")
    if (now.st_size, now.st_mtime_ns, now.st_ino) != (planned.size, planned.mtime_ns, planned.ino):
        raise OSError(errno.ESTALE, "has changed since the plan")


def _remove_session(prune: _Prune, session: str) -> None:
    try:
        _check_path(prune, session, f"{session}/")
        _check_links(prune, session)
        with _open_folder(prune.root_fd, session) as folder_fd:
            sub_folders = _empty_folders(prune, folder_fd, session)
    except OSError as error:
        prune.kept.append(KeptItem(session, None, _reason(error)))
        return
    if all(_remove_folder(prune, folder, session) for folder in (*sub_folders, session)):
        prune.removed.append(session)
        _remove_above(prune, session)


def _remove_above(prune: _Prune, session: str) -> None:
    """Remove the folders above a removed session that are empty now, but no direct child of the root."""
    folder = session.rpartition("/")[0]
    while "/" in folder and _is_empty(prune, folder) and _remove_folder(prune, folder, folder):
        prune.removed.append(folder)
        folder = folder.rpartition("/")[0]


def _is_empty(prune: _Prune, folder: str) -> bool:
    try:
        with _open_folder(prune.root_fd, folder) as folder_fd, _entries(folder_fd) as entries:
            return all(f"{folder}/{entry.name}" in prune.gone for entry in entries)
    except OSError as error:
        prune.kept.append(KeptItem(folder, None, _reason(error)))
        return False


def _empty_folders(prune: _Prune, folder_fd: int, path: str) -> list[str]:
    """Return all folders below an open folder, deepest first; raise if there is anything else."""
    found = []
    with _entries(folder_fd) as entries:
        for entry in entries:
            inner = f"{path}/{entry.name}"
            if inner in prune.gone:
                continue
            if not entry.is_dir(follow_symlinks=False) or inner.count("/") >= _DEEPEST:
                raise OSError(errno.ENOTEMPTY, f"still holds {inner[len(path) + 1 :]!r}")
            _check_excluded(prune, f"{inner}/")
            prune.check_protected(entry.stat(follow_symlinks=False))
            with _open_folder(folder_fd, entry.name, same_device=True) as inner_fd:
                found += _empty_folders(prune, inner_fd, inner)
            found.append(inner)
    return found


def _remove_folder(prune: _Prune, path: str, planned: str) -> bool:
    """Remove a folder found empty and tell whether it went; why not is a reason to keep `planned`."""
    if prune.log is None:
        prune.gone.add(path)
        return True
    above, _, name = path.rpartition("/")
    try:
        with _open_folder(prune.root_fd, above) as above_fd:
            os.rmdir(name, dir_fd=above_fd)
    except OSError as error:
        prune.kept.append(KeptItem(planned, None, _reason(error)))
        return False
    prune.log(f"empty folder removed path={path!r}")
    return True


@contextmanager
def _open_root(root: Path) -> Iterator[int]:
    try:
        root_fd = os.open(root, os.O_RDONLY | _FOLDER)
    except OSError as error:
        message = f"the root {root} cannot be opened ({error.strerror}), nothing was deleted: is it mounted?"
        raise RootOffline(message) from error
    try:
        yield root_fd
    finally:
        os.close(root_fd)


@contextmanager
def _open_folder(base_fd: int, path: str, *, same_device: bool = False) -> Iterator[int]:
    """Walk from an open folder down to `path` and yield its descriptor, good for looking names up."""
    folder_fd = os.dup(base_fd)
    try:
        device = os.fstat(base_fd).st_dev
        for name in path.split("/") if path else ():
            inner_fd = os.open(name, os.O_PATH | _FOLDER, dir_fd=folder_fd)
            os.close(folder_fd)
            folder_fd = inner_fd
            if same_device and os.fstat(folder_fd).st_dev != device:
                raise OSError(errno.EXDEV, f"lies in {name!r}, another file system than its session")
        yield folder_fd
    finally:
        os.close(folder_fd)


@contextmanager
def _entries(folder_fd: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """List a folder that is open for looking names up only."""
    readable_fd = os.open(".", os.O_RDONLY | _FOLDER, dir_fd=folder_fd)
    try:
        with os.scandir(readable_fd) as entries:
            yield entries
    finally:
        os.close(readable_fd)


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return "is gone already"
        case errno.ELOOP | errno.ENOTDIR:
            return "lies in what is not a folder any more; links are not followed"
        case _:
            return error.strerror or str(error)
