"""The trash folder at the top of the root, and in it the folder of each plan: makes, opens, lists and removes them.

Where a group may write to the root, each of its members can put something in the place of these folders. So no link is
followed, and each folder must belong to the user that prunes and be writable for no other user.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from alfwatchd import linux
from alfwatchd.alf.grammar import TRASH
from alfwatchd.atomic import replace_file, temporary_name
from alfwatchd.errors import Busy, PruneRefused
from alfwatchd.files import NotRegular, open_regular, sync_folder
from alfwatchd.prune import trash_manifest
from alfwatchd.prune.trash_manifest import MANIFEST, Manifest, ManifestError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MADE = "made-again"
"""Name of the file in a plan's folder that lists the folders which an undo has begun to make again."""
PROBE, PROBE_MOVED = "probe", "probe.new"
"""Names of a file that is made, renamed and removed, to try the file system out, before a file is moved."""
AT_ONCE = "with prune.trash_seconds = 0 files are deleted at once, without a trash"

_in_use = threading.Lock()
"""Keeps the threads of this process apart: a lock of the file system does not, and some file systems have none."""


@contextmanager
def open_trash(root_fd: int, *, make: bool = False, alone: bool = True) -> Iterator[int | None]:
    """Open the trash of a root; yields None if there is none.

    Parameters
    ----------
    root_fd : int
    make : bool
        Whether to make it where there is none.
    alone : bool
        Whether to keep other processes and threads from using it meanwhile.

    Raises
    ------
    PruneRefused
        It cannot be made or opened, or is not one that this user may trust.
    Busy
        Another process or thread uses it.
    """
    try:
        trash_fd = _open_or_make(root_fd, make=make)
    except OSError as error:
        what = "is a link or no folder" if error.errno in (errno.ELOOP, errno.ENOTDIR) else error.strerror
        done = "made" if make else "opened"
        raise PruneRefused(f"{TRASH}: the trash in the root cannot be {done} ({what}); {AT_ONCE}") from error
    if trash_fd is None:
        yield None
        return
    try:
        if why := _why_strange(trash_fd):
            raise PruneRefused(
                f"{TRASH}: the trash in the root {why}, so it is not used: run this as the user that made it, or look "
                f"at it and remove it; {AT_ONCE}"
            )
        with _locked(root_fd, trash_fd) if alone else nullcontext():
            yield trash_fd
    finally:
        os.close(trash_fd)


def remove_trash(root_fd: int) -> None:
    """Remove the trash folder if it is empty."""
    with suppress(OSError):
        os.rmdir(TRASH, dir_fd=root_fd)


def list_plans(trash_fd: int) -> list[str]:
    """Return the sorted names of the folders of plans."""
    return sorted(name for name in os.listdir(trash_fd) if trash_manifest.plan_of(name) is not None)


@contextmanager
def open_plan(trash_fd: int, name: str) -> Iterator[int]:
    """Open the folder of a plan, and yield its descriptor.

    Raises
    ------
    PruneRefused
        It cannot be opened, or was not made by a prune of this user.
    """
    try:
        plan_fd = os.open(name, _FOLDER, dir_fd=trash_fd)
    except OSError as error:
        raise PruneRefused(f"{TRASH}/{name}: cannot be opened ({error.strerror})") from error
    try:
        if why := _why_strange(plan_fd):
            raise PruneRefused(f"{TRASH}/{name}: {why}, so nothing in it is touched: look at it, and remove it")
        yield plan_fd
    finally:
        os.close(plan_fd)


def make_plan_folder(trash_fd: int, manifest: Manifest, check: Callable[[int], None]) -> tuple[str, int]:
    """Make the folder of a plan with its manifest, all of it on disk when this returns.

    Parameters
    ----------
    trash_fd : int
    manifest : Manifest
    check : callable
        Given a descriptor of the folder; raises `OSError` if it cannot be used.

    Returns
    -------
    tuple of (str, int)
        Name and descriptor of the folder; the caller closes the descriptor.

    Raises
    ------
    OSError
        It cannot be made; what was made of it is removed again.
    """
    name = _make_new_folder(trash_fd, manifest.plan_id)
    plan_fd = os.open(name, _FOLDER, dir_fd=trash_fd)
    try:
        for number in range(0, len(manifest.files), 1000):
            os.mkdir(trash_manifest.slot_of(number)[0], 0o700, dir_fd=plan_fd)
        check(plan_fd)
        write_file(plan_fd, MANIFEST, trash_manifest.write_lines(manifest))
        sync_folder(trash_fd)
    except BaseException:
        with suppress(OSError):
            remove_plan_folder(trash_fd, name, plan_fd)
        os.close(plan_fd)
        raise
    return name, plan_fd


def remove_plan_folder(trash_fd: int, name: str, plan_fd: int) -> bool:
    """Remove a plan's folder if no pruned file lies in it any more; tell whether it went.

    The manifest goes last. So a kill leaves either a whole plan, or a folder with neither files nor manifest.
    """
    left = os.listdir(plan_fd)
    for entry in left:
        if trash_manifest.number_of(entry, f"{entry}000") is not None:
            try:
                os.rmdir(entry, dir_fd=plan_fd)
            except OSError:
                return False
    names = [each for name in (PROBE, PROBE_MOVED, MADE, MANIFEST) for each in (temporary_name(name), name)]
    if not set(os.listdir(plan_fd)) <= set(names):
        return False
    for entry in names:
        with suppress(FileNotFoundError):
            os.unlink(entry, dir_fd=plan_fd)
    os.rmdir(name, dir_fd=trash_fd)
    return True


def read_manifest(plan_fd: int, name: str) -> Manifest | None:
    """Read the manifest of a plan's folder; None if there is none, which means that nothing was moved there.

    Raises
    ------
    PruneRefused
        It is damaged, or was not made by a prune of this user.
    """
    try:
        lines = _read_own_file(plan_fd, MANIFEST)
        found = trash_manifest.read_lines(lines) if lines is not None else None
    except (OSError, ManifestError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise PruneRefused(
            f"{TRASH}/{name}/{MANIFEST}: {what}; nothing beside it is touched: the files in {TRASH}/{name} are those "
            "of the plan, and only you can tell which is which"
        ) from error
    if found is not None and found.plan_id != trash_manifest.plan_of(name):
        raise PruneRefused(f"{TRASH}/{name}/{MANIFEST}: is that of another plan; nothing beside it is touched")
    return found


def read_made(plan_fd: int) -> set[str] | None:
    """Return the paths of the folders that an interrupted undo has begun to make; None if none was interrupted."""
    try:
        lines = _read_own_file(plan_fd, MADE)
        return None if lines is None else {str(path) for path in trash_manifest.unseal(b"".join(lines))}
    except ManifestError:
        return set()


def write_file(folder_fd: int, name: str, lines: Iterable[bytes]) -> None:
    """Write a file that only this user may read, so that it is there whole and on disk, or not at all."""
    replace_file(Path(name), lambda file: file.writelines(lines), dir_fd=folder_fd, mode=0o600)


def list_slots(plan_fd: int) -> dict[int, os.stat_result]:
    """Return number -> result of ``lstat``, for each file that lies in a plan's folder under a number."""
    found: dict[int, os.stat_result] = {}
    for folder in sorted(os.listdir(plan_fd)):
        if trash_manifest.number_of(folder, f"{folder}000") is None:
            continue
        with open_slots(plan_fd, folder) as folder_fd, os.scandir(folder_fd) as entries:
            for entry in entries:
                number = trash_manifest.number_of(folder, entry.name)
                if number is not None:
                    found[number] = entry.stat(follow_symlinks=False)
    return dict(sorted(found.items()))


@contextmanager
def open_slots(plan_fd: int, folder: str) -> Iterator[int]:
    """Open one of the folders of numbered files, and yield its descriptor."""
    folder_fd = os.open(folder, _FOLDER, dir_fd=plan_fd)
    try:
        yield folder_fd
    finally:
        os.close(folder_fd)


def _open_or_make(root_fd: int, *, make: bool) -> int | None:
    try:
        return os.open(TRASH, _FOLDER, dir_fd=root_fd)
    except FileNotFoundError:
        if not make:
            return None
    with suppress(FileExistsError):
        os.mkdir(TRASH, 0o700, dir_fd=root_fd)
    sync_folder(root_fd)
    return os.open(TRASH, _FOLDER, dir_fd=root_fd)


def _why_strange(fd: int) -> str:
    """Return why this user must not trust an open file or folder; empty if it may."""
    about = os.fstat(fd)
    if about.st_uid != os.geteuid():
        return f"belongs to user {about.st_uid}, not to the user that prunes"
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written to by other users"
    return ""


@contextmanager
def _locked(root_fd: int, trash_fd: int) -> Iterator[None]:
    """Keep other processes, and other threads of this one, from using the trash.

    Raises
    ------
    Busy
        Another process or thread uses it.
    """
    if not _in_use.acquire(blocking=False):
        raise _busy()
    try:
        with suppress(OSError):  # some network file systems lock no folders
            if not linux.try_flock(trash_fd):
                raise _busy()
        if not _is_in_place(root_fd, trash_fd):  # another process has emptied and removed it since it was opened
            raise _busy()
        yield
    finally:
        _in_use.release()


def _busy() -> Busy:
    return Busy(f"{TRASH}: another prune of this root, an undo or an emptying uses it; try again when it is done")


def _is_in_place(root_fd: int, trash_fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(TRASH, dir_fd=root_fd, follow_symlinks=False), os.fstat(trash_fd))
    except FileNotFoundError:
        return False
    except OSError:  # the next call fails for the same reason, and says so
        return True


def _make_new_folder(trash_fd: int, plan_id: str) -> str:
    number = 1
    while True:
        name = plan_id if number == 1 else f"{plan_id}-{number}"
        try:
            os.mkdir(name, 0o700, dir_fd=trash_fd)
        except FileExistsError:
            number += 1
        else:
            return name


def _read_own_file(folder_fd: int, name: str) -> list[bytes] | None:
    """Return the lines of a file that a prune of this user made; None if there is none."""
    try:
        opened = open_regular(name, dir_fd=folder_fd, follow_links=False)
    except FileNotFoundError:
        return None
    except NotRegular as error:
        raise ManifestError("is a pipe or something else") from error
    with opened as file:
        if why := _why_strange(file.fileno()):
            raise ManifestError(why)
        return file.readlines()
