"""Undo: moves back what a prune has moved into the trash, and makes the folders again that it removed.

Nothing is ever overwritten. If an undo is killed, the next one finishes it: the files that still lie in the trash must
still come back, and a file beside them names the folders that the undo has begun to make.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from alfwatchd.prune import trash_folder, trash_manifest, walk
from alfwatchd.prune.plan import KeptItem, PlannedFile, folders_above
from alfwatchd.prune.trash import move_back
from alfwatchd.prune.trash_manifest import FolderState, Manifest

_MODE = 0o700
"""Mode of a folder that is made again, until it is given its own."""
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")

Log = Callable[[str], None]


@dataclass(slots=True)
class Returned:
    """What an undo did: the files and folders that are back, and what still lies in the trash and why."""

    files: list[PlannedFile] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    kept: list[KeptItem] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        """Sum of the sizes of `files`, in bytes."""
        return sum(file.state.size for file in self.files)


def undo_plan(root_fd: int, trash_fd: int, name: str, log: Log, actor: str) -> Returned:
    """Bring back all that lies in the folder of one plan.

    Parameters
    ----------
    root_fd, trash_fd : int
        Descriptors of the root and the trash; the caller holds the lock of the trash.
    name : str
        Name of the plan's folder in the trash.
    log : callable
        Given one line after each file and folder.
    actor : str
        The user that runs this, for messages.

    Raises
    ------
    PruneRefused
        The folder or its manifest is damaged, or was not made by a prune of this user.
    OSError
        The list of folders to make again cannot be written.
    """
    done = Returned()
    with trash_folder.open_plan(trash_fd, name) as plan_fd:
        manifest = trash_folder.read_manifest(plan_fd, name)
        if manifest is not None:
            slots = trash_folder.list_slots(plan_fd)
            done.kept += _unknown(slots, manifest)
            files = {number: manifest.files[number] for number in slots if number < len(manifest.files)}
            made = _make_folders(root_fd, plan_fd, manifest, files.values(), done, log, actor)
            for number, file in files.items():
                _bring_back(root_fd, plan_fd, number, file, done, log, actor)
            finish_folders(root_fd, plan_fd, manifest, made, done)
        trash_folder.remove_plan_folder(trash_fd, name, plan_fd)
    return done


def finish_folders(root_fd: int, plan_fd: int, manifest: Manifest, made: Mapping[str, int], done: Returned) -> None:
    """Give the folders that were made again the owner, ACLs, mode and times that they had.

    Each is checked by its inode, because another user may have put another folder in its place. If a kill came before
    the inode was noted (0), the folder must belong to this user or to its earlier owner. What cannot be restored is
    added to `done.kept`.
    """
    known = {folder.path: folder for folder in manifest.folders}
    for path in sorted(made.keys() & known.keys(), reverse=True):  # a folder's times change with what is made in it
        try:
            _restore(root_fd, known[path], made[path])
        except OSError as error:
            if error.errno != errno.ENOENT:
                done.kept.append(
                    KeptItem(
                        path,
                        None,
                        f"is back, but its owner, mode or ACL could not be restored ({error.strerror})",
                        has_failed=True,
                    )
                )
    with suppress(FileNotFoundError):
        os.unlink(trash_folder.MADE, dir_fd=plan_fd)


def _unknown(slots: Iterable[int], manifest: Manifest) -> list[KeptItem]:
    return [
        KeptItem(
            "/".join(trash_manifest.slot_of(number)),
            None,
            "lies in the trash and is not in its manifest",
            has_failed=True,
        )
        for number in slots
        if number >= len(manifest.files)
    ]


def _make_folders(
    root_fd: int,
    plan_fd: int,
    manifest: Manifest,
    files: Iterable[PlannedFile],
    done: Returned,
    log: Log,
    actor: str,
) -> dict[str, int]:
    """Make the folders again that the prune removed, and those that its files need.

    Return path -> inode of all that must still be given their owner and mode; the inode is 0 where a killed run made
    the folder. Their paths are noted on disk first, so that the next run finishes what a kill interrupts.
    """
    needed = {path for file in files for path in folders_above(file.path)}
    wanted = sorted(
        (folder.path for folder in manifest.folders if folder.goes or folder.path in needed),
        key=lambda path: path.split("/"),
    )
    missing = [path for path in wanted if _is_missing(root_fd, path)]
    begun = trash_folder.read_made(plan_fd) or set()
    made: dict[str, int] = {}
    if missing:
        trash_folder.write_file(plan_fd, trash_folder.MADE, [trash_manifest.seal(sorted({*begun, *missing}))])
    for path in missing:
        above, _, name = path.rpartition("/")
        try:
            with walk.open_folder(root_fd, above) as above_fd:
                os.mkdir(name, _MODE, dir_fd=above_fd)
                made[path] = os.stat(name, dir_fd=above_fd, follow_symlinks=False).st_ino
        except FileExistsError:
            continue
        except OSError as error:
            done.kept.append(KeptItem(path, None, walk.reason(error, actor), has_failed=True))
            continue
        done.folders.append(path)
        log(f"folder made again path={path!r}")
    return {**dict.fromkeys(begun, 0), **made}


def _is_missing(root_fd: int, path: str) -> bool:
    try:
        with walk.open_folder(root_fd, path):
            return False
    except FileNotFoundError:
        return True
    except OSError:  # something else is there, or it cannot be read: the files that need it fail with the reason
        return False


def _bring_back(
    root_fd: int, plan_fd: int, number: int, file: PlannedFile, done: Returned, log: Log, actor: str
) -> None:
    """Move one file from the trash back to its path, and note that, or why it stays there."""
    folder, slot = trash_manifest.slot_of(number)
    above, _, name = file.path.rpartition("/")
    try:
        with (
            trash_folder.open_slots(plan_fd, folder) as slots_fd,
            walk.open_folder(root_fd, above) as above_fd,
        ):
            move_back(slot, name, slots_fd, above_fd)
    except OSError as error:
        done.kept.append(KeptItem(file.path, file.state.size, _reason(error, actor), has_failed=True))
        return
    done.files.append(file)
    log(f"dataset moved back path={file.path!r} file_size={file.state.size}")


def _reason(error: OSError, actor: str) -> str:
    match error.errno:
        case errno.EEXIST:
            return "something else has its name now"
        case errno.EXDEV:
            return "another file system or mount is at its place now"
        case errno.ENOENT:
            return "the folder that it lay in is not there and cannot be made again"
        case _:
            return walk.reason(error, actor)


def _restore(root_fd: int, folder: FolderState, inode: int) -> None:
    """Give a folder that was made again its owner, ACLs, mode and times, as far as this user may."""
    above, _, name = folder.path.rpartition("/")
    with walk.open_folder(root_fd, above) as above_fd:
        fd = os.open(name, os.O_RDONLY | walk.FOLDER, dir_fd=above_fd)
    first_error: OSError | None = None
    try:
        about = os.fstat(fd)
        is_ours = about.st_uid in (os.geteuid(), folder.uid)  # the latter if a kill came while it was being restored
        if about.st_ino != inode if inode else not is_ours:
            raise OSError(errno.ESTALE, "another folder is there now")
        for step in (_restore_owner, _restore_acls, _restore_mode, _restore_times):
            try:
                step(fd, folder)
            except OSError as error:
                first_error = first_error or error
    finally:
        os.close(fd)
    if first_error is not None:
        raise first_error


def _restore_owner(fd: int, folder: FolderState) -> None:
    about = os.fstat(fd)
    if about.st_gid != folder.gid:
        os.chown(fd, -1, folder.gid)  # separately: a user may change the group of a folder, but not its owner
    if about.st_uid != folder.uid:
        os.chown(fd, folder.uid, -1)


def _restore_acls(fd: int, folder: FolderState) -> None:
    for name in _ACLS:
        if name in folder.acls:
            os.setxattr(fd, name, folder.acls[name])
        else:  # the new folder may have inherited one
            with suppress(OSError):
                os.removexattr(fd, name)


def _restore_mode(fd: int, folder: FolderState) -> None:
    os.chmod(fd, folder.mode)


def _restore_times(fd: int, folder: FolderState) -> None:
    os.utime(fd, ns=(folder.atime_ns, folder.mtime_ns))
