"""Prunes of roots with other file systems and bind mounts in them: real ones."""

import errno
import os
import shutil
import subprocess
from contextlib import closing

import pytest

from alfwatchd import linux
from alfwatchd.alf.grammar import TRASH
from alfwatchd.errors import PruneRefused, RootOffline
from alfwatchd.prune import empty_trash, executor
from alfwatchd.prune.operations import RootCheck
from kit.alone import bind, in_own_mounts, run
from kit.prune import CLUSTERS, LAB_S1, S1, SPIKES, TRIALS, entries, plan_for, write
from kit.trash import look, move, trashed

NO_TRASH = "its file system has no trash"
OTHER_MOUNT = "another file system or mount"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    write(folder, *(f"{session}/{name}" for session in (S1, LAB_S1) for name in (SPIKES, CLUSTERS, TRIALS)))
    return folder


def apply(root, plan):
    return executor.apply_plan(root, plan, may_continue=lambda: None, log=lambda _: None)


def reasons(outcome):
    return {item.path: item.reason for item in outcome.kept if item.has_failed}


OPENAT2 = [None, errno.ENOSYS, errno.EPERM]


@pytest.fixture(params=OPENAT2, ids=["openat2", "old kernel", "sandbox"])
def openat2(request, monkeypatch):
    """The call as it is, or refused."""
    if request.param is not None:

        def refuse(path, _flags, *, dir_fd):
            raise OSError(request.param, os.strerror(request.param), path)

        monkeypatch.setattr(linux, "open_in_mount", refuse)


# Folder that a copy made of hard links is mounted over, between plan and apply.
LEVELS = ["lab", "lab/Subjects", LAB_S1.rpartition("/2020")[0], LAB_S1.rpartition("/")[0], LAB_S1, f"{LAB_S1}/alf"]


@pytest.mark.usefixtures("openat2")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("act", [apply, move])
def test_a_copy_that_is_mounted_between_plan_and_apply_stays_whole(root, tmp_path, level, act):
    def work():
        copy = tmp_path / "copy"
        shutil.copytree(root / level, copy, copy_function=os.link)
        plan, before = plan_for(root), entries(copy)
        bind(copy, root / level)
        outcome = act(root, plan)
        return entries(copy) == before, reasons(outcome)

    is_whole, kept = in_own_mounts(work)
    assert is_whole
    inside = {path for path in (SPIKES, CLUSTERS, TRIALS) if level != f"{LAB_S1}/alf" or path != TRIALS}
    assert {path for path in kept if path.startswith("lab")} >= {f"{LAB_S1}/{path}" for path in inside}
    expected = OTHER_MOUNT if level == f"{LAB_S1}/alf" else "than when the plan was made"
    assert all(expected in kept[f"{LAB_S1}/{path}"] for path in inside)
    assert not (root / S1).exists(), "the rest went"


@pytest.mark.usefixtures("openat2")
@pytest.mark.parametrize("act", [apply, move])
def test_nothing_in_a_mount_within_a_session_is_planned_or_goes(root, tmp_path, act):
    def work():
        copy = tmp_path / "copy"
        shutil.copytree(root / S1 / "alf", copy)
        bind(copy, root / S1 / "alf")
        plan = plan_for(root)
        planned = {file.path for file in plan.files}
        kept = {item.path for item in plan.kept if OTHER_MOUNT in item.reason}
        act(root, plan)
        return planned, kept, len(entries(copy))

    planned, kept, n_left = in_own_mounts(work)
    assert kept == {f"{S1}/{SPIKES}", f"{S1}/{CLUSTERS}"}
    assert f"{S1}/{TRIALS}" in planned
    assert planned.isdisjoint(kept)
    assert n_left == 3


@pytest.mark.parametrize("fs", ["tmpfs", "bind"])
def test_what_was_mounted_above_sessions_when_planned_goes_at_once_but_into_no_trash(root, tmp_path, fs):
    def work():
        if fs == "tmpfs":
            run("mount", "-t", "tmpfs", "other", root / "lab")
            write(root, *(f"{LAB_S1}/{name}" for name in (SPIKES, TRIALS)))
        else:
            shutil.copytree(root / "lab", tmp_path / "copy")
            bind(tmp_path / "copy", root / "lab")
        plan = plan_for(root)
        preview = executor.preview_plan(root, plan, may_continue=lambda: None, trash=executor.Trash(1.0))
        moved = move(root, plan)
        at_once = apply(root, plan_for(root))
        return reasons(preview), reasons(moved), [file.path for file in at_once.deleted]

    previewed, kept, gone = in_own_mounts(work)
    files = {f"{LAB_S1}/{name}" for name in ((SPIKES, TRIALS) if fs == "tmpfs" else (SPIKES, CLUSTERS, TRIALS))}
    assert dict.fromkeys(files, NO_TRASH).items() <= kept.items()
    assert previewed.items() >= dict.fromkeys(files, NO_TRASH).items()
    assert set(gone) == files


def test_a_mount_that_comes_between_prune_and_undo_keeps_the_files_in_the_trash(root):
    def work():
        before = look(root)
        plan = plan_for(root)
        move(root, plan)
        (root / LAB_S1).mkdir(parents=True)
        run("mount", "-t", "tmpfs", "other", root / LAB_S1)
        done, is_left = empty_trash.undo(root, plan.plan_id, lambda _: None)
        kept = [item.reason for item in done.kept]
        run("umount", root / LAB_S1)
        again, _ = empty_trash.undo(root, plan.plan_id, lambda _: None)
        return kept, is_left, again.kept, before.keys() == look(root).keys()

    kept, is_left, kept_again, is_back = in_own_mounts(work)
    assert (set(kept), is_left) == ({"another file system or mount is at its place now"}, True)
    assert (kept_again, is_back) == ([], True)


def test_without_a_daemon_a_change_of_mounts_below_the_root_stops_a_prune(root, tmp_path):
    def work():
        (tmp_path / "elsewhere").mkdir()
        with closing(RootCheck(root)) as guard:
            guard.check()
            run("mount", "-t", "tmpfs", "other", tmp_path / "elsewhere")
            guard.check()
            plan = plan_for(root)
            run("mount", "-t", "tmpfs", "other", root / "s/2020-01-01")
            outcome = executor.apply_plan(root, plan, may_continue=guard.check, log=lambda _: None)
            again = executor.apply_plan(root, plan, may_continue=guard.check, log=lambda _: None)
        return [(len(each.deleted), isinstance(each.stopped, RootOffline)) for each in (outcome, again)]

    assert in_own_mounts(work) == [(0, True), (0, True)]


# Other file systems as a whole.


def test_a_disk_that_is_full_refuses_and_nothing_goes(root):
    def work():
        found = []
        for options in ("size=64k", "nr_inodes=40"):
            run("mount", "-t", "tmpfs", "-o", options, "small", root)
            write(root, *(f"{S1}/{name}" for name in (SPIKES, CLUSTERS, TRIALS)))
            with pytest.raises(OSError, match="No space"):
                for number in range(100):
                    (root / f"filler{number}").write_bytes(b"x" * 4000)
            before, plan = look(root), plan_for(root)
            with pytest.raises(PruneRefused, match=r"No space.*prune\.trash_seconds = 0"):
                move(root, plan)
            found.append((look(root) == before, (root / TRASH).exists(), len(apply(root, plan).deleted)))
            run("umount", root)
        return found

    assert in_own_mounts(work) == [(True, False, 3)] * 2


def test_a_read_only_root_refuses(root):
    def work():
        bind(root, root)
        run("mount", "-o", "remount,bind,ro", root)
        plan = plan_for(root)
        with pytest.raises(PruneRefused, match=r"Read-only.*prune\.trash_seconds = 0"):
            move(root, plan)
        return set(reasons(apply(root, plan)).values())

    assert in_own_mounts(work) == {"this user may not write there (Read-only file system)"}


def bindfs(folder, target):
    if not shutil.which("bindfs"):
        pytest.skip("no bindfs")
    run("bindfs", folder, target)


def test_undo_works_where_the_file_system_refuses_the_flag(root, tmp_path):
    def work():
        (tmp_path / "seen").mkdir()
        bindfs(root, tmp_path / "seen")
        try:
            seen = tmp_path / "seen"
            fd = os.open(seen, os.O_RDONLY)
            with pytest.raises(OSError, match=r"Invalid|not implemented"):
                linux.rename_no_replace("s", "x", source_dir_fd=fd, target_dir_fd=fd)
            os.close(fd)
            before, plan = look(root), plan_for(seen)
            moved = move(seen, plan)
            n_trashed = len(trashed(seen))
            write(root, f"{S1}/{TRIALS}")
            done, is_left = empty_trash.undo(seen, plan.plan_id, lambda _: None)
            kept = [(item.path, item.reason) for item in done.kept]
            (root / S1 / TRIALS).unlink()
            empty_trash.undo(seen, plan.plan_id, lambda _: None)
            return moved.kept, n_trashed, kept, is_left, look(root) == before
        finally:
            run("umount", tmp_path / "seen")

    moved_kept, n_trashed, kept, is_left, is_back = in_own_mounts(work)
    assert (moved_kept, n_trashed, is_left, is_back) == ((), 6, True, True)
    assert kept == [(f"{S1}/{TRIALS}", "something else has its name now")]


def test_a_btrfs_subvolume_is_another_file_system(root, tmp_path):
    if not shutil.which("mkfs.btrfs"):
        pytest.skip("no btrfs")

    def work():
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(200 << 20)
        run("mkfs.btrfs", "-q", image)
        mounted = subprocess.run(["mount", "-o", "loop", image, root], check=False, capture_output=True)
        if mounted.returncode:
            return None
        try:
            (root / S1).mkdir(parents=True)
            run("btrfs", "subvolume", "create", root / S1 / "alf")
            (root / LAB_S1).parent.mkdir(parents=True)
            run("btrfs", "subvolume", "create", root / LAB_S1)
            write(root, *(f"{session}/{name}" for session in (S1, LAB_S1) for name in (SPIKES, TRIALS)))
            plan = plan_for(root)
            moved = move(root, plan)
            undone, _ = empty_trash.undo(root, plan.plan_id, lambda _: None)
            at_once = apply(root, plan_for(root))
            return (
                {item.path: item.reason for item in plan.kept}, reasons(moved), len(undone.files),
                [file.path for file in at_once.deleted],
            )  # fmt: skip
        finally:
            run("umount", root)

    found = in_own_mounts(work)
    if found is None:
        pytest.skip("no btrfs in this kernel")
    planned_kept, kept, n_back, gone = found
    assert [OTHER_MOUNT in reason for reason in planned_kept.values()] == [True]
    assert kept == {f"{LAB_S1}/{name}": NO_TRASH for name in (SPIKES, TRIALS)}
    assert n_back == 1
    assert gone == [f"{LAB_S1}/{TRIALS}", f"{LAB_S1}/{SPIKES}", f"{S1}/{TRIALS}"]


def test_a_prune_that_is_killed_on_bindfs_is_undone(root, tmp_path):
    """Between link and unlink a file has two names."""
    plan = plan_for(root)
    move(root, plan)
    slot = next((root / TRASH).glob("*/*/000000"))
    (root / LAB_S1).mkdir(parents=True)
    os.link(slot, root / LAB_S1 / TRIALS)
    done, is_left = empty_trash.undo(root, plan.plan_id, lambda _: None)
    assert (len(done.files), done.kept, is_left) == (6, [], False)
    assert (root / LAB_S1 / TRIALS).stat().st_nlink == 1


MIRRORS = {
    "an unlisted subject shows a listed one": ("lab/Subjects/m1", "lab/Subjects/q9"),
    "a listed subject shows an unlisted one": ("lab/Subjects/q9", "lab/Subjects/m1"),
    "a session shows another one": ("lab/Subjects/m1/2020-01-01/001", "lab/Subjects/m1/2020-01-01/003"),
}


@pytest.mark.parametrize("case", MIRRORS)
def test_a_listed_folder_that_a_mount_shows_at_another_path_stays(tmp_path, case):
    real, shown = MIRRORS[case]

    def work():
        root = tmp_path / "root"
        session = real if real.endswith("001") else f"{real}/2020-01-01/001"
        write(root, f"{session}/{SPIKES}", f"{session}/{TRIALS}", f"lab/Subjects/z/2020-01-01/001/{SPIKES}")
        (root / shown).mkdir(parents=True)
        bind(root / real, root / shown)
        listed = "lab/Subjects/m1/2020-01-01/001"
        plan = plan_for(root, [f"{listed}/{SPIKES}", f"{listed}/{TRIALS}"])
        apply(root, plan)
        return [file.path for file in plan.files], sorted(path.name for path in (root / session).rglob("*.npy"))

    planned, left = in_own_mounts(work)
    assert planned == [f"lab/Subjects/z/2020-01-01/001/{SPIKES}"]
    assert len(left) == 2
