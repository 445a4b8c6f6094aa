"""Empties the trash: deletes what prunes have moved there, when it is due or when a person asks for it.

A file that was written to since it was moved stays, because a program still uses it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from alfwatchd.alf.grammar import TRASH
from alfwatchd.errors import PruneRefused
from alfwatchd.prune import trash_folder, trash_manifest, walk
from alfwatchd.prune.plan import FileState, KeptItem
from alfwatchd.prune.trash_manifest import Manifest
from alfwatchd.prune.undo import Returned, finish_folders, undo_plan

WRITTEN = "was written to since it was moved to the trash"

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrashedPlan:
    """The files of one plan in the trash.

    Parameters
    ----------
    name : str
        Name of its folder there.
    n_files, n_bytes : int
        Number and bytes of the files that lie there now.
    freed_at : float or None
        When they are due to be deleted, in seconds since 1970; None if the manifest is missing or damaged.
    n_written : int
        Files that were written to since they were moved; these stay when the rest is deleted.
    trouble : str
        Why they can be neither brought back nor deleted; empty if they can.
    """

    name: str
    n_files: int
    n_bytes: int
    freed_at: float | None
    n_written: int = 0
    trouble: str = ""


@dataclass(slots=True)
class Emptied:
    """What was deleted from the trash, and what stays there and why."""

    n_files: int = 0
    n_bytes: int = 0
    plans: list[str] = field(default_factory=list)
    """Names of the plans' folders that are gone, as nothing was left in them."""
    undone: list[str] = field(default_factory=list)
    """Names of the folders whose undo was interrupted earlier and is finished now."""
    kept: list[KeptItem] = field(default_factory=list)


def undo(root: Path, plan_id: str, log: Log, actor: str = "this user") -> tuple[Returned, bool]:
    """Bring back what a plan has moved into the trash.

    Parameters
    ----------
    root : Path
    plan_id : str
    log : callable
        Given one line after each file and folder.
    actor : str
        The user that runs this, for messages.

    Returns
    -------
    tuple of (Returned, bool)
        What came back and what did not; whether anything of the plan is left in the trash.

    Raises
    ------
    RootOffline
        The root cannot be opened.
    PruneRefused
        The trash has nothing of this plan, or cannot be used.
    Busy
        Another process uses the trash.
    """
    with walk.open_root(root) as root_fd, trash_folder.open_trash(root_fd) as trash_fd:
        names = _names_of(trash_fd, plan_id)
        if trash_fd is None or not names:
            raise PruneRefused(f"{root}/{TRASH}: holds nothing of plan {plan_id!r}; see alfwatchd prune --list")
        done = Returned()
        for name in names:
            try:
                with _naming(name):
                    some = undo_plan(root_fd, trash_fd, name, log, actor)
            except PruneRefused as error:
                if len(names) == 1:
                    raise
                done.kept.append(KeptItem(f"{TRASH}/{name}", None, str(error), has_failed=True))
                continue
            done.files += some.files
            done.folders += some.folders
            done.kept += some.kept
        is_left = bool(_names_of(trash_fd, plan_id))
        trash_folder.remove_trash(root_fd)
    return done, is_left


def empty(root: Path, plan_id: str | None, log: Log, actor: str = "this user") -> Emptied:
    """Delete what one plan, or each plan (None), has in the trash; raises as `undo`, except where there is no trash."""
    done = Emptied()
    with walk.open_root(root) as root_fd, trash_folder.open_trash(root_fd) as trash_fd:
        names = _names_of(trash_fd, plan_id)
        if plan_id is not None and not names:
            raise PruneRefused(f"{root}/{TRASH}: holds nothing of plan {plan_id!r}; see alfwatchd prune --list")
        if trash_fd is None:
            return done
        for name in names:
            try:
                with _naming(name):
                    _empty_plan(root_fd, trash_fd, name, done, log, actor)
            except PruneRefused as error:
                if plan_id is not None:
                    raise
                done.kept.append(KeptItem(f"{TRASH}/{name}", None, str(error), has_failed=True))
        trash_folder.remove_trash(root_fd)
    return done


def empty_due(root: Path, now: float, log: Log, actor: str = "this user") -> Emptied:
    """Delete what is due at `now` (seconds since 1970), and finish interrupted runs. Ignore a trash of another user.

    Raises
    ------
    RootOffline, PruneRefused, Busy
        As `undo`.
    """
    done = Emptied()
    with walk.open_root(root) as root_fd:
        if not has_own_trash(root_fd):
            return done
        with trash_folder.open_trash(root_fd) as trash_fd:
            if trash_fd is None:
                return done
            for name in trash_folder.list_plans(trash_fd):
                try:
                    with _naming(name):
                        _do_what_is_due(root_fd, trash_fd, name, now, done, log, actor)
                except PruneRefused as error:
                    done.kept.append(KeptItem(f"{TRASH}/{name}", None, str(error), has_failed=True))
            trash_folder.remove_trash(root_fd)
    return done


def list_trashed(root: Path) -> list[TrashedPlan]:
    """Return what lies in the trash; empty if there is none, or if it belongs to another user.

    Raises
    ------
    RootOffline
        The root cannot be opened.
    """
    with walk.open_root(root) as root_fd:
        if not has_own_trash(root_fd):
            return []
        try:
            with trash_folder.open_trash(root_fd, alone=False) as trash_fd:
                return [] if trash_fd is None else [_survey_plan(trash_fd, each) for each in _names_of(trash_fd, None)]
        except PruneRefused:
            return []


def has_own_trash(root_fd: int) -> bool:
    """Tell whether there is a trash folder that belongs to this user."""
    try:
        about = os.stat(TRASH, dir_fd=root_fd, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid()


def _names_of(trash_fd: int | None, plan_id: str | None) -> list[str]:
    names = trash_folder.list_plans(trash_fd) if trash_fd is not None else []
    return [name for name in names if plan_id is None or trash_manifest.plan_of(name) == plan_id]


def _survey_plan(trash_fd: int, name: str) -> TrashedPlan:
    """Return what lies in the folder of one plan; what is wrong with it, if it cannot be read."""
    try:
        with trash_folder.open_plan(trash_fd, name) as plan_fd:
            manifest = trash_folder.read_manifest(plan_fd, name)
            slots = trash_folder.list_slots(plan_fd)
    except (PruneRefused, OSError) as error:
        return TrashedPlan(name, 0, 0, None, trouble=str(error))
    files = () if manifest is None else manifest.files
    n_bytes = sum(about.st_size for about in slots.values())
    n_written = sum(
        number >= len(files) or not is_untouched(about, files[number].state) for number, about in slots.items()
    )
    return TrashedPlan(name, len(slots), n_bytes, manifest.freed_at if manifest is not None else None, n_written)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turn an `OSError` into a `PruneRefused` that names the plan's folder."""
    try:
        yield
    except OSError as error:
        raise PruneRefused(f"{TRASH}/{name}: cannot be read or changed ({error.strerror}); try again") from error


def _do_what_is_due(root_fd: int, trash_fd: int, name: str, now: float, done: Emptied, log: Log, actor: str) -> None:
    with trash_folder.open_plan(trash_fd, name) as plan_fd:
        manifest = trash_folder.read_manifest(plan_fd, name)
        is_undo = trash_folder.read_made(plan_fd) is not None
    if is_undo:  # an undo was interrupted, and a person has asked for it
        returned = undo_plan(root_fd, trash_fd, name, log, actor)
        done.kept += returned.kept
        done.undone += [] if returned.kept else [name]
    elif manifest is None or manifest.freed_at <= now:
        _empty_plan(root_fd, trash_fd, name, done, log, actor)


def _empty_plan(root_fd: int, trash_fd: int, name: str, done: Emptied, log: Log, actor: str) -> None:
    with trash_folder.open_plan(trash_fd, name) as plan_fd:
        manifest = trash_folder.read_manifest(plan_fd, name)
        made = trash_folder.read_made(plan_fd)
        if manifest is not None and made is not None:  # an undo was interrupted: its folders lack their owner and mode
            finish_folders(root_fd, plan_fd, manifest, dict.fromkeys(made, 0), Returned())
        for number, about in trash_folder.list_slots(plan_fd).items():
            _delete(plan_fd, number, about, manifest, done, log, actor)
        with suppress(OSError):
            if trash_folder.remove_plan_folder(trash_fd, name, plan_fd):
                done.plans.append(name)


def _delete(
    plan_fd: int, number: int, about: os.stat_result, manifest: Manifest | None, done: Emptied, log: Log, actor: str
) -> None:
    """Delete one file from the trash, unless it was written to since it was moved there."""
    folder, slot = trash_manifest.slot_of(number)
    if manifest is None or number >= len(manifest.files):
        done.kept.append(
            KeptItem(f"{folder}/{slot}", about.st_size, "lies in the trash and is in no manifest", has_failed=True)
        )
        return
    file = manifest.files[number]
    try:
        with trash_folder.open_slots(plan_fd, folder) as slots_fd:
            if not is_untouched(os.stat(slot, dir_fd=slots_fd, follow_symlinks=False), file.state):
                done.kept.append(KeptItem(file.path, about.st_size, WRITTEN, has_failed=True))
                return
            os.unlink(slot, dir_fd=slots_fd)
    except OSError as error:
        done.kept.append(KeptItem(file.path, about.st_size, walk.reason(error, actor), has_failed=True))
        return
    done.n_files += 1
    done.n_bytes += file.state.size
    log(f"dataset deleted path={file.path!r} file_size={file.state.size} from=trash")


def is_untouched(about: os.stat_result, planned: FileState) -> bool:
    """Tell whether a file in the trash is as it was when it was moved; device numbers change with each mount."""
    return stat.S_ISREG(about.st_mode) and (about.st_size, about.st_mtime_ns) == (planned.size, planned.mtime_ns)
