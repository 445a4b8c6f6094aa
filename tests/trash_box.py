"""Prunes into the trash, and what a tree is: bytes, modes, owners, ACLs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from alfwatchd import prune
from alfwatchd.core.alf import TRASH
from alfwatchd.trash import Trash

WEEK = 604800.0
NOW = 1_700_000_000.0


def move(root, plan, *, keep_seconds=WEEK, now=NOW, log=lambda _: None, **options):
    """Carry a plan out, into the trash."""
    options.setdefault("may_continue", lambda: None)
    return prune.apply_plan(root, plan, log=log, trash=Trash(keep_seconds, lambda: now), **options)


def look(top, *, times=False):
    """Return all below a folder but its trash: path -> bytes, mode, owner, group, ACLs, times of files."""
    found = {}
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if name != TRASH]
        for name in folders + names:
            path = Path(folder, name)
            about = path.lstat()
            is_file = stat.S_ISREG(about.st_mode)
            acls = {each: os.getxattr(path, each) for each in os.listxattr(path) if "acl" in each}
            found[str(path.relative_to(top))] = (
                path.read_bytes() if is_file else b"", about.st_mode, about.st_uid, about.st_gid, acls,
                (about.st_ino, about.st_mtime_ns) if is_file else about.st_mtime_ns if times else None,
            )  # fmt: skip
    return found


def trashed(root):
    """Return what files in the trash hold."""
    return sorted(path.read_text() for path in (root / TRASH).glob("*/*/*") if path.is_file())
