"""Looks at each candidate of a prune on disk: whether it is unchanged and old enough, and whether a link leads to it.

Like `executor`, it walks from the root by folder descriptors that never follow a link. It changes nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from alfwatchd import linux
from alfwatchd.prune import walk
from alfwatchd.prune.plan import FileState, PlannedFile, SessionPlace
from alfwatchd.prune.unlisted import Kept, UnlistedSession
from alfwatchd.tree.packed import unpack_signature, wrap_time

NEWER = "newer than the reference"
ALIAS = "the reference lists this folder at another path: a mount shows it twice"
LINKED = "a symbolic link leads to it, or to a folder that it lies in"
CHANGED = "has changed since the daemon last looked at it"
GONE = "is gone already"
_DEEPEST = 32


@dataclass(frozen=True, slots=True)
class Rules:
    """What must stay, even if the reference does not list it.

    Parameters
    ----------
    protected : set of (int, int)
        ``(st_dev, st_ino)`` of files and folders that links lead to.
    listed : mapping of (int, int) to str
        ``(st_dev, st_ino)`` -> path of the folders of listed sessions, where mounts may show one folder at two paths.
    newest_ns : int or None
        What was made or changed later stays, in nanoseconds since 1970; None: age does not matter.
    first_seen : mapping of str to float
        Session path -> when the daemon first saw it, in seconds since 1970. Sessions that were there at its first scan
        are not in it.
    """

    protected: AbstractSet[tuple[int, int]] = frozenset()
    listed: Mapping[tuple[int, int], str] = field(default_factory=dict)
    newest_ns: int | None = None
    first_seen: Mapping[str, float] = field(default_factory=dict)

    def why_kept(self, folder: tuple[int, int], path: str) -> str:
        """Return why a folder, ``(st_dev, st_ino)``, stays with all that is in it; empty if it need not."""
        if folder in self.protected:
            return LINKED
        return ALIAS if self.listed.get(folder, path) != path else ""

    def is_newer(self, *times_ns: int) -> bool:
        """Tell whether the latest of some times, in nanoseconds since 1970, is too late for its file to go."""
        return self.newest_ns is not None and max(times_ns) > self.newest_ns


@dataclass(frozen=True, slots=True)
class _Place:
    """An open folder."""

    fd: int
    path: str
    why: str
    """Why all that is in it stays; empty if it need not."""
    newest_ns: int
    """The latest change of this folder and those above it, up to the session; or when the session was first seen."""


class Found(NamedTuple):
    """What may go: files, session folders once they are empty, and the place of each of these sessions."""

    files: list[PlannedFile]
    folders: list[str]
    places: dict[str, SessionPlace]


def look(root: Path, sessions: Iterable[UnlistedSession], rules: Rules, kept: Kept) -> Found:
    """Look at candidates, and return those that may go.

    Parameters
    ----------
    root : Path
        Links resolved.
    sessions : iterable of UnlistedSession
        Sorted by path.
    rules : Rules
    kept : Kept
        Is given what stays, and why.

    Raises
    ------
    RootOffline
        The root cannot be opened.
    """
    found = Found([], [], {})
    with walk.open_root(root) as root_fd:
        about = os.fstat(root_fd)
        top = _Place(root_fd, "", LINKED if (about.st_dev, about.st_ino) in rules.protected else "", 0)
        for session in sessions:
            _look_at_session(top, session, rules, found, kept)
    return found


def _look_at_session(top: _Place, session: UnlistedSession, rules: Rules, found: Found, kept: Kept) -> None:
    """Look at the unlisted files of a session, and note which go, and whether its folder goes with them."""
    files: list[PlannedFile] = []
    try:
        with _open_session(top, session.path, rules) as place:
            for folder, named in _by_folder(session.files).items():
                files += _look_at_folder(place, session.path, folder, named, rules, kept)
            goes = session.is_removable and len(files) == len(session.files)
            if goes and (reason := _look_below(place, rules, _DEEPEST)):
                kept.add(session.path, None, reason)
                goes = False
            if files or goes:
                found.places[session.path] = walk.place_of(place.fd)
    except OSError as error:
        for rel_path, value in session.files:
            kept.add(f"{session.path}/{rel_path}", unpack_signature(value).file_size, _reason(error))
        return
    found.files.extend(files)
    if goes:
        found.folders.append(session.path)


def _by_folder(files: Iterable[tuple[str, bytes]]) -> dict[str, list[tuple[str, bytes]]]:
    found: dict[str, list[tuple[str, bytes]]] = {}
    for rel_path, value in files:
        folder, _, name = rel_path.rpartition("/")
        found.setdefault(folder, []).append((name, value))
    return found


def _look_at_folder(
    place: _Place, session: str, folder: str, named: Sequence[tuple[str, bytes]], rules: Rules, kept: Kept
) -> list[PlannedFile]:
    prefix = f"{session}/{folder}/" if folder else f"{session}/"
    try:
        with _open_below(place, folder, rules) as inner:
            return [*_look_at_files(inner, prefix, named, rules, kept)]
    except OSError as error:
        for name, value in named:
            kept.add(prefix + name, unpack_signature(value).file_size, _reason(error))
        return []


def _look_at_files(
    place: _Place, prefix: str, named: Sequence[tuple[str, bytes]], rules: Rules, kept: Kept
) -> Iterator[PlannedFile]:
    for name, value in named:
        found = _look_at_file(place, name, value, rules)
        if isinstance(found, str):
            kept.add(prefix + name, unpack_signature(value).file_size, found)
        else:
            yield PlannedFile(prefix + name, found)


def _look_at_file(place: _Place, name: str, value: bytes, rules: Rules) -> FileState | str:
    """Return the state of a file now, or why it stays."""
    try:
        now = linux.statx(name, dir_fd=place.fd)
    except OSError as error:
        return _reason(error)
    known = unpack_signature(value)
    is_same = (now.size, wrap_time(now.mtime_ns), now.ino) == (known.file_size, known.mtime_ns, known.inode)
    if not stat.S_ISREG(now.mode) or not is_same:
        return CHANGED
    if place.why or (now.dev, now.ino) in rules.protected:
        return place.why or LINKED
    made_ns = now.ctime_ns if now.btime_ns is None else now.btime_ns
    if rules.is_newer(now.mtime_ns, made_ns, place.newest_ns):
        return NEWER
    return FileState(now.dev, now.ino, now.size, now.mtime_ns, now.ctime_ns, now.btime_ns)


def _look_below(place: _Place, rules: Rules, n_levels: int) -> str:
    """Return why nothing below a folder may go; empty if nothing is protected and nothing is newer."""
    if place.why:
        return place.why
    if rules.is_newer(place.newest_ns):
        return NEWER
    with os.scandir(place.fd) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for name in names if n_levels else ():
        with _open_below(place, name, rules) as inner:
            if reason := _look_below(inner, rules, n_levels - 1):
                return reason
    return ""


@contextmanager
def _open_session(top: _Place, path: str, rules: Rules) -> Iterator[_Place]:
    above, _, name = path.rpartition("/")
    with _open_below(top, above, rules, _open_any) as parent:
        # A change in a folder above says nothing about this session.
        seen_ns = int(rules.first_seen.get(path, 0.0) * 1e9)
        with _open_below(_Place(parent.fd, parent.path, parent.why, seen_ns), name, rules, _open_any) as place:
            yield place


def _open_any(name: str, folder_fd: int, flags: int) -> int:
    """Open a session folder or one above it; another file system may be mounted there."""
    return os.open(name, flags | walk.FOLDER, dir_fd=folder_fd)


@contextmanager
def _open_below(
    place: _Place, path: str, rules: Rules, open_one: Callable[[str, int, int], int] = walk.open_inner
) -> Iterator[_Place]:
    """Walk from an open folder down to `path`."""
    fd, inner_path, why, newest_ns = os.dup(place.fd), place.path, place.why, place.newest_ns
    try:
        for name in path.split("/") if path else ():
            inner_fd = open_one(name, fd, os.O_RDONLY | os.O_NONBLOCK)
            os.close(fd)
            fd = inner_fd
            about = os.fstat(fd)
            inner_path = f"{inner_path}/{name}" if inner_path else name
            why = why or rules.why_kept((about.st_dev, about.st_ino), inner_path)
            newest_ns = max(newest_ns, about.st_ctime_ns)
        yield _Place(fd, inner_path, why, newest_ns)
    finally:
        os.close(fd)


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return GONE
        case errno.ELOOP | errno.ENOTDIR:
            return "a folder on its path is gone or is a link now; links are not followed"
        case errno.EXDEV:
            return error.strerror or str(error)
        case _:
            return f"cannot be looked at: {error.strerror or error}"
