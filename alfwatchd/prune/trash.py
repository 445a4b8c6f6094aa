"""Moves the files of a prune into the trash, one rename each; a wrong one is moved back at once."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from alfwatchd import linux
from alfwatchd.alf.grammar import TRASH
from alfwatchd.errors import PruneRefused
from alfwatchd.prune import trash_folder, trash_manifest, walk
from alfwatchd.prune.plan import FileState, PlannedFile, PrunePlan, SessionPlace
from alfwatchd.prune.trash_manifest import FolderState, Manifest

NO_TRASH = "its file system has no trash"
_NO_FLAG = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Trash:
    """How long files lie in the trash before it is emptied.

    Parameters
    ----------
    keep_seconds : float
    now : callable
        Returns the time in seconds since 1970.
    """

    keep_seconds: float
    now: Callable[[], float] = time.time


class Bin:
    """The part of the trash that one prune fills; made by `fill`.

    Parameters
    ----------
    plan_fd : int
        Descriptor of the plan's folder; stays open as long as this object is used.
    place : SessionPlace
        Place of the trash.
    manifest : Manifest
    """

    def __init__(self, plan_fd: int, place: SessionPlace, manifest: Manifest) -> None:
        self.freed_at = manifest.freed_at
        self.n_moved = 0
        self.folders = {folder.path: folder for folder in manifest.folders}
        self._plan_fd = plan_fd
        self._place = place
        self._numbers = {file.path: number for number, file in enumerate(manifest.files)}

    def check_reach(self, folder_fd: int) -> None:
        """Raise `OSError` (EXDEV) unless a file can be renamed from this folder into the trash."""
        check_reach(folder_fd, self._place.dev, self._place.mount_id)

    def move_in(self, folder_fd: int, name: str, file: PlannedFile, file_fd: int) -> None:
        """Move a file in.

        Parameters
        ----------
        folder_fd : int
            Descriptor of the folder that it lies in.
        name : str
            Its name there.
        file : PlannedFile
        file_fd : int
            Descriptor of the file itself, which was found to be as planned.

        Raises
        ------
        OSError
            The file is still where it was. Or another process replaced it meanwhile, and the new file cannot be moved
            back: the error says where in the trash it is.
        """
        folder, slot = trash_manifest.slot_of(self._numbers[file.path])
        with trash_folder.open_slots(self._plan_fd, folder) as slots_fd:
            try:
                rename_new(name, slot, folder_fd, slots_fd)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    raise OSError(errno.EXDEV, NO_TRASH) from error
                raise
            self.n_moved += 1
            if not _is_the_one(slots_fd, slot, file_fd, file.state):
                self._give_back(slots_fd, folder_fd, name, f"{folder}/{slot}")

    def _give_back(self, slots_fd: int, folder_fd: int, name: str, slot: str) -> None:
        try:
            move_back(slot.rpartition("/")[2], name, slots_fd, folder_fd)
        except OSError as error:
            raise OSError(
                errno.ESTALE,
                f"was replaced while it was moved, and cannot go back ({error.strerror}): it is {slot} in the trash",
            ) from error
        self.n_moved -= 1
        raise OSError(errno.ESTALE, "has changed since the plan")


@contextmanager
def fill(
    root_fd: int, trash_settings: Trash, plan: PrunePlan, look_at_folders: Callable[[], tuple[FolderState, ...]]
) -> Iterator[Bin]:
    """Make the folder of a plan in the trash and yield it to be filled; remove it again if it stays empty.

    Parameters
    ----------
    root_fd : int
    trash_settings : Trash
    plan : PrunePlan
    look_at_folders : callable
        Returns the state of the folders that the plan may remove; called once the trash is locked.

    Raises
    ------
    PruneRefused
        The trash cannot be made or used; nothing was moved.
    """
    with trash_folder.open_trash(root_fd, make=True) as trash_fd:
        assert trash_fd is not None
        now = trash_settings.now()
        files = tuple(file for file in plan.files if trash_manifest.is_file_path(file.path))
        folders = look_at_folders()
        manifest = Manifest(plan.plan_id, plan.root, now, now + trash_settings.keep_seconds, files, folders)
        name, plan_fd, place = _make(root_fd, trash_fd, manifest)
        try:
            filled = Bin(plan_fd, place, manifest)
            yield filled
            if not filled.n_moved and not _has_removed(root_fd, folders):
                with suppress(OSError):  # if that fails, it is removed when its time has come
                    trash_folder.remove_plan_folder(trash_fd, name, plan_fd)
        finally:
            os.close(plan_fd)
    trash_folder.remove_trash(root_fd)


def _make(root_fd: int, trash_fd: int, manifest: Manifest) -> tuple[str, int, SessionPlace]:
    try:
        place = walk.place_of(trash_fd)
        name, plan_fd = trash_folder.make_plan_folder(trash_fd, manifest, _check_way_back)
    except OSError as error:
        trash_folder.remove_trash(root_fd)
        raise PruneRefused(
            f"{TRASH}/{manifest.plan_id}: the trash in the root cannot be made ({error.strerror}), so nothing was "
            f"moved or deleted; {trash_folder.AT_ONCE}"
        ) from error
    return name, plan_fd, place


def _check_way_back(plan_fd: int) -> None:
    """Raise unless this file system can move a file back without overwriting another; few cannot."""
    trash_folder.write_file(plan_fd, trash_folder.PROBE, [])
    move_back(trash_folder.PROBE, trash_folder.PROBE_MOVED, plan_fd, plan_fd)
    os.unlink(trash_folder.PROBE_MOVED, dir_fd=plan_fd)


def check_reach(folder_fd: int, dev: int, mount_id: int) -> None:
    """Raise `OSError` (EXDEV) unless a folder lies in this file system (`dev`) and mount, which are the trash's."""
    place = walk.place_of(folder_fd)
    if (place.dev, place.mount_id) != (dev, mount_id):
        raise OSError(errno.EXDEV, NO_TRASH)


def rename_new(source: str, target: str, source_fd: int, target_fd: int) -> None:
    """Rename a file into a folder to which no other user can write; EEXIST if the name is taken."""
    try:
        linux.rename_no_replace(source, target, source_dir_fd=source_fd, target_dir_fd=target_fd)
    except OSError as error:
        if error.errno not in _NO_FLAG:
            raise
        with suppress(FileNotFoundError):
            os.stat(target, dir_fd=target_fd, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from error
        os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)


def move_back(slot: str, name: str, slots_fd: int, folder_fd: int) -> None:
    """Move a file from the trash to a name that is free.

    Some file systems need two steps: link, then unlink. A kill between them leaves the file with both names; the next
    call removes the one in the trash.

    Raises
    ------
    OSError
        EEXIST where something else has the name.
    """
    try:
        linux.rename_no_replace(slot, name, source_dir_fd=slots_fd, target_dir_fd=folder_fd)
    except OSError as error:
        if error.errno not in (*_NO_FLAG, errno.EEXIST):
            raise
        _link_back(slot, name, slots_fd, folder_fd)


def _link_back(slot: str, name: str, slots_fd: int, folder_fd: int) -> None:
    try:
        os.link(slot, name, src_dir_fd=slots_fd, dst_dir_fd=folder_fd, follow_symlinks=False)
    except FileExistsError:
        if not _is_same(slot, name, slots_fd, folder_fd):
            raise
    os.unlink(slot, dir_fd=slots_fd)


def _is_same(slot: str, name: str, slots_fd: int, folder_fd: int) -> bool:
    in_trash = os.stat(slot, dir_fd=slots_fd, follow_symlinks=False)
    found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    return in_trash.st_nlink > 1 and os.path.samestat(in_trash, found)


def _is_the_one(slots_fd: int, slot: str, file_fd: int, planned: FileState) -> bool:
    """Tell whether the moved file is the one that was looked at, and is as planned; a rename changes only its ctime."""
    try:
        moved, seen = linux.statx(slot, dir_fd=slots_fd), linux.statx("", dir_fd=file_fd)
    except OSError:
        return False
    return (
        stat.S_ISREG(moved.mode)
        and (moved.dev, moved.ino) == (seen.dev, seen.ino) == (planned.dev, planned.ino)
        and (moved.size, moved.mtime_ns, moved.btime_ns) == (planned.size, planned.mtime_ns, planned.btime_ns)
    )


def _has_removed(root_fd: int, folders: tuple[FolderState, ...]) -> bool:
    for folder in folders:
        if folder.goes:
            try:
                os.stat(folder.path, dir_fd=root_fd, follow_symlinks=False)
            except FileNotFoundError:
                return True
            except OSError:
                continue
    return False
