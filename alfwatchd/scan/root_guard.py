"""Guards the root, mounts below it and targets of links in it: rows change only while each is what it was."""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from alfwatchd.alf import grammar
from alfwatchd.alf.grammar import Kind
from alfwatchd.alf.printable import printable
from alfwatchd.errors import RootOffline
from alfwatchd.scan import mounts
from alfwatchd.scan.known_data import Known, Listed, look_for
from alfwatchd.scan.place import Place, Relation, Seen, describe, judge_data, judge_place, relate, upwards, with_proof
from alfwatchd.tree.rows import Problem

Record = Callable[[Mapping[str, Place]], None]


class RootGuard:
    """Remembers the root and the mounts below it, and tells whether they are still the same.

    Parameters
    ----------
    root : str
        Absolute path, links resolved.
    recorded : mapping of str to Place
        Places of an earlier run, by path relative to the root; the root itself is ''. Links are among them if they were
        followed.
    record : callable
        Given all places, often; keeps them for the next run.
    follow_links : bool
        Whether links are followed; if not, those that were recorded are forgotten.
    """

    def __init__(
        self,
        root: str,
        recorded: Mapping[str, Place],
        record: Record = lambda _: None,
        *,
        follow_links: bool = False,
    ) -> None:
        self.root = root
        self.places = {path: place for path, place in recorded.items() if follow_links or not place.is_link}
        self._links: dict[str, set[str]] = {}
        """Folder -> names of the followed links in it that led somewhere, or still do."""
        self._unproven: set[str] = set()
        """Links of which nothing is recorded, and that lead nowhere, or to other data than are known there."""
        for path, place in self.places.items():
            if place.is_link:
                self._links.setdefault(path.rpartition("/")[0], set()).add(path.rpartition("/")[2])
        self._known: Known = Listed()
        self._record = record
        self.missing: dict[str, str] = {}
        """Mounts below the root, and links in it, that are missing or lead elsewhere -> why. Their rows are kept."""
        self.n_mount_changes = 0
        """How often mounts at, above or below the root were seen to change. While it is not open, all mounts count."""
        self._remounted: set[str] = set()
        self._mounts = mounts.MountWatch()
        self._near: list[mounts.Mount] = []
        self._is_unsure = False
        """Whether a mount could not be looked at, which may be over at any moment, without any change of mounts."""
        self._numbers: tuple[int, int, int] | None = None
        """Device, inode and file system id of the root, by which it is known again; None while it is offline."""
        self._why_closed = ""

    @property
    def is_open(self) -> bool:
        """Whether the root was found to be right, by `open_root`, and nothing has changed since, as far as known."""
        return self._numbers is not None

    def use_known(self, known: Known) -> None:
        """Set the sessions that should be there: they decide if identities do not."""
        self._known = known

    @property
    def fs_types(self) -> set[str]:
        """Types of the file systems of the root and below it."""
        return {place.fs_type for place in self.places.values()}

    def place_of(self, path: str) -> Place | None:
        """Return the file system that a folder, relative to the root, is on; None if it is not known."""
        # Asked for each folder of a scan; there may be a thousand links.
        return next((self.places[each] for each in upwards(path) if each in self.places), None)

    def open_root(self, *, accept: bool = False) -> None:
        """Look whether the root is the same as before, and remember it.

        Parameters
        ----------
        accept : bool
            Accept root and mounts as they are now.

        Raises
        ------
        RootOffline
            It is another one, or missing; nothing is remembered.
        """
        self._take_root(accept=accept)
        self.check_mounts()
        if not self.is_open:
            raise self.close_root(self._why_closed)

    def _take_root(self, *, accept: bool) -> None:
        """Judge the root, and remember what it is; raises as `open_root`."""
        found, is_empty = self._find(self.root), True
        if not isinstance(found, OSError):
            try:
                is_empty = not mounts.top_folders(self.root)
            except OSError as error:
                found = error
        expected, look = self.places.get(""), self._make_look("")
        is_known = not self._known.is_empty()
        verdict = judge_place(expected, found, is_known=is_known, is_empty=is_empty, look=look)
        if isinstance(found, OSError) or (not verdict.is_online and not accept):
            raise RootOffline(f"{self.root}: {verdict.reason}")
        if accept:
            self.places, self._links, self._unproven = {}, {}, set()
        if accept or not self.is_open or expected is None or not expected.may_be_same_mount(found):
            self._remounted.add("")
        self.places[""] = found if accept else with_proof(expected, found, look)
        self._numbers, self._why_closed = (found.dev, found.ino, found.fsid), ""

    def check(self) -> None:
        """Make sure that the root is still the folder that was opened. This takes two system calls.

        Raises
        ------
        RootOffline
            It is not; `open_root` must succeed first.
        """
        try:
            numbers = _numbers_of(self.root)
        except OSError as error:
            raise self.close_root(f"the root cannot be read ({error.strerror})") from error
        if numbers != self._numbers:
            raise self.close_root(self._why_closed)

    def close_root(self, why: str = "") -> RootOffline:
        """Close the root until `open_root` has looked again; return the error to raise."""
        self._numbers, self._why_closed = None, why
        return RootOffline(f"{self.root}: {why or 'something else is there now'}")

    def poll_mounts(self) -> bool:
        """Look at the mounts again if anything was mounted or unmounted; cheap otherwise.

        If the mounts cannot be read, the root is closed, and `check` says so.

        Returns
        -------
        bool
            Whether anything was mounted or unmounted, anywhere, since the last call. If so, what was seen before may
            belong to another file system.
        """
        has_changed = self._mounts.has_changed()
        if has_changed and self.is_open:
            with suppress(RootOffline):
                self.check()  # mounts below another root do not concern this one
                self._check_mounted_again()
        if not self.is_open:
            self.n_mount_changes += has_changed
            return has_changed
        if has_changed or self._is_unsure:
            before = self._near, self.missing
            self.check_mounts()
            self.n_mount_changes += before != (self._near, self.missing)
        self._record(self.places)
        return has_changed

    def _check_mounted_again(self) -> None:
        """Judge the root again if it may be another mount that got the same device and inode numbers.

        Raises
        ------
        RootOffline
            It is missing, or another disk or folder than before.
        """
        before = self.places[""]
        if before.unique_id and mounts.unique_mount_id(self.root) == before.unique_id:
            return
        try:
            self._take_root(accept=False)
        except RootOffline as error:
            raise self.close_root(str(error).removeprefix(f"{self.root}: ")) from error
        self.n_mount_changes += before.unique_id != self.places[""].unique_id

    def is_certain(self, path: str) -> bool:
        """Tell whether what was just seen at a path is what belongs there; if not, it may be on another look.

        Raises
        ------
        RootOffline
            The root is missing, or another disk or folder than before.
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
        was_missing, self.missing = self.missing, {}
        self._near, self._is_unsure = [*above, *below], False
        prefix, recorded = len(self.root.rstrip("/")) + 1, set(self.places)
        mounted = {mount.path[prefix:] for mount in below}
        for path in sorted(mounted | (self.places.keys() - {""})):
            found = self._find(f"{self.root}/{path}")
            expected = self.places.get(path)
            if expected is not None and expected.is_link and self._is_no_link(path):
                self._forget_link(path)
                continue
            if isinstance(found, OSError):
                self._is_unsure = True
                if expected is not None:
                    self.missing[path] = found.strerror or "unreadable"
            elif expected is None:
                self.places[path] = found
                self._remounted.add(path)
            elif not (expected.is_same_mount(found) and path not in was_missing):
                self._remounted |= {path} & was_missing.keys()
                self._judge_mount(path, expected, found, is_mounted=path in mounted)
        for path in sorted(self._unproven):
            self._see_link(path)
        self._forget_moved(recorded)
        self._record(self.places)

    def _judge_mount(self, path: str, expected: Place, found: Place, *, is_mounted: bool) -> None:
        """Tell whether a mount below the root is what it was, and remember it if it is."""
        look, relation, reason = self._make_look(path), relate(expected, found), ""
        # The sandbox of a service mounts folders on themselves; outside of it they are the same ones. What a link leads
        # to may have moved, or be mounted again, if known sessions can tell.
        may_be = is_mounted or expected.is_same_folder(found) or (expected.is_link and look().n_known)
        if relation is Relation.DIFFERENT or not may_be:
            what = "the link leads to another folder" if expected.is_link else "another file system is there"
            reason = f"{what} {describe(found)}"
        elif relation is Relation.UNKNOWN and (why := judge_data(expected, look())):
            reason = f"another file system, or another folder, is there {describe(found)}: {why}"
        if reason:
            self.missing[path] = reason
        else:
            self.places[path] = replace(with_proof(expected, found, look), is_link=expected.is_link)
            if not expected.may_be_same_mount(found):
                self._remounted.add(path)

    def see_links(self, folder: str, names: AbstractSet[str]) -> set[str]:
        """Judge where the followed links in a folder lead, as its listing has just shown them.

        Parameters
        ----------
        folder : str
            Relative to the root.
        names : set of str
            All links in it that lead out of the root, or nowhere.

        Returns
        -------
        set of str
            Those that lead nowhere, or to something else than before: their rows stay as they are.
        """
        before, prefix = set(self.missing), f"{folder}/" if folder else ""
        unproven = {path[len(prefix) :] for path in self._unproven if path.rpartition("/")[0] == folder}
        for name in (self._links.get(folder, set()) | unproven) - names:
            self._forget_link(prefix + name)
        for name in names:
            self._see_link(prefix + name)
        self.n_mount_changes += before != self.missing.keys()
        return {name for name in names if prefix + name in self.missing}

    def leads_elsewhere(self, path: str, about: os.stat_result) -> bool:
        """Tell whether a followed link led to another folder than the one that `see_links` has judged."""
        place = self.places.get(path)
        return place is not None and place.is_link and (place.dev, place.ino) != (about.st_dev, about.st_ino)

    def _see_link(self, path: str) -> None:
        expected = self.places.get(path)
        with suppress(OSError):
            if path not in self.missing and not self.leads_elsewhere(path, os.stat(f"{self.root}/{path}")) and expected:
                return
        found = self._find(f"{self.root}/{path}")
        self.missing.pop(path, None)
        self._unproven.discard(path)
        if expected is None:
            self._meet_link(path, found)
        elif isinstance(found, OSError):
            self.missing[path], self._is_unsure = found.strerror or "unreadable", True
        else:
            self._judge_mount(path, expected, found, is_mounted=False)

    def _meet_link(self, path: str, found: Place | OSError) -> None:
        """Record where a link leads of which nothing is recorded, unless the data that are known there are away."""
        kind, is_lost = grammar.kind_of(path), isinstance(found, OSError)
        seen = self._make_look(path)() if kind is not None and kind < Kind.SESSION else Seen()
        reason = judge_data(None, seen)
        if reason:
            self.missing[path], self._is_unsure = reason, True
        if reason or is_lost:
            self._unproven.add(path)
        elif not isinstance(found, OSError):
            self.places[path] = replace(found, is_link=True)
            folder, _, name = path.rpartition("/")
            self._links.setdefault(folder, set()).add(name)

    def _is_no_link(self, path: str) -> bool:
        """Tell whether a followed link was removed or replaced, as far as what holds it can be seen."""
        if self.is_missing(path):  # what is mounted above it is
            return False
        try:
            return not stat.S_ISLNK(os.lstat(f"{self.root}/{path}").st_mode)
        except OSError as error:
            return error.errno in (errno.ENOENT, errno.ENOTDIR)

    def _forget_link(self, path: str) -> None:
        """Forget a link that is gone; what was behind it is judged as any other folder that is gone."""
        folder, _, name = path.rpartition("/")
        self._links.get(folder, set()).discard(name)
        self._unproven.discard(path)
        self.places.pop(path, None)
        self.missing.pop(path, None)

    def _make_look(self, path: str) -> Callable[[], Seen]:
        """Return how to look, once, for the known sessions below one mount and not below those in it."""
        inside = f"{path}/" if path else ""
        others = tuple(f"{each}/" for each in self.places if each != path and each.startswith(inside))

        def belongs(session: str) -> bool:
            return session.startswith(inside) and not f"{session}/".startswith(others)

        return functools.cache(lambda: look_for(self.root, self._known.sample(belongs)))

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
            if any(
                place.is_same_mount(was)
                or (relate(was, place) is Relation.SAME and (other not in recorded or place.mount_id == was.mount_id))
                for other, place in others
            ):
                del self.places[path], self.missing[path]

    def take_remounted(self) -> set[str]:
        """Return where something was mounted since the last call, with the root of then: it may be another image."""
        remounted, self._remounted = self._remounted, set()
        return remounted

    def is_missing(self, path: str) -> bool:
        """Tell whether a folder is, or lies in, a mount that is missing or replaced."""
        return bool(self.missing) and any(each in self.missing for each in upwards(path) if each)

    def problems(self) -> list[Problem]:
        """Return one problem per mount or link that is missing or leads elsewhere."""
        found = [
            Problem(
                "other_filesystem", printable(path),
                f"{reason}: its rows are kept; mount it again, or run `alfwatchd rescan --accept-root` to accept "
                "the folder as it is",
            )
            for path, reason in sorted(self.missing.items())
        ]  # fmt: skip
        return found + [
            Problem("link_nowhere", path, "this link leads nowhere that can be read: mount its target, or remove it")
            for path in sorted(self._unproven - self.missing.keys())
            if Path(f"{self.root}/{path}").is_symlink()
        ]

    def close(self) -> None:
        """Release the mount table."""
        self._mounts.close()

    def _find(self, path: str) -> Place | OSError:
        try:
            return mounts.find_place(path)
        except OSError as error:
            return error


def _numbers_of(root: str) -> tuple[int, int, int]:
    about = os.stat(root)
    return about.st_dev, about.st_ino, os.statvfs(root).f_fsid
