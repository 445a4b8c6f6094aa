"""Disk -> listings: the only reader of the data tree.

Folders are opened without following links; only a link to a session folder is followed, one level. Each folder is
listed through its descriptor, so that the folder that is listed is the one that was opened and watched, even if its
path leads elsewhere by then.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from alfwatchd.alf import grammar, misplaced
from alfwatchd.alf.exclude import Excluded
from alfwatchd.alf.grammar import Kind
from alfwatchd.alf.printable import printable
from alfwatchd.scan import advice
from alfwatchd.tree.folder import Folder, Listing, LookResult
from alfwatchd.tree.packed import NO_FILES, PackedFiles, pack_signature
from alfwatchd.tree.rows import Problem

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors that say that a path leads to no folder (any more). All others say nothing about what is there."""

_OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
_PROGRESS_MASK = 255
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
        n_loose = 0
        for entry in entries:
            name = entry.name
            if not entry.is_dir(follow_symlinks=False):
                if entry.is_symlink() and folder.child_kind(name) is Kind.SESSION:
                    self._list_linked_session(name, fd, prefix, odd)
                else:
                    odd.n_ignored += 1
                    is_dataset = entry.is_file(follow_symlinks=False) and grammar.is_dataset_name(name)
                    n_loose += is_dataset and not self._is_excluded(prefix + name)
            elif self._is_excluded(f"{prefix}{name}/") or (not prefix and name == grammar.TRASH):
                continue
            elif folder.child_kind(name) is None:
                outside.append(prefix + name)
            else:
                folders[name] = entry.inode()
        odd.n_ignored += len(outside)
        odd.problems += advice.find_misplaced(self.root, outside, self._is_excluded)
        if folder.kind is Kind.DATE:
            odd.problems += advice.find_unnumbered(self.root, folder.path, n_loose, outside, self._is_excluded)
        return odd.add_to(Listing(about.st_dev, about.st_ino, folders | odd.links))

    def _list_linked_session(self, name: str, fd: int, prefix: str, odd: _Oddities) -> None:
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
        nested = self._find_nested(found, folder) if found else []
        if odd is None and not hidden and not nested:
            packed = PackedFiles.pack_plain(files, n_bytes) if files else NO_FILES
            return Listing(about.st_dev, about.st_ino, found, packed, n_ignored)
        odd = odd or _Oddities()
        odd.n_ignored += len(hidden)
        for path in hidden:
            odd.problems += advice.find_hidden(self.root, path, self._is_excluded)
        odd.problems += nested
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

    def _find_nested(self, names: Iterable[str], folder: Folder) -> list[Problem]:
        """Tell of those folders in a folder of a session that look like sessions of their own."""
        if folder.kind is Kind.COLLECTION and grammar.parse_date(folder.name) is None:
            return []  # as nearly always
        session, problems = folder.session, list[Problem]()
        assert session is not None, "the caller lists sessions and what lies in them"
        for name in names:
            place = misplaced.nested_session(session.path, folder.collection, name)
            if place is not None:
                problems += advice.find_nested(self.root, f"{folder.path}/{name}", place, self._is_excluded)
        return problems

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
