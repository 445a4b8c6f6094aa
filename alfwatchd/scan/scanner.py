"""Disk -> listings: the only reader of the data tree.

Folders are opened without following links. A link to a session folder is followed, one level; with `follow_links`, so
is each link to a folder outside the root. Each folder is listed through its descriptor, so that the folder that is
listed is the one that was opened and watched, even if its path leads elsewhere by then.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from alfwatchd.alf import grammar, misplaced
from alfwatchd.alf.exclude import Excluded
from alfwatchd.alf.grammar import Kind
from alfwatchd.alf.printable import printable
from alfwatchd.scan import advice, links
from alfwatchd.scan.links import Where
from alfwatchd.tree.folder import Folder, Listing, LookResult
from alfwatchd.tree.packed import NO_FILES, PackedFiles, pack_signature
from alfwatchd.tree.rows import Problem

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors that say that a path leads to no folder (any more). All others say nothing about what is there."""

_OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
_PROGRESS_MASK = 255


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
    follow_links : bool
        Whether links to folders outside the root are followed, wherever the layout has a place for such a folder.
    """

    root: str
    excluded: Excluded | None = None
    on_progress: Callable[[], object] = bool
    follow_links: bool = False

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
        prefix, is_link = f"{folder.path}/", self._flag_links(folder)
        for name in names:
            if not grammar.is_dataset_name(name) or self._is_excluded(prefix + name):
                (look.unknown if self.follow_links and self._may_be_link(fd, folder, name) else gone).add(name)
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
                    about.st_size, about.st_mtime_ns, about.st_ino, is_link, about.st_ctime_ns
                )
        return look

    def _flag_links(self, folder: Folder) -> bool:
        """Tell whether files in a folder count as reached through a link: `prune` leaves such files alone."""
        return self.follow_links and folder.is_reached_by_link

    def finds_link(self, fd: int, folder: Folder, names: Iterable[str]) -> bool:
        """Tell whether one of the names in an open folder above the sessions is, or was, that of a link to a folder."""
        return any(self._may_be_link(fd, folder, name) for name in names)

    def _may_be_link(self, fd: int, folder: Folder, name: str) -> bool:
        """Tell whether a name is, or was, that of a link to a folder: only a listing tells where it leads."""
        path = printable(f"{folder.path}/{name}" if folder.path else name)
        if name in folder.children or any(problem.path == path for problem in folder.problems):
            return True
        try:
            return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
        except OSError:
            return False

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
                if entry.is_symlink() and folder.child_kind(name) is not None:
                    self._list_link(name, fd, folder, odd)
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
            sessions = folders | odd.links
            odd.problems += advice.find_unnumbered(
                self.root, folder.path, n_loose, outside, sessions, self._is_excluded
            )
        return odd.add_to(Listing(about.st_dev, about.st_ino, folders | odd.links))

    def _list_link(self, name: str, fd: int, folder: Folder, odd: _Oddities) -> None:
        """Add a link that has the name of a folder of the layout, if it is followed; see `links`."""
        path, kind = f"{folder.path}/{name}" if folder.path else name, folder.child_kind(name)
        assert kind is not None, "the caller knows that the layout has a place for it"
        is_plain = kind is Kind.SESSION and not self.follow_links
        odd.has_links |= is_plain or self.follow_links
        if self._is_excluded(f"{path}/"):
            return
        target = links.find_target(self.root, path, fd)
        if target.where is Where.ABOVE:
            odd.problems.append(links.say_loop(path))
        elif target.where is Where.UNKNOWN and odd.has_links:
            odd.unknown.add(name)
            if self.follow_links and not folder.is_reached_by_link:
                odd.followed.add(name)
        elif is_plain and target.ino:
            odd.links[name] = target.ino
        elif target.where is Where.OUTSIDE and not self.follow_links:
            odd.n_ignored += 1
            odd.problems += links.say_not_followed(self.root, path, kind, target, self._is_excluded)
        elif target.where is Where.OUTSIDE and folder.is_reached_by_link:
            odd.n_ignored += 1
            odd.problems += links.say_second_level(path, target)
        elif target.where is Where.OUTSIDE:
            odd.followed.add(name)
            odd.links[name] = target.ino
        elif target.where is Where.INSIDE and kind is Kind.SESSION and not folder.is_reached_by_link:
            odd.links[name] = target.ino
        else:
            odd.n_ignored += 1
            if target.where is Where.INSIDE:
                odd.problems += links.say_inside(self.root, path, kind, target, self._is_excluded)
            if target.where is Where.NOWHERE and self.follow_links and not folder.is_reached_by_link:
                odd.followed.add(name)

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
        is_link, linked = self._flag_links(folder), list[str]()
        # Most of the time of a full index is spent in this loop, two thirds of it in the kernel, for `stat`.
        for entry in entries:
            name = entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry)
            elif not is_name(name):
                if entry.is_symlink():
                    linked.append(name)
                else:
                    n_ignored += 1
            elif excluded is None or not excluded(prefix + name):
                try:
                    of_file = entry.stat(follow_symlinks=False) if entry.is_file(follow_symlinks=False) else None
                except OSError as error:
                    odd = odd or _Oddities()
                    odd.note_error(name, error)
                    continue
                if of_file is None or of_file.st_nlink > 1:
                    odd = odd or _Oddities(is_reached_by_link=is_link)
                    if not odd.add_file(fd, name, files):
                        linked.append(name)
                    continue
                n_bytes += of_file.st_size
                files[name] = pack_signature(
                    of_file.st_size, of_file.st_mtime_ns, of_file.st_ino, is_link, of_file.st_ctime_ns
                )
                if not len(files) & _PROGRESS_MASK:
                    self.on_progress()
        found, hidden = self._choose_collections(folders, folder) if folders else ({}, [])
        nested = self._find_nested(found, folder) if found else []
        if odd is None and not hidden and not nested and not linked:
            packed = PackedFiles.pack_plain(files, n_bytes) if files else NO_FILES
            return Listing(about.st_dev, about.st_ino, found, packed, n_ignored)
        odd = odd or _Oddities()
        odd.problems += nested
        self._note_unusual(folder, fd, linked, hidden, odd)
        return odd.add_to(Listing(about.st_dev, about.st_ino, found | odd.links, PackedFiles.pack(files), n_ignored))

    def _note_unusual(self, folder: Folder, fd: int, linked: list[str], hidden: list[str], odd: _Oddities) -> None:
        """Add the links in a session, and the paths of folders that hold no dataset as ONE reads them."""
        for name in linked:
            if folder.child_kind(name) is None:
                odd.n_ignored += 1
            else:
                self._list_link(name, fd, folder, odd)
        odd.n_ignored += len(hidden)
        for path in hidden:
            odd.problems += advice.find_hidden(self.root, path, self._is_excluded)

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

    is_reached_by_link: bool = False
    """Whether all files of the folder count as reached through a link."""
    n_ignored: int = 0
    links: dict[str, int] = field(default_factory=dict)
    followed: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    has_links: bool = False
    shared_inodes: set[int] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def note_error(self, name: str, error: OSError) -> None:
        """Note a file that was listed and cannot be looked at."""
        if error.errno not in GONE:  # else it vanished since the listing
            self.unknown.add(name)

    def add_file(self, fd: int, name: str, files: dict[str, bytes]) -> bool:
        """Add an entry with the name of a dataset that may be a symbolic link or have other names.

        Returns
        -------
        bool
            False if it is a link to a folder: nothing was added.
        """
        try:
            about = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if is_link := stat.S_ISLNK(about.st_mode):
                self.has_links = True
                about = os.stat(name, dir_fd=fd)
        except OSError as error:
            self.n_ignored += error.errno in GONE
            self.note_error(name, error)
            return True
        if is_link and stat.S_ISDIR(about.st_mode):
            return False
        if not stat.S_ISREG(about.st_mode):
            self.n_ignored += 1
            return True
        if about.st_nlink > 1 and not is_link:
            self.shared_inodes.add(about.st_ino)
        is_link |= self.is_reached_by_link
        files[name] = pack_signature(about.st_size, about.st_mtime_ns, about.st_ino, is_link, about.st_ctime_ns)
        return True

    def add_to(self, listing: Listing) -> Listing:
        """Return a listing with these added."""
        return listing._replace(
            n_ignored=listing.n_ignored + self.n_ignored,
            links=frozenset(self.links),
            unknown=self.unknown,
            has_links=self.has_links,
            shared_inodes=self.shared_inodes,
            problems=tuple(self.problems),
            followed=frozenset(self.followed),
        )
