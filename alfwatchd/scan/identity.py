"""Tells whether a path leads to the folder that belongs there."""

from __future__ import annotations

import os

from alfwatchd.scan.root_guard import RootGuard
from alfwatchd.scan.scanner import tells_other_inodes
from alfwatchd.tree.folder import NOT_LISTED, Folder


class Identities:
    """What is known of the devices and inodes of folders beyond the tree.

    Parameters
    ----------
    root : str
        Absolute path, links resolved.
    guard : RootGuard
    """

    def __init__(self, root: str, guard: RootGuard) -> None:
        self._root = root
        self._guard = guard
        self._odd_devices: set[int] = set()

    def lead_elsewhere(self, folder: Folder, about: os.stat_result) -> bool:
        """Tell whether a path led to another folder than the one that belongs there, and remember to which.

        Another process may rename a folder above it, and rename it back. Meanwhile the path leads to another folder; no
        event would ever correct a row that was taken from there. The parent's listing tells which folder belongs here.
        """
        found = about.st_dev, about.st_ino
        expected = folder.dev, folder.ino
        is_inode_told = folder.parent is not None and (folder.is_link or folder.parent.dev == about.st_dev)
        if is_inode_told and folder.entry_ino not in (NOT_LISTED, about.st_ino) and not self._is_odd(folder, found[0]):
            expected = about.st_dev, folder.entry_ino
        folder.dev, folder.ino = found
        return expected[1] != NOT_LISTED and found != expected

    def _is_odd(self, folder: Folder, dev: int) -> bool:
        """Tell whether a listing may name another inode than its folder has: mounts, and some file systems."""
        if dev in self._odd_devices:
            return True
        self._guard.poll_mounts()
        if folder.path in self._guard.places:
            return True
        if not folder.is_link and tells_other_inodes(self._root, folder):
            self._odd_devices.add(dev)
        return dev in self._odd_devices
