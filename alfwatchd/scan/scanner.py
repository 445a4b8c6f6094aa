"""Disk -> listings: the only reader of the data tree.

Folders are opened without following links; only a link to a session folder is followed, one level. Each folder is
listed through its descriptor, so that the folder that is listed is the one that was opened and watched, even if its
path leads elsewhere by then.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from alfwatchd.alf import grammar, misplaced
from alfwatchd.alf.exclude import Excluded
from alfwatchd.alf.grammar import Kind
from alfwatchd.alf.printable import printable
from alfwatchd.tree.folder import Folder, Listing, LookResult
from alfwatchd.tree.packed import NO_FILES, PackedFiles, pack_signature
from alfwatchd.tree.rows import Problem

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors that say that a path leads to no folder (any more). All others say nothing about what is there."""

_OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
_PROGRESS_MASK = 255
_MISPLACED_DEPTH = 6
_MISPLACED_FOLDERS = 2000
_HIDDEN_FOLDERS = 100
_NO_LINK = False


def open_folder(root: str, folder: Folder) -> int:
    """Open a folder of the tree for listing.

    Returns
    -------
    int
        File descriptor; the caller closes it.

    Raises
    ------
    OSError
        With an errno in `GONE` if there is no such folder.
    """
    path = f"{root}/{folder.path}"
    return os.open(path, _OPEN_FLAGS if folder.is_link else _OPEN_FLAGS | os.O_NOFOLLOW)


def open_below(fd: int, name: str) -> int:
    """Open a folder in an open folder, not through a link; else as `open_folder`."""
    return os.open(name, _OPEN_FLAGS | os.O_NOFOLLOW, dir_fd=fd)


def tells_other_inodes(root: str, folder: Folder) -> bool:
    """Tell whether the listing of its parent names another inode than a folder has, as some file systems do."""
    first = _told_and_found(root, folder)
    # Twice, as the folder may be replaced in between.
    return first is not None and first[0] != first[1] and _told_and_found(root, folder) == first


def _told_and_found(root: str, folder: Folder) -> tuple[int, int] | None:
    """Return the inode of a folder as its parent lists it, and as ``lstat`` tells it; None if either is unknown."""
    assert folder.parent is not None, "the root is in no listing"
    try:
        fd = open_folder(root, folder.parent)
    except OSError:
        return None
    try:
        with os.scandir(fd) as entries:
            told = [entry.inode() for entry in entries if entry.name == folder.name]
        return (told[0], os.stat(folder.name, dir_fd=fd, follow_symlinks=False).st_ino) if told else None
    except OSError:
        return None
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Scanner:
    """Looks at folders below one root.

    Parameters
    ----------
    root : str
        Absolute path, links resolved.
    excluded : callable or None
        See `alf.exclude`.
    on_progress : callable
        Called now and then while a folder is listed: a large one on a slow disk takes minutes.
    """

    root: str
    excluded: Excluded | None = None
    on_progress: Callable[[], object] = bool

    def list_folder(self, fd: int, folder: Folder) -> Listing:
        """List an open folder.

        Raises
        ------
        OSError
            The folder could not be read to its end; nothing is known then.
        """
        self.on_progress()
        about = os.fstat(fd)
        with os.scandir(fd) as entries:
            if folder.kind < Kind.SESSION:
                return self._list_layout(entries, fd, folder, about)
            return self._list_session(entries, fd, folder, about)

    def look(self, fd: int, folder: Folder, names: Iterable[str]) -> LookResult:
        """Look at some names in an open folder of a session, without listing it."""
        gone: set[str] = set()
        look = LookResult(gone=gone)
        prefix = f"{folder.path}/"
        for name in names:
            if not grammar.is_dataset_name(name) or self._is_excluded(prefix + name):
                gone.add(name)
                continue
            try:
                about = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                (gone if error.errno in GONE else look.unknown).add(name)
                continue
            if stat.S_ISLNK(about.st_mode) or (stat.S_ISREG(about.st_mode) and about.st_nlink > 1):
                look.unknown.add(name)
            elif not stat.S_ISREG(about.st_mode):
                gone.add(name)
            else:
                look.files[name] = pack_signature(
                    about.st_size, about.st_mtime_ns, about.st_ino, _NO_LINK, about.st_ctime_ns
                )
        return look

    def _list_layout(
        self, entries: Iterable[os.DirEntry[str]], fd: int, folder: Folder, about: os.stat_result
    ) -> Listing:
        """List a folder above the sessions: only folders count, and links to session folders."""
        prefix = f"{folder.path}/" if folder.path else ""
        folders: dict[str, int] = {}
        outside, odd = [], _Oddities()
        for entry in entries:
            name = entry.name
            if not entry.is_dir(follow_symlinks=False):
                if entry.is_symlink() and folder.child_kind(name) is Kind.SESSION:
                    self._list_linked_session(name, fd, prefix, odd)
                else:
                    odd.n_ignored += 1
            elif self._is_excluded(f"{prefix}{name}/") or (not prefix and name == grammar.TRASH):
                continue
            elif folder.child_kind(name) is None:
                outside.append(prefix + name)
            else:
                folders[name] = entry.inode()
        odd.n_ignored += len(outside)
        odd.problems += find_misplaced(self.root, outside, self._is_excluded)
        return odd.add_to(Listing(about.st_dev, about.st_ino, folders | odd.links))

    def _list_linked_session(self, name: str, fd: int, prefix: str, odd: _Oddities) -> None:
        """Note a link that has the name of a session: a session if it leads to a folder outside the way to the root."""
        odd.has_links = True
        if self._is_excluded(f"{prefix}{name}/"):
            return
        try:
            target = os.stat(name, dir_fd=fd)
        except OSError as error:
            if error.errno in GONE:  # a dangling link or a loop: nothing that ONE could open
                odd.n_ignored += 1
            else:
                odd.unknown.add(name)
            return
        if not stat.S_ISDIR(target.st_mode):
            odd.n_ignored += 1
        elif Path(self.root).is_relative_to(os.path.realpath(f"{self.root}/{prefix}{name}")):
            message = "the link leads to a folder that the root lies in: remove it"
            odd.problems.append(Problem("link_loop", printable(prefix + name), message))
        else:
            odd.links[name] = target.st_ino

    def _list_session(
        self, entries: Iterable[os.DirEntry[str]], fd: int, folder: Folder, about: os.stat_result
    ) -> Listing:
        """List a session folder or one below it: folders that may hold datasets, and the datasets."""
        is_name, excluded = grammar.is_dataset_name, self.excluded
        prefix = f"{folder.path}/" if excluded is not None else ""
        folders: list[os.DirEntry[str]] = []
        files: dict[str, bytes] = {}
        n_bytes = n_ignored = 0
        odd: _Oddities | None = None
        # Most of the time of a full index is spent in this loop, two thirds of it in the kernel, for `stat`.
        for entry in entries:
            name = entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry)
            elif not is_name(name):
                n_ignored += 1
            elif excluded is None or not excluded(prefix + name):
                try:
                    of_file = entry.stat(follow_symlinks=False) if entry.is_file(follow_symlinks=False) else None
                except OSError as error:
                    odd = odd or _Oddities()
                    odd.note_error(name, error)
                    continue
                if of_file is None or of_file.st_nlink > 1:
                    odd = odd or _Oddities()
                    odd.add_file(fd, name, files)
                    continue
                n_bytes += of_file.st_size
                files[name] = pack_signature(
                    of_file.st_size, of_file.st_mtime_ns, of_file.st_ino, _NO_LINK, of_file.st_ctime_ns
                )
                if not len(files) & _PROGRESS_MASK:
                    self.on_progress()
        found, hidden = self._choose_collections(folders, folder) if folders else ({}, [])
        if odd is None and not hidden:
            packed = PackedFiles.pack_plain(files, n_bytes) if files else NO_FILES
            return Listing(about.st_dev, about.st_ino, found, packed, n_ignored)
        odd = odd or _Oddities()
        odd.n_ignored += len(hidden)
        for path in hidden:
            odd.problems += self._find_hidden(path)
        return odd.add_to(Listing(about.st_dev, about.st_ino, found, PackedFiles.pack(files), n_ignored))

    def _choose_collections(self, entries: list[os.DirEntry[str]], folder: Folder) -> tuple[dict[str, int], list[str]]:
        """Return those of the sub-folders that may hold datasets, with their inodes, and the paths of the others."""
        collection = folder.collection
        prefix = f"{collection}/" if collection else ""
        found, hidden = {}, []
        for entry in entries:
            name = entry.name
            if self.excluded is not None and self.excluded(f"{folder.path}/{name}/"):
                continue
            if grammar.is_collection(prefix + name):
                found[name] = entry.inode()
            else:
                hidden.append(f"{folder.path}/{name}")
        return found, hidden

    def _find_hidden(self, path: str) -> list[Problem]:
        """Tell of datasets in a folder that cannot be a collection."""
        n_hidden, at_least = _count_datasets(self.root, path, self._is_excluded)
        if not n_hidden:
            return []
        message = (
            f"{at_least}{n_hidden} dataset{'s' * (n_hidden > 1)} not indexed: ONE cannot open a collection of this "
            "name; use letters, digits, '_', '-' and '.' (and a revision '#...#' only as the last folder)"
        )
        return [Problem("bad_collection", printable(path), message)]

    def _is_excluded(self, path: str) -> bool:
        return self.excluded is not None and self.excluded(path)


@dataclass(slots=True)
class _Oddities:
    """What is unusual in a folder; see `Listing`."""

    n_ignored: int = 0
    links: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    has_links: bool = False
    shared_inodes: set[int] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def note_error(self, name: str, error: OSError) -> None:
        """Note a file that was listed and cannot be looked at."""
        if error.errno not in GONE:  # else it vanished since the listing
            self.unknown.add(name)

    def add_file(self, fd: int, name: str, files: dict[str, bytes]) -> None:
        """Add an entry with the name of a dataset that may be a symbolic link or have other names."""
        try:
            about = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if is_link := stat.S_ISLNK(about.st_mode):
                self.has_links = True
                about = os.stat(name, dir_fd=fd)
        except OSError as error:
            self.n_ignored += error.errno in GONE
            self.note_error(name, error)
            return
        if not stat.S_ISREG(about.st_mode):
            self.n_ignored += 1
            return
        if about.st_nlink > 1 and not is_link:
            self.shared_inodes.add(about.st_ino)
        files[name] = pack_signature(about.st_size, about.st_mtime_ns, about.st_ino, is_link, about.st_ctime_ns)

    def add_to(self, listing: Listing) -> Listing:
        """Return a listing with these added."""
        return listing._replace(
            n_ignored=listing.n_ignored + self.n_ignored,
            links=frozenset(self.links),
            unknown=self.unknown,
            has_links=self.has_links,
            shared_inodes=self.shared_inodes,
            problems=tuple(self.problems),
        )


def find_misplaced(root: str, outside: list[str], excluded: Excluded) -> list[Problem]:
    """Look for session-like folders in folders that are no part of the layout.

    The look is bounded in depth and number of folders: junk may be large.

    Parameters
    ----------
    root : str
    outside : list of str
        Relative to the root.
    excluded : callable
        See `alf.exclude`.

    Returns
    -------
    list of Problem
        One per cause, with the number of folders it hides.
    """
    found: Counter[misplaced.Misplaced] = Counter()
    stack = list(outside)
    for _ in range(_MISPLACED_FOLDERS):
        if not stack:
            break
        folder = stack.pop()
        if misplaced.looks_like_session(folder):
            found[misplaced.diagnose(folder)] += 1
        elif folder.count("/") < _MISPLACED_DEPTH:
            stack += _subfolders(root, folder, excluded)
    at_least = "at least " if stack else ""
    return [
        Problem(
            "misplaced",
            printable(cause.where),
            printable(f"{at_least}{number} session{'s' * (number > 1)} not indexed: {cause.advice}"),
        )
        for cause, number in sorted(found.items(), key=lambda item: item[0].where)
    ]


def _subfolders(root: str, folder: str, excluded: Excluded) -> list[str]:
    try:
        with os.scandir(f"{root}/{folder}") as entries:
            found = [f"{folder}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # junk that cannot be read is still junk
        return []
    return [path for path in found if not excluded(f"{path}/")]


def _count_datasets(root: str, folder: str, excluded: Excluded) -> tuple[int, str]:
    """Return how many files in a folder, and below it, have dataset names, and a word if not all were counted."""
    n_files, stack = 0, [folder]
    for _ in range(_HIDDEN_FOLDERS):
        if not stack:
            break
        here = stack.pop()
        with suppress(OSError), os.scandir(f"{root}/{here}") as entries:  # as above
            for entry in entries:
                path = f"{here}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    stack += [path] * (not excluded(f"{path}/"))
                else:
                    n_files += grammar.is_dataset_name(entry.name) and not excluded(path)
    return n_files, "at least " if stack else ""
