"""Prunes into the trash, and what a tree is: bytes, modes, owners, ACLs."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import stat
from pathlib import Path

import pytest

from alfwatchd import linux
from alfwatchd.alf.grammar import TRASH
from alfwatchd.errors import PruneRefused
from alfwatchd.prune import empty_trash, executor
from alfwatchd.prune.trash import Trash
from kit.prune import CALLS, CLUSTERS, LAB_S1, S1, S2, SPIKES, T1, TRIALS, HookedOs, hook_os, no_log, plan_for, write

WEEK = 604800.0
NOW = 1_700_000_000.0
FILES = [f"{session}/{name}" for session in (S1, S2, T1, LAB_S1) for name in (SPIKES, CLUSTERS, TRIALS)]
"""What `make_root` makes: three datasets in each of four sessions."""


def make_root(folder):
    """Make a root with `FILES` and an empty collection; return it."""
    write(folder, *FILES)
    (folder / S1 / "raw/empty").mkdir(parents=True)
    return folder


def move(root, plan, *, keep_seconds=WEEK, now=NOW, log=lambda _: None, **options):
    """Carry a plan out, into the trash."""
    options.setdefault("may_continue", lambda: None)
    return executor.apply_plan(root, plan, log=log, trash=Trash(keep_seconds, lambda: now), **options)


def undo(root, plan, log=no_log):
    """Bring back what a plan has moved into the trash; return what came back, and whether anything is left there."""
    return empty_trash.undo(root, plan.plan_id, log)


def look(top, *, times=False):
    """Return all below a folder but its trash: path -> bytes, mode, owner, group, ACLs, times of files."""
    found = {}
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if name != TRASH]
        for name in folders + names:
            path = Path(folder, name)
            about = path.lstat()
            is_file = stat.S_ISREG(about.st_mode)
            acls = (
                {}
                if path.is_symlink()
                else {each: os.getxattr(path, each) for each in os.listxattr(path) if "acl" in each}
            )
            found[str(path.relative_to(top))] = (
                path.read_bytes() if is_file else b"", about.st_mode, about.st_uid, about.st_gid, acls,
                (about.st_ino, about.st_mtime_ns) if is_file else about.st_mtime_ns if times else None,
            )  # fmt: skip
    return found


def trashed(root):
    """Return what files in the trash hold."""
    return sorted(path.read_text() for path in (root / TRASH).glob("*/*/*") if path.is_file())


def all_bytes(top):
    """Return the content of all files, in the trash and elsewhere, but manifests and probes, complete or not."""
    return sorted(path.read_text() for path in top.rglob("*") if path.is_file() and path.name[0] not in ".mp")


# Kills.


class KillingOs(HookedOs):
    """Ends the process before its n-th call that looks at or changes the tree."""

    names = (*HookedOs.names, "fsync", "chown", "chmod", "utime", "setxattr", "removexattr")

    def __init__(self, n):
        self.n = n
        super().__init__(self.count)

    def count(self, _name, _path):
        self.n -= 1
        if not self.n:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(n, work, *arguments):
    """Run in a forked process that is killed before its n-th call; tell whether it was."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException), pytest.MonkeyPatch.context() as patch:
            hook_os(patch, KillingOs(n))
            work(*arguments)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def kill_everywhere(root, step, *, has_flag, stride):
    """Kill a prune, an undo or an emptying at ever later calls, and see that the next run finishes; return the last.

    Parameters
    ----------
    root : Path
        Made, again and again.
    step : str
        ``prune``, ``undo`` or ``empty``.
    has_flag : bool
        Whether the file system knows RENAME_NOREPLACE; bindfs does not.
    stride : int
        At most so many calls are left out from one kill to the next.
    """
    n, was_killed = 0, True
    with pytest.MonkeyPatch.context() as patch:
        if not has_flag:
            patch.setitem(CALLS, "rename", rename_no_replace)
            patch.setattr(linux, "rename_no_replace", rename_no_replace)
        while was_killed:
            n += random.randint(1, stride)
            plan = _make_tree(root)
            before, contents = look(root), all_bytes(root)
            if step == "prune":
                was_killed = killed(n, move, root, plan)
            else:
                move(root, plan)
                work = empty_trash.undo if step == "undo" else empty_trash.empty
                was_killed = killed(n, work, root, plan.plan_id, lambda _: None)
            if step == "empty":
                _finish_empty(root, plan, contents)
            else:
                assert sorted(set(all_bytes(root))) == contents, "no file is lost"
                _finish(root, plan, before, step, n)
            assert not (root / TRASH).exists()
    return n


def rename_no_replace(_source, target, *, source_dir_fd, target_dir_fd):
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), target)


def _make_tree(root):
    shutil.rmtree(root, ignore_errors=True)
    write(root, *(f"{session}/{name}" for session in (S1, LAB_S1) for name in (CLUSTERS, TRIALS)))
    write(root, f"{S2}/{CLUSTERS}", f"{S2}/README.txt")
    (root / S1 / "raw").mkdir(mode=0o750)
    os.chown(root / S1, 1234, 4321)
    return plan_for(root)


def _finish(root, plan, before, step, n):
    """Do one of the things that may follow a kill."""
    if n % 3:
        with contextlib.suppress(PruneRefused):
            empty_trash.undo(root, plan.plan_id, lambda _: None)
        empty_trash.empty_due(root, NOW, lambda _: None)
        assert look(root) == before
    elif step == "prune":
        move(root, plan_for(root))
        assert {path for path in look(root) if (root / path).is_file()} == {f"{S2}/README.txt"}
        empty_trash.empty(root, None, lambda _: None)
    else:  # an undo was asked for: it is finished by what would empty the trash
        empty_trash.empty_due(root, NOW + WEEK, lambda _: None)


def _finish_empty(root, plan, contents):
    assert set(all_bytes(root)) <= set(contents)
    if empty_trash.list_trashed(root) and random.random() < 0.5:
        empty_trash.undo(root, plan.plan_id, lambda _: None)
    empty_trash.empty_due(root, NOW + WEEK, lambda _: None)
    assert set(all_bytes(root)) >= {f"content of {S2}/README.txt"}
