"""Carries a prune plan out: moves files into the trash, or deletes them, and removes folders that this leaves empty.

Each path is walked from the root by folder descriptors that never follow a link. A file is compared with the plan and
taken through the same descriptor of its folder. So only the files that were planned go, and only from the paths that
were planned, whatever other processes move, swap, link or mount meanwhile.

A file that was moved into the trash is compared again there, and moved back if it is another one. Without a trash there
is a limit: Linux cannot "unlink this name if it is still this inode". If another process replaces a file in the
microseconds between the comparison and the unlink, the new file is deleted instead. With and without a trash, content
that was rewritten without a change of size, times and inode counts as unchanged.

File systems may be mounted above sessions, if they are the same as in the plan. Nothing is taken through a mount inside
a session, because that mount may cover or show something else than what was planned.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from alfwatchd import linux
from alfwatchd.alf import grammar
from alfwatchd.alf.exclude import Excluded
from alfwatchd.errors import AlfwatchdError, RootOffline
from alfwatchd.prune import survey, trash, walk
from alfwatchd.prune.plan import FileState, KeptItem, PlannedFile, PruneOutcome, PrunePlan
from alfwatchd.prune.trash import Bin, Trash
from alfwatchd.prune.trash_manifest import is_file_path
from alfwatchd.prune.walk import Protected, list_entries, open_folder, open_inside, open_session

_NO_FAILURE_OF_FILES = frozenset({errno.ENOENT})
# Only when its files have gone is it known whether a folder can go: it may hold a mount, or something excluded.
_NO_FAILURE_OF_FOLDERS = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EXDEV, errno.EINVAL})

MayContinue = Callable[[], None]
Log = Callable[[str], None]


class Unwanted(AlfwatchdError):
    """The client that asked for the prune has gone."""


def apply_plan(
    root: Path,
    plan: PrunePlan,
    *,
    may_continue: MayContinue,
    log: Log,
    excluded: Excluded | None = None,
    trash: Trash | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
    find_protected: Callable[[], AbstractSet[tuple[int, int]]] = frozenset,
    removing: Callable[[str], None] = lambda _: None,
    actor: str = "this user",
) -> PruneOutcome:
    """Take the planned files that are unchanged. Any thread may call this, for one prune of a root at a time.

    A file goes if it is a regular file in the state that the plan holds. A planned session folder goes if it holds
    nothing but empty folders; then the folders above it go that this leaves empty, except the root and its direct
    children. Sessions that stay keep their folders, also those that this empties. What differs from the plan, or cannot
    go, is kept with a reason, and the prune goes on. If the process is killed, the next plan finds the rest, except
    empty folders above a session that is gone; what was moved lies in the trash.

    Parameters
    ----------
    root : Path
        Links resolved.
    plan : PrunePlan
    may_continue : callable
        Called before each session; raises an `AlfwatchdError`, such as `RootOffline`, to stop.
    log : callable
        Given one line after each file and folder.
    excluded : callable or None
        See `alf.exclude`: what it names stays, even if it is planned. None excludes nothing.
    trash : Trash or None
        None: delete files at once.
    is_wanted : callable
        Called before each file and session folder; if it returns False, the prune stops.
    find_protected : callable
        Called once, before the first file; returns (st_dev, inode) of files and folders that stay with all below them.
    removing : callable
        Given the path of each session folder before it is removed.
    actor : str
        The user that prunes, for messages: ``this user`` or ``the daemon's user``.

    Raises
    ------
    RootOffline
        If the root cannot be opened; nothing was deleted.
    PruneRefused
        If the trash cannot be made; nothing was deleted.
    """
    with walk.open_root(root) as root_fd:
        prune = _Prune(root_fd, plan, excluded, log, actor, frozenset(plan.folders), removing=removing)
        if trash is None or not (plan.files or plan.folders):
            prune.protected = find_protected()
            return _run(prune, may_continue, is_wanted)
        with _trash_of(root_fd, trash, plan) as prune.bin:
            prune.protected = find_protected()
            return _run(prune, may_continue, is_wanted)


def preview_plan(
    root: Path,
    plan: PrunePlan,
    *,
    may_continue: MayContinue,
    excluded: Excluded | None = None,
    trash: Trash | None = None,
    actor: str = "this user",
) -> PruneOutcome:
    """Return what `apply_plan` would do now, by the same walk, and change nothing; parameters and errors as there."""
    with walk.open_root(root) as root_fd:
        prune = _Prune(root_fd, plan, excluded, None, actor, frozenset(plan.folders))
        if trash is not None:
            prune.bin = _OutOfReach(root_fd)
        return _run(prune, may_continue, lambda: True)


def _trash_of(root_fd: int, settings: Trash, plan: PrunePlan) -> AbstractContextManager[Bin]:
    return trash.fill(root_fd, settings, plan, lambda: survey.look_at_folders(root_fd, plan))


class _OutOfReach:
    """Stands for the trash in a preview, where none is made: finds the files that could not be moved there."""

    def __init__(self, root_fd: int) -> None:
        try:
            self._place = walk.place_of(root_fd)
        except OSError as error:
            raise RootOffline(f"the root cannot be looked at ({error.strerror})") from error

    def check_reach(self, folder_fd: int) -> None:
        trash.check_reach(folder_fd, self._place.dev, self._place.mount_id)


@dataclass(slots=True)
class _Prune:
    """One run: how to act, and what was done so far."""

    root_fd: int
    plan: PrunePlan
    excluded: Excluded | None
    log: Log | None
    """None for a preview."""
    actor: str
    removable: AbstractSet[str]
    bin: Bin | _OutOfReach | None = None
    protected: Protected = frozenset()
    removing: Callable[[str], None] = lambda _: None
    deleted: list[PlannedFile] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[KeptItem] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    """Paths that a preview counts as gone."""
    touched: dict[tuple[int, int], int] = field(default_factory=dict)
    """(st_dev, inode) -> ctime in ns, of files with several names of which this prune has taken one."""

    def keep(self, path: str, file_size: int | None, error: OSError) -> None:
        has_failed = error.errno not in (_NO_FAILURE_OF_FILES if file_size is not None else _NO_FAILURE_OF_FOLDERS)
        self.kept.append(KeptItem(path, file_size, walk.reason(error, self.actor), has_failed))


def _run(prune: _Prune, may_continue: MayContinue, is_wanted: Callable[[], bool]) -> PruneOutcome:
    stopped: AlfwatchdError | None = None
    try:
        for session, files in survey.by_session(prune.plan.folders, prune.plan.files).items():
            may_continue()
            _prune_session(prune, session, files, is_wanted)
    except AlfwatchdError as error:
        stopped = error
    freed_at = prune.bin.freed_at if isinstance(prune.bin, Bin) and prune.bin.n_moved else None
    return PruneOutcome(tuple(prune.deleted), tuple(prune.removed), tuple(prune.kept), stopped, freed_at)


def _prune_session(prune: _Prune, session: str, files: list[PlannedFile], is_wanted: Callable[[], bool]) -> None:
    for file in files:
        _check_wanted(is_wanted)
        _take_file(prune, session, file)
    if session in prune.removable:
        _check_wanted(is_wanted)
        _remove_session(prune, session)


def _check_wanted(is_wanted: Callable[[], bool]) -> None:
    if not is_wanted():
        raise Unwanted("the client that asked for the prune has gone")


def _take_file(prune: _Prune, session: str, file: PlannedFile) -> None:
    """Take one file, if it is still as planned, and note that it went or why it stays."""
    try:
        _check_path(prune, session, file.path)
        _take(prune, session, file)
    except OSError as error:
        prune.keep(file.path, file.state.size, error)
        return
    prune.deleted.append(file)
    if prune.log is None:
        prune.gone.add(file.path)
    else:
        done = "moved to trash" if prune.bin is not None else "deleted"
        prune.log(f"dataset {done} path={file.path!r} file_size={file.state.size}")


def _take(prune: _Prune, session: str, file: PlannedFile) -> None:
    """Move a file into the trash, or delete it; in a preview, only look. Raises `OSError` if it stays."""
    folder, _, name = file.path[len(session) + 1 :].rpartition("/")
    with (
        open_session(prune.root_fd, session, prune.plan.places.get(session), prune.protected) as session_fd,
        open_inside(session_fd, folder, prune.protected) as folder_fd,
        _open_file(folder_fd, name) as file_fd,
    ):
        about = linux.statx("", dir_fd=file_fd)
        _check_unchanged(prune, about, file.state)
        if (about.dev, about.ino) in prune.protected:
            raise OSError(errno.EBUSY, walk.PROTECTED)
        if prune.bin is not None:
            prune.bin.check_reach(folder_fd)
        if prune.log is None:
            return
        if isinstance(prune.bin, Bin):
            prune.bin.move_in(folder_fd, name, file, file_fd)
        else:
            os.unlink(name, dir_fd=folder_fd)
        if about.nlink > 1:
            with suppress(OSError):  # the file has gone; then its other names count as changed
                prune.touched[about.dev, about.ino] = linux.statx("", dir_fd=file_fd).ctime_ns


@contextmanager
def _open_file(folder_fd: int, name: str) -> Iterator[int]:
    """Open a file only to look at it, of whatever kind it is; a link is not followed."""
    file_fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
    try:
        yield file_fd
    finally:
        os.close(file_fd)


def _check_path(prune: _Prune, session: str, path: str) -> None:
    """Raise unless a plan may hold this path; the grammar alone would accept ``..`` as a subject."""
    is_planned = is_file_path(path) if path != f"{session}/" else {".", ".."}.isdisjoint(session.split("/"))
    if grammar.parse_session(session) is None or not is_planned:
        raise OSError(errno.EINVAL, "is not a dataset or session below the root")
    _check_excluded(prune, path)


def _check_excluded(prune: _Prune, path: str) -> None:
    if prune.excluded is not None and prune.excluded(path):
        raise OSError(errno.EINVAL, "is excluded by the settings, or holds something that is")


def _check_unchanged(prune: _Prune, about: linux.Stat, planned: FileState) -> None:
    if not stat.S_ISREG(about.mode):
        raise OSError(errno.ESTALE, "is no longer a regular file")
    now = survey.state_of(about)
    ctime_ns = prune.touched.get((about.dev, about.ino), planned.ctime_ns)
    if (now.dev, now.ino, now.size, now.mtime_ns, now.ctime_ns, now.btime_ns) != (
        planned.dev, planned.ino, planned.size, planned.mtime_ns, ctime_ns, planned.btime_ns,
    ):  # fmt: skip
        raise OSError(errno.ESTALE, "has changed since the plan")


def _remove_session(prune: _Prune, session: str) -> None:
    """Remove the folder of a session, and what is left empty above it, if nothing but empty folders is in it."""
    try:
        _check_path(prune, session, f"{session}/")
        with open_session(prune.root_fd, session, prune.plan.places.get(session), prune.protected) as folder_fd:
            sub_folders = _empty_folders(prune, folder_fd, session)
    except OSError as error:
        prune.keep(session, None, error)
        return
    prune.removing(session)
    if all(_remove_folder(prune, folder, session) for folder in (*sub_folders, session)):
        prune.removed.append(session)
        _remove_above(prune, session)


def _remove_above(prune: _Prune, session: str) -> None:
    """Remove the folders above a removed session that are empty now; the direct children of the root stay."""
    folder = session.rpartition("/")[0]
    while "/" in folder and _is_empty(prune, folder) and _remove_folder(prune, folder, folder):
        prune.removed.append(folder)
        folder = folder.rpartition("/")[0]


def _is_empty(prune: _Prune, folder: str) -> bool:
    try:
        with (
            open_folder(prune.root_fd, folder, prune.protected) as folder_fd,
            list_entries(folder_fd) as entries,
        ):
            return all(f"{folder}/{entry.name}" in prune.gone for entry in entries)
    except OSError as error:
        prune.keep(folder, None, error)
        return False


def _empty_folders(prune: _Prune, folder_fd: int, path: str) -> list[str]:
    """Return all folders below an open folder, the deepest first; raise `OSError` if it holds anything else."""
    found = []
    with list_entries(folder_fd) as entries:
        for entry in entries:
            inner = f"{path}/{entry.name}"
            if inner in prune.gone:
                continue
            if not entry.is_dir(follow_symlinks=False) or inner.count("/") >= survey.DEEPEST:
                raise OSError(errno.ENOTEMPTY, f"still holds {inner[len(path) + 1 :]!r}")
            _check_excluded(prune, f"{inner}/")
            with open_inside(folder_fd, entry.name, prune.protected) as inner_fd:
                found += _empty_folders(prune, inner_fd, inner)
            found.append(inner)
    return found


def _remove_folder(prune: _Prune, path: str, planned: str) -> bool:
    """Remove an empty folder, and tell whether it went. If not, `planned` is kept for that reason."""
    if prune.log is None:
        prune.gone.add(path)
        return True
    above, _, name = path.rpartition("/")
    try:
        with open_folder(prune.root_fd, above, prune.protected) as above_fd:
            if isinstance(prune.bin, Bin):
                _check_known(prune.bin, above_fd, name, path)
            os.rmdir(name, dir_fd=above_fd)
    except OSError as error:
        prune.keep(planned, None, error)
        return False
    prune.log(f"empty folder removed path={path!r}")
    return True


def _check_known(filled: Bin, above_fd: int, name: str, path: str) -> None:
    """Raise unless the manifest says how to make this folder again as it is now."""
    known, about = filled.folders.get(path), os.stat(name, dir_fd=above_fd, follow_symlinks=False)
    found = about.st_ino, stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid
    if known is None or not known.goes or found != (known.ino, known.mode, known.uid, known.gid):
        raise OSError(errno.ENOTEMPTY, "was made or changed since the prune began")
