"""Guards the root and what is mounted below it: rows change only while the disk is what it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

from alfwatchd import mounts
from alfwatchd.core.guard import Place, judge_place
from alfwatchd.core.rows import Problem
from alfwatchd.errors import RootOffline

Record = Callable[[Mapping[str, Place]], None]


class Guard:
    """Knows what the root and the mounts below it were, and tells whether they still are.

    Parameters
    ----------
    root : str
        Absolute path, links resolved.
    recorded : mapping of str to Place
        Places of an earlier run, by path relative to the root; the root itself is ''.
    record : callable
        Given all places whenever they have changed, for the next run.
    """

    def __init__(self, root: str, recorded: Mapping[str, Place], record: Record = lambda _: None) -> None:
        self.root = root
        self.places = dict(recorded)
        self._recorded = dict(recorded)
        self._record = record
        self.missing: dict[str, str] = {}
        """Mounts below the root that are not what they were -> why. Their rows are kept."""
        self.n_mount_changes = 0
        """How often something was mounted or unmounted, anywhere, as far as noticed."""
        self._mounts = mounts.MountWatch()
        self._mark: tuple[int, int, int] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the root was found to be right, by `open_root`, and nothing has changed since, as far as known."""
        return self._mark is not None

    @property
    def fs_types(self) -> set[str]:
        """Types of the file systems of the root and below it."""
        return {place.fs_type for place in self.places.values()}

    def open_root(self, known: AbstractSet[str], *, accept: bool = False) -> None:
        """Look whether the root is what it was, and remember it.

        Parameters
        ----------
        known : set of str
            Names of the top-level folders that hold rows.
        accept : bool
            Take root and mounts as they are now.

        Raises
        ------
        RootOffline
            It is not; nothing is remembered.
        """
        found = self._find(self.root)
        names = set() if isinstance(found, OSError) else _top_folders(self.root)
        verdict = judge_place(self.places.get(""), found, known, names)
        if isinstance(found, OSError) or (not verdict.is_online and not accept):
            raise RootOffline(f"{self.root}: {verdict.reason}")
        if accept:
            self.places = {}
        self.places[""] = found
        self._mark = _mark(self.root)
        self.check_mounts()

    def check(self) -> None:
        """Make sure, cheaply, that the root is still the folder that was opened.

        Raises
        ------
        RootOffline
            It is not; `open_root` must succeed first.
        """
        try:
            mark = _mark(self.root)
        except OSError as error:
            self._mark = None
            raise RootOffline(f"{self.root}: the root cannot be read ({error.strerror})") from error
        if mark != self._mark:
            self._mark = None
            raise RootOffline(f"{self.root}: something else is there now")

    def close_root(self) -> None:
        """Forget that the root was right, so that `open_root` must look again."""
        self._mark = None

    def poll_mounts(self) -> None:
        """Look at the mounts below the root again if anything was mounted or unmounted; cheap otherwise."""
        if self._mounts.has_changed():
            self.n_mount_changes += 1
            if self.is_open:
                self.check_mounts()

    def check_mounts(self) -> None:
        """Compare the mounts below the root with the recorded ones, and record new ones."""
        self.missing = {}
        prefix = len(self.root.rstrip("/")) + 1
        mounted = {mount.path[prefix:] for mount in mounts.mounts_below(self.root)}
        for path in sorted(mounted | (self.places.keys() - {""})):
            found = self._find(f"{self.root}/{path}")
            expected = self.places.get(path)
            if isinstance(found, OSError):
                if expected is not None:
                    self.missing[path] = found.strerror or "unreadable"
            elif expected is None:
                self.places[path] = found
            elif not expected.is_same_data(found):
                self.missing[path] = f"another file system is there ({found.fs_type})"
        if self.places != self._recorded:
            self._record(self.places)
            self._recorded = dict(self.places)

    def is_missing(self, path: str) -> bool:
        """Tell whether a folder is, or lies in, a mount that is not what it was."""
        return any(path == place or path.startswith(f"{place}/") for place in self.missing)

    def problems(self) -> list[Problem]:
        """Return one problem per mount that is not what it was."""
        return [
            Problem(
                "other_filesystem", path,
                f"{reason}: its rows are kept; mount it again, or run `alfwatchd rescan --accept-root` to take the "
                "folder as it is",
            )
            for path, reason in sorted(self.missing.items())
        ]  # fmt: skip

    def close(self) -> None:
        """Release the mount table."""
        self._mounts.close()

    def _find(self, path: str) -> Place | OSError:
        try:
            return mounts.find_place(path)
        except OSError as error:
            return error


def _mark(root: str) -> tuple[int, int, int]:
    about = os.stat(root)
    return about.st_dev, about.st_ino, os.statvfs(root).f_fsid


def _top_folders(root: str) -> set[str]:
    try:
        return mounts.top_folders(root)
    except OSError:
        return set()
