"""Roots to prune: plans made of what is on disk, and an `os` module that lets things happen between its calls."""

from __future__ import annotations

import datetime
import os
import stat
from pathlib import Path

from alfwatchd import atomic, files, linux
from alfwatchd.alf import grammar
from alfwatchd.prune import empty_trash, executor, operations, survey, trash, trash_folder, undo, walk
from alfwatchd.prune.reference import Origin, make_reference
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot, Tables, TablesView
from kit.rows import datasets_of, folder_rows, sessions_of

S1, S2, T1 = "s/2020-01-01/001", "s/2020-01-01/002", "t/2020-01-02/001"
LAB_S1 = "lab/Subjects/u/2020-01-01/001"
SPIKES, CLUSTERS, TRIALS = "alf/probe00/spikes.times.npy", "alf/clusters.depths.npy", "_ibl_trials.intervals.npy"

COMMON = "listed/2000-01-01/001"
"""A session that every plan has in common with its reference: else it would be refused."""
ORIGIN = Origin("/reference", datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))


def write(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"content of {path}")


def take_snapshot(root):
    """List the tree as a scan would."""
    tables = Tables()
    for path in entries(root):
        if grammar.parse_session(path) and (root / path).is_dir():
            tables.replace_session(take_session(root, path))
    return tables.snapshot()


def take_session(root, path):
    folders = []
    for top, _, names in os.walk(root / path):
        folder = os.path.relpath(top, root / path).removeprefix(".")
        if not folder or grammar.is_collection(folder):
            signatures = {name: packed(Path(top, name)) for name in names if grammar.is_dataset_name(name)}
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


def reference_of(listed, origin=ORIGIN):
    """Make a reference: `SessionKey.eid_path` -> rel_paths, or rel_path -> what differs in its row."""
    sessions, datasets = [], []
    for path, rel_paths in listed.items():
        *lab, subject, date, number = path.split("/")
        when = datetime.date.fromisoformat(date)
        sessions.append({"id": path, "lab": "".join(lab), "subject": subject, "date": when, "number": int(number)})
        more = rel_paths if isinstance(rel_paths, dict) else {name: {} for name in sorted(rel_paths)}
        datasets += [{"eid": path, "rel_path": name, "file_size": 1} | row for name, row in more.items()]
    return make_reference(origin, sessions_of(*sessions), datasets_of(*datasets))


def plan_for(root, reference=(), *, remove_empty_sessions=True, margin_seconds=None):
    """Plan with the paths of the reference's datasets; one that ends in `/` is a session without datasets."""
    sessions = {COMMON: {"a.b.c"}}
    for path in reference:
        session, rel_path = grammar.split_dataset(path) or (path.rstrip("/"), None)
        rel_paths = sessions.setdefault(grammar.parse_session(session).eid_path, set())
        if rel_path:
            rel_paths.add(rel_path)
    snapshot = take_snapshot(root)
    return operations.plan_for(
        root,
        TablesView(Snapshot(1, {**snapshot.sessions, COMMON: Session(COMMON)}), ()),
        reference_of(sessions),
        remove_empty_sessions=remove_empty_sessions,
        margin_seconds=margin_seconds,
    )


CALLS = {"open": linux.open_in_mount, "stat": linux.statx, "rename": linux.rename_no_replace}
"""As they are: the hooks of one test must not pile up."""


def hook_os(patch, hooked):
    """Let the modules of prune, and those that open and write files for them, use an `os` module with hooks."""
    for module in (executor, walk, survey, trash, trash_folder, undo, empty_trash, atomic, files):
        patch.setattr(module, "os", hooked)
    for call, function in CALLS.items():
        patch.setattr(linux, function.__name__, _hooked(function, call, hooked.hook))


def _hooked(call, name, hook):
    def hooked(path, *args, **kwargs):
        hook(name, path)
        return call(path, *args, **kwargs)

    return hooked


class HookedOs:
    """The `os` module with `hook(name, path)` called before each call that looks at or changes the tree."""

    names = ("open", "stat", "unlink", "rmdir", "scandir", "rename", "replace", "mkdir", "link")

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


def go_on():
    """Let a prune go on: a `may_continue`."""


def no_log(_line):
    """Take a line of the log and forget it."""


def apply(root, plan, *, may_continue=go_on, log=no_log, excluded=None):
    """Preview and apply; both must come to the same, and the preview must change nothing."""
    before = entries(root)
    preview = executor.preview_plan(root, plan, may_continue=go_on, excluded=excluded)
    assert entries(root) == before
    outcome = executor.apply_plan(root, plan, may_continue=may_continue, log=log, excluded=excluded)
    if outcome.stopped is None:
        assert preview == outcome
    gone = before.keys() - entries(root).keys()
    assert gone >= {file.path for file in outcome.deleted} | set(outcome.removed)
    assert entries(root).keys() <= before.keys()
    return outcome


def deleted(outcome):
    """Return the paths of the files that went."""
    return [file.path for file in outcome.deleted]


def kept(outcome):
    """Return path -> reason of what stays."""
    return {item.path: item.reason for item in outcome.kept}
