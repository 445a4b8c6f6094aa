"""Roots to prune: plans made of what is on disk, and an `os` module that lets things happen between its calls."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from alfwatchd import linux, prune, prune_look, prune_walk, trash, trash_back, trash_empty, trash_folder
from alfwatchd.core import alf
from alfwatchd.core.prune_plan import Reference, make_plan
from alfwatchd.core.rows import Session, pack_signature
from alfwatchd.core.tables import Tables
from alfwatchd.prune_look import look_at_plan
from rows import folder_rows

S1, S2, T1 = "s/2020-01-01/001", "s/2020-01-01/002", "t/2020-01-02/001"
LAB_S1 = "lab/Subjects/s/2020-01-01/001"
SPIKES, CLUSTERS, TRIALS = "alf/probe00/spikes.times.npy", "alf/clusters.depths.npy", "_ibl_trials.intervals.npy"


def write(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"content of {path}")


def take_snapshot(root):
    """List the tree as a scan would."""
    tables = Tables()
    for path in entries(root):
        if alf.parse_session(path) and (root / path).is_dir():
            tables.replace_session(take_session(root, path))
    return tables.snapshot()


def take_session(root, path):
    folders = []
    for top, _, names in os.walk(root / path):
        folder = os.path.relpath(top, root / path).removeprefix(".")
        if not folder or alf.is_collection(folder):
            signatures = {name: packed(Path(top, name)) for name in names if alf.is_dataset_name(name)}
            folders.append(folder_rows(folder, {name: value for name, value in signatures.items() if value}))
    return Session(path, tuple(filter(None, folders)), (root / path).is_symlink())


def packed(file):
    about = file.stat() if file.exists() else file.lstat()
    if not stat.S_ISREG(about.st_mode):
        return None
    return pack_signature(about.st_size, about.st_mtime_ns, about.st_ino, file.is_symlink())


def entries(top):
    """Return all below a folder, links not followed: path -> what it is."""
    found = {}
    for folder, folders, names in os.walk(top):
        for name in folders + names:
            about = os.lstat(os.path.join(folder, name))
            size = about.st_size if not stat.S_ISDIR(about.st_mode) else 0
            found[os.path.relpath(os.path.join(folder, name), top)] = (stat.S_IFMT(about.st_mode), about.st_ino, size)
    return found


def plan_for(root, reference=(), *, remove_empty_sessions=True):
    """Plan with the paths of the reference's datasets; one that ends in `/` is a session without datasets."""
    sessions = {}
    for path in reference:
        session, rel_path = alf.split_dataset(path) or (path.rstrip("/"), None)
        rel_paths = sessions.setdefault(alf.parse_session(session).eid_path, set())
        if rel_path:
            rel_paths.add(rel_path)
    plan = make_plan(
        take_snapshot(root),
        Reference("reference", sessions),
        lab="",
        remove_empty_sessions=remove_empty_sessions,
        max_fraction=None,
    )
    return look_at_plan(root, plan)


_CALLS = {"open": linux.open_in_mount, "stat": linux.statx, "rename": linux.rename_no_replace}
"""As they are: the hooks of one test must not pile up."""


def hook_os(patch, hooked):
    """Let all modules of prune that touch the tree use an `os` module with hooks, and `linux` as well."""
    for module in (prune, prune_walk, prune_look, trash, trash_folder, trash_back, trash_empty):
        patch.setattr(module, "os", hooked)
    for call, function in _CALLS.items():
        patch.setattr(linux, function.__name__, _hooked(function, call, hooked.hook))


def _hooked(call, name, hook):
    def hooked(path, *args, **kwargs):
        hook(name, path)
        return call(path, *args, **kwargs)

    return hooked


class HookedOs:
    """The `os` module with `hook(name, path)` called before each call that looks at or changes the tree."""

    names = ("open", "stat", "unlink", "rmdir", "scandir", "rename", "mkdir", "link")

    def __init__(self, hook):
        self.hook = hook

    def __getattr__(self, name):
        call = getattr(os, name)
        if name not in self.names:
            return call
        return _hooked(call, name, self.hook)


class At:
    """A hook that acts once: before call number `n`, or before the first call of a name, or for a name and path."""

    def __init__(self, action, *, n=None, call=None):
        self.action, self.n, self.call = action, n, call
        self.calls = 0
        self.done = False

    def __call__(self, name, path):
        self.calls += 1
        if not self.done and (self.calls == self.n or self.call in (name, (name, path))):
            self.done = True
            self.action()
