"""Guards the root and what is mounted below it: rows change only while the disk is what it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress

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
        Given all places, often; keeps them for the next run.
    """

    def __init__(self, root: str, recorded: Mapping[str, Place], record: Record = lambda _: None) -> None:
        self.root = root
        self.places = dict(recorded)
        self._record = record
        self.missing: dict[str, str] = {}
        """Mounts below the root that are not what they were -> why. Their rows are kept."""
        self.n_mount_changes = 0
        """How often mounts at, above or below the root changed, as far as noticed; while it is not open, any mounts."""
        self._mounts = mounts.MountWatch()
        self._near: list[mounts.Mount] = []
        self._is_unsure = False
        """Whether a mount could not be looked at, which may be over at any moment, without any change of mounts."""
        self._mark: tuple[int, int, int] | None = None
        self._why_closed = ""

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
        found, names = self._find(self.root), set()
        if not isinstance(found, OSError):
            try:
                names = mounts.top_folders(self.root)
            except OSError as error:
                found = error
        verdict = judge_place(self.places.get(""), found, known, names)
        if isinstance(found, OSError) or (not verdict.is_online and not accept):
            raise RootOffline(f"{self.root}: {verdict.reason}")
        if accept:
            self.places = {}
        self.places[""] = found
        self._mark, self._why_closed = (found.dev, found.ino, found.fsid), ""
        self.check_mounts()
        if not self.is_open:
            raise self.close_root(self._why_closed)

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
            raise self.close_root(f"the root cannot be read ({error.strerror})") from error
        if mark != self._mark:
            raise self.close_root(self._why_closed)

    def close_root(self, why: str = "") -> RootOffline:
        """Forget that the root was right, so that `open_root` must look again; return what is to be raised."""
        self._mark, self._why_closed = None, why
        return RootOffline(f"{self.root}: {why or 'something else is there now'}")

    def poll_mounts(self) -> bool:
        """Look at the mounts again if anything was mounted or unmounted; cheap otherwise.

        What cannot be read closes the root: `check` tells.

        Returns
        -------
        bool
            Whether anything was, anywhere, since the last call: what was seen before may be of another file system.
        """
        has_changed = self._mounts.has_changed()
        if has_changed and self.is_open:
            with suppress(RootOffline):
                self.check()  # what is mounted below another root is no matter
        if not self.is_open:
            self.n_mount_changes += has_changed
            return has_changed
        if has_changed or self._is_unsure:
            before = self._near, self.missing
            self.check_mounts()
            self.n_mount_changes += before != (self._near, self.missing)
        self._record(self.places)
        return has_changed

    def is_certain(self, path: str) -> bool:
        """Tell whether what was just seen at a path is what belongs there; if not, it may be on another look.

        Raises
        ------
        RootOffline
            The root is not what it was.
        """
        has_changed = self.poll_mounts()
        self.check()
        return not (has_changed or self.is_missing(path))

    def check_mounts(self) -> None:
        """Compare the mounts below the root with the recorded ones, and record new ones."""
        try:
            above, below = mounts.mounts_near(self.root)
        except OSError as error:
            self.close_root(f"the table of mounts cannot be read ({error.strerror})")
            return
        self._near, self.missing, self._is_unsure = [*above, *below], {}, False
        prefix, recorded = len(self.root.rstrip("/")) + 1, set(self.places)
        for path in sorted({mount.path[prefix:] for mount in below} | (self.places.keys() - {""})):
            found = self._find(f"{self.root}/{path}")
            expected = self.places.get(path)
            if isinstance(found, OSError):
                self._is_unsure = True
                if expected is not None:
                    self.missing[path] = found.strerror or "unreadable"
            elif expected is None:
                self.places[path] = found
            elif not expected.is_same_data(found):
                self.missing[path] = f"another file system is there ({found.fs_type})"
        self._forget_moved(recorded)
        self._record(self.places)

    def _forget_moved(self, recorded: AbstractSet[str]) -> None:
        """Forget where mounts were whose folders above have been renamed, if they are elsewhere below the root.

        Numbers of mounts and devices are given again, so only file systems that have an identity are known again.

        Parameters
        ----------
        recorded : set of str
            Paths that had been recorded before this look.
        """
        for path in [path for path in self.missing if not os.path.lexists(f"{self.root}/{path}")]:
            was = self.places[path]
            others = [(other, place) for other, place in self.places.items() if other and other not in self.missing]
            if was.fsid and any(
                place.is_same_data(was) and (other not in recorded or place.mount_id == was.mount_id)
                for other, place in others
            ):
                del self.places[path], self.missing[path]

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
