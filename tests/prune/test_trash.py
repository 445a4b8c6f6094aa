"""What a prune moves into the trash is whole and can come back, whatever happens while it is moved."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from alfwatchd import linux
from alfwatchd.alf.grammar import TRASH
from alfwatchd.errors import PruneRefused
from alfwatchd.scan import mounts
from kit.prune import LAB_S1, S1, S2, SPIKES, T1, TRIALS, At, HookedOs, hook_os, plan_for, write
from kit.trash import FILES, NOW, WEEK, kill_everywhere, look, make_root, move, trashed, undo
from kit.trees import index_tree

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left_open")


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / "root")


def test_a_prune_moves_flat_into_the_trash_and_undo_brings_all_back(root):
    before = look(root, times=True)
    plan, lines = plan_for(root), []
    outcome = move(root, plan, log=lines.append)
    assert ([file.path for file in outcome.deleted], outcome.kept) == (sorted(FILES), ())
    assert outcome.freed_at == NOW + WEEK
    assert not (root / "s/2020-01-01").exists()
    assert trashed(root) == sorted(f"content of {path}" for path in FILES)
    names = {path.relative_to(root / TRASH / plan.plan_id).as_posix() for path in (root / TRASH).glob("*/*/*")}
    assert names == {f"000/{number:06d}" for number in range(len(FILES))}
    for folder in (root / TRASH, root / TRASH / plan.plan_id):
        assert folder.stat().st_mode & 0o777 == 0o700
    size = len(f"content of {S1}/{SPIKES}")
    assert f"dataset moved to trash path='{S1}/{SPIKES}' file_size={size}" in lines
    lines.clear()
    done, is_left = undo(root, plan, lines.append)
    assert (len(done.files), done.kept, is_left) == (len(FILES), [], False)
    assert look(root, times=True) | {"s": 0, "t": 0, "lab": 0} == before | {"s": 0, "t": 0, "lab": 0}
    assert f"dataset moved back path='{S1}/{SPIKES}' file_size={size}" in lines
    assert not (root / TRASH).exists()


def test_no_walker_takes_the_trash_for_data(root):
    iter_sessions = pytest.importorskip("one.alf.cache").iter_sessions
    write(root, "s/2020-01-05/001/a.b.npy")
    move(root, plan_for(root, ["s/2020-01-05/001/a.b.npy"]))
    (root / TRASH / "2020-01-01/001/alf").mkdir(parents=True)  # not even if somebody makes such folders there
    write(root, f"{TRASH}/2020-01-01/001/a.b.npy", f"{TRASH}/Subjects/s/2020-01-01/001/a.b.npy")
    write(root, f"{TRASH}/x/y/Subjects/s/2020-01-01/001/a.b.npy")
    indexer = index_tree(root)
    assert {path.path for path in indexer.tables.snapshot().sessions.values()} == {"s/2020-01-05/001"}
    assert (indexer.problems(), indexer.tree.n_ignored) == ([], 0)
    assert [file.path for file in plan_for(root).files] == ["s/2020-01-05/001/a.b.npy"]
    assert mounts.top_folders(str(root)) == {"s", "t", "lab"}
    shutil.rmtree(root / TRASH / "2020-01-01")
    shutil.rmtree(root / TRASH / "x")
    shutil.rmtree(root / TRASH / "Subjects")
    assert [Path(path).relative_to(root).as_posix() for path in iter_sessions(root)] == ["s/2020-01-05/001"]


# Another file at the last moment.


def replace(file):
    file.with_name("new").write_text(file.read_text())
    shutil.copystat(file, file.with_name("new"))
    file.with_name("new").replace(file)


@pytest.mark.parametrize(
    "change", [replace, lambda file: file.write_text("as"), lambda file: os.utime(file, ns=(1, 1))]
)
def test_a_file_that_is_changed_right_before_its_move_goes_back(root, change, monkeypatch):
    plan, file = plan_for(root), root / LAB_S1 / TRIALS  # the first one to be moved
    hook = At(lambda: change(file), call=("rename", TRIALS))
    with monkeypatch.context() as patch:
        hook_os(patch, HookedOs(hook))
        outcome = move(root, plan)
    assert hook.done
    assert [(item.path, item.reason) for item in outcome.kept if item.has_failed] == [
        (f"{LAB_S1}/{TRIALS}", "has changed since the plan")
    ]
    assert file.is_file()


def test_one_that_cannot_go_back_stays_in_the_trash_and_is_never_deleted(root, monkeypatch):
    plan, file, again = plan_for(root), root / LAB_S1 / TRIALS, []

    def hook(name, path):
        if name == "rename" and path == TRIALS and not again:
            again.append(1)
            replace(file)
        elif name == "rename" and len(again) == 1 and str(path).startswith("0000"):
            again.append(2)
            file.write_text("a third one")

    with monkeypatch.context() as patch:
        hook_os(patch, HookedOs(hook))
        outcome = move(root, plan)
    assert again == [1, 2]
    assert ["cannot go back" in item.reason for item in outcome.kept if item.has_failed] == [True]
    assert file.read_text() == "a third one"
    file.rename(root / "aside")
    undo(root, plan)
    assert file.read_text() == f"content of {LAB_S1}/{TRIALS}"


# Kills.


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", ["prune", "undo", "empty"])
@pytest.mark.parametrize("flag", [True, False], ids=["flag", "no flag"])
def test_after_kill_9_at_any_call_nothing_is_lost_and_the_next_run_finishes(tmp_path, step, flag):
    # Before each call in the long form: tests/trials/test_trash.py.
    assert kill_everywhere(tmp_path / "root", step, has_flag=flag, stride=6 if step == "prune" else 3) > 20


# Places without a trash.


def test_a_full_disk_refuses_and_names_the_setting(root, monkeypatch):
    before, plan = look(root), plan_for(root)
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        for name in ("mkdir", "open", "replace"):

            def fail(called, path, name=name, code=code):
                if called == name and (name == "mkdir" or "manifest" in str(path)):
                    raise OSError(code, os.strerror(code), path)

            with monkeypatch.context() as patch:
                hook_os(patch, HookedOs(fail))
                with pytest.raises(PruneRefused, match=r"prune\.trash_seconds = 0"):
                    move(root, plan)
            assert look(root) == before
            assert not (root / TRASH).exists()


def test_what_a_rename_cannot_reach_is_kept(root, monkeypatch):
    plan = plan_for(root)

    def fail(called, path):
        if called == "rename" and path == TRIALS:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)

    with monkeypatch.context() as patch:
        hook_os(patch, HookedOs(fail))
        outcome = move(root, plan)
    reasons = {item.reason for item in outcome.kept if item.has_failed}
    assert reasons == {"its file system has no trash"}
    assert all((root / session / TRIALS).exists() for session in (S1, S2, T1, LAB_S1))
    assert outcome.has_failed


def test_without_a_way_back_nothing_is_moved(root, monkeypatch):
    """As on a file system that knows neither the flag nor hard links."""

    def refuse(*_args, **_kwargs):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    before, plan = look(root), plan_for(root)
    monkeypatch.setattr(linux, "rename_no_replace", refuse)
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(PruneRefused, match=r"prune\.trash_seconds = 0"):
        move(root, plan)
    assert look(root) == before
    assert not (root / TRASH).exists()


def test_a_prune_that_keeps_all_leaves_no_trash(root):
    plan = plan_for(root)
    for path in FILES:
        os.utime(root / path, ns=(1, 1))
    outcome = move(root, plan)
    assert (outcome.deleted, outcome.removed, outcome.freed_at) == ((), (), None)
    assert not (root / TRASH).exists()
    assert move(root, plan_for(root, FILES)).deleted == ()
    assert not (root / TRASH).exists()


def test_what_a_link_leads_to_stays(root):
    plan = plan_for(root)
    file, folder, lab = ((root / path).stat() for path in (f"{S1}/{TRIALS}", f"{S2}/alf", "lab"))
    protected = {(about.st_dev, about.st_ino) for about in (file, folder, lab)}
    outcome = move(root, plan, find_protected=lambda: protected)
    kept = {item.path for item in outcome.kept if item.reason == "a link in the root leads to it"}
    stays = {path for path in FILES if path == f"{S1}/{TRIALS}" or path.startswith((f"{S2}/alf", "lab"))}
    assert kept >= stays
    assert {path for path in FILES if (root / path).exists()} == stays


def test_a_prune_whose_client_is_gone_stops_at_the_next_file(root):
    plan, n = plan_for(root), [0]

    def is_wanted():
        n[0] += 1
        return n[0] <= 5

    outcome = move(root, plan, is_wanted=is_wanted)
    assert (len(outcome.deleted), "gone" in str(outcome.stopped)) == (4, True)  # the first session took a question too
    undo(root, plan)
    assert all((root / path).exists() for path in FILES)
