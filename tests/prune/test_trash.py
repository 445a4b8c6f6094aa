import errno
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alfwatchd import linux
from alfwatchd.alf.grammar import TRASH
from alfwatchd.errors import Busy, PruneRefused, RootOffline
from alfwatchd.prune import empty_trash, executor, trash_folder, trash_manifest
from alfwatchd.scan import mounts
from kit.prune import CLUSTERS, LAB_S1, S1, S2, SPIKES, T1, TRIALS, At, HookedOs, entries, hook_os, plan_for, write
from kit.trash import NOW, WEEK, all_bytes, kill_everywhere, look, move, trashed
from kit.trees import index_tree

FILES = [f"{session}/{name}" for session in (S1, S2, T1, LAB_S1) for name in (SPIKES, CLUSTERS, TRIALS)]


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open():
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    write(folder, *FILES)
    (folder / S1 / "raw/empty").mkdir(parents=True)
    return folder


def no_log(_line):
    pass


def undo(root, plan, log=no_log):
    return empty_trash.undo(root, plan.plan_id, log)


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


def test_a_trash_that_is_due_is_emptied_and_no_other(root):
    first = plan_for(root, [path for path in FILES if not path.startswith(S1)])
    move(root, first, now=NOW)
    second = plan_for(root)
    move(root, second, now=NOW + 100)
    lines = []
    assert empty_trash.empty_due(root, NOW + WEEK - 1, lines.append).n_files == 0
    done = empty_trash.empty_due(root, NOW + WEEK, lines.append)
    assert (done.n_files, done.plans, done.kept, len(lines)) == (3, [first.plan_id], [], 3)
    assert [each.name for each in empty_trash.survey(root)] == [second.plan_id]
    with pytest.raises(PruneRefused, match="holds nothing of plan"):
        undo(root, first)
    undo(root, second)
    assert {path for path in FILES if (root / path).exists()} == {path for path in FILES if not path.startswith(S1)}


def test_empty_takes_one_plan_or_all(root):
    first = plan_for(root, [path for path in FILES if not path.startswith(S1)])
    move(root, first)
    second = plan_for(root)
    move(root, second)
    survey = {each.name: (each.n_files, each.freed_at) for each in empty_trash.survey(root)}
    assert survey == {first.plan_id: (3, NOW + WEEK), second.plan_id: (9, NOW + WEEK)}
    done = empty_trash.empty(root, first.plan_id, no_log)
    assert (done.n_files, done.n_bytes, done.plans) == (3, first.n_bytes, [first.plan_id])
    with pytest.raises(PruneRefused):
        empty_trash.empty(root, first.plan_id, no_log)
    assert empty_trash.empty(root, None, no_log).plans == [second.plan_id]
    assert empty_trash.empty(root, None, no_log).plans == []
    assert not (root / TRASH).exists()


def test_a_file_that_was_written_to_since_its_move_is_not_emptied(root):
    plan = plan_for(root)
    with (root / S1 / SPIKES).open("a") as writer:
        move(root, plan)
        writer.write("the last words of a writer")
    done = empty_trash.empty_due(root, NOW + WEEK, no_log)
    assert [(item.path, item.reason) for item in done.kept] == [(f"{S1}/{SPIKES}", empty_trash.WRITTEN)]
    (left,) = empty_trash.survey(root)
    assert (left.n_files, left.n_written, done.plans, done.n_files) == (1, 1, [], len(FILES) - 1)
    assert [item.reason for item in empty_trash.empty(root, plan.plan_id, no_log).kept] == [empty_trash.WRITTEN]
    undo(root, plan)
    assert (root / S1 / SPIKES).read_text().endswith("the last words of a writer")


@pytest.mark.parametrize("makes", [Path.write_text, os.symlink, lambda path, _: path.mkdir()])
def test_undo_overwrites_nothing(root, makes):
    plan = plan_for(root)
    move(root, plan)
    new = root / S1 / SPIKES
    new.parent.mkdir(parents=True)
    makes(new, "new") if makes is not os.symlink else os.symlink("new", new)
    before = entries(new.parent)
    done, is_left = undo(root, plan)
    assert is_left
    assert [(item.path, item.reason) for item in done.kept] == [(f"{S1}/{SPIKES}", "something else has its name now")]
    assert entries(new.parent).items() >= before.items()
    assert trashed(root) == [f"content of {S1}/{SPIKES}"]
    shutil.rmtree(new) if new.is_dir() and not new.is_symlink() else new.unlink()
    done, is_left = undo(root, plan)
    assert (len(done.files), is_left, new.read_text()) == (1, False, f"content of {S1}/{SPIKES}")


def test_undo_restores_modes_owners_acls_and_times_of_folders(root):
    (root / S1 / "alf").chmod(0o2750)
    (root / S1).chmod(0o3711)
    os.chown(root / S1, 1234, 4321)
    os.chown(root / S1 / "alf/probe00", 77, 88)
    (root / S1 / "alf/probe00").chmod(0o500)
    acls = subprocess.run(
        ["setfacl", "-m", "u:1234:rwx,d:g:4321:rx", root / "s/2020-01-01"], capture_output=True, check=False
    )
    subprocess.run(["setfacl", "-m", "u:4321:rx", root / S2 / "alf"], check=False, capture_output=True)
    assert acls.returncode == 0
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        if path.is_dir():
            os.utime(path, ns=(10**18 + number, 10**18 + 2 * number))
    before = look(root, times=True)
    plan = plan_for(root)
    move(root, plan)
    assert not (root / S1).exists()
    done, _ = undo(root, plan)
    assert done.kept == []
    after = look(root, times=True)
    assert {path: what for path, what in after.items() if "/" in path} == {
        path: what for path, what in before.items() if "/" in path
    }


def test_hard_links_of_one_file_go_and_come_back(root):
    os.link(root / S1 / TRIALS, root / S2 / "alf/other.name.npy")
    before = look(root)
    plan = plan_for(root)
    assert move(root, plan).kept == ()
    undo(root, plan)
    assert look(root) == before
    assert (root / S1 / TRIALS).samefile(root / S2 / "alf/other.name.npy")


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


# What a lab member can plant where a group may write to the root.


def plant_link(root, elsewhere):
    (root / TRASH).symlink_to(elsewhere)


def plant_folder(root, _elsewhere):
    (root / TRASH).mkdir()
    os.chown(root / TRASH, 65534, 65534)


def plant_open_folder(root, _elsewhere):
    (root / TRASH).mkdir()
    (root / TRASH).chmod(0o770)


def plant_file(root, _elsewhere):
    (root / TRASH).write_text("")


def plant_pipe(root, _elsewhere):
    os.mkfifo(root / TRASH)


@pytest.mark.parametrize("plant", [plant_link, plant_folder, plant_open_folder, plant_file, plant_pipe])
def test_a_planted_trash_is_refused_and_nothing_goes(root, tmp_path, plant):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    before, plan = look(root), plan_for(root)
    plant(root, elsewhere)
    with pytest.raises(PruneRefused, match=r"prune\.trash_seconds = 0"):
        move(root, plan)
    assert (look(root).keys() - {TRASH}, os.listdir(elsewhere)) == (before.keys(), [])
    for call in (lambda: undo(root, plan), lambda: empty_trash.empty(root, None, no_log)):
        with pytest.raises(PruneRefused):
            call()
    empty_trash.empty_due(root, NOW + 2 * WEEK, no_log) if plant is not plant_open_folder else None
    assert look(root).keys() - {TRASH} == before.keys()


PLANTED_PLANS = ["link", "foreign", "open", "manifest link", "manifest foreign", "manifest open", "other plan"]


@pytest.mark.parametrize("how", PLANTED_PLANS)
def test_a_planted_plan_is_refused(root, tmp_path, how):
    plan = plan_for(root)
    move(root, plan)
    folder = root / TRASH / plan.plan_id
    manifest = folder / "manifest"
    match how:
        case "link":
            folder.rename(tmp_path / "moved")
            folder.symlink_to(tmp_path / "moved")
        case "foreign":
            os.chown(folder, 65534, 65534)
        case "open":
            folder.chmod(0o770)
        case "manifest link":
            manifest.rename(tmp_path / "moved")
            manifest.symlink_to(tmp_path / "moved")
        case "manifest foreign":
            os.chown(manifest, 65534, 65534)
        case "manifest open":
            manifest.chmod(0o666)
        case "other plan":
            folder = folder.rename(folder.with_name("0123456789abcdef"))
    before = entries(root)
    for call in (
        lambda: empty_trash.undo(root, folder.name, no_log),
        lambda: empty_trash.empty(root, folder.name, no_log),
    ):
        with pytest.raises(PruneRefused, match=TRASH):
            call()
    due = empty_trash.empty_due(root, NOW + 2 * WEEK, no_log)
    assert (due.n_files, len(due.kept)) == (0, 1)
    assert empty_trash.survey(root)[0].trouble
    assert entries(root) == before


# path in a manifest
FORGED = [
    "s/2020-01-01/001/../../../../outside/a.b.c",
    "../2020-01-01/001/a.b.c",
    "/s/2020-01-01/001/alf/clusters.depths.npy",
    "s/2020-01-01/001//alf/clusters.depths.npy",
    "s/2020-01-01/001/./alf/clusters.depths.npy",
    "s/2020-01-01/001/notes.txt",
    f"{TRASH}/2020-01-01/001/a.b.c",
    "s/2020-01-01/001/a.b.c\0",
    "s/a.b.c",
    "",
    None,
    7,
]


@pytest.mark.parametrize("path", FORGED)
def test_a_manifest_that_names_what_no_prune_moves_is_refused(root, path):
    plan = plan_for(root)
    move(root, plan)
    manifest = root / TRASH / plan.plan_id / "manifest"
    lines = manifest.read_bytes().splitlines(keepends=True)
    forged = trash_manifest.unseal(lines[1])
    lines[1] = trash_manifest.seal([path, *forged[1:]])
    manifest.write_bytes(b"".join(lines))
    before = entries(root)
    for call in (lambda: undo(root, plan), lambda: empty_trash.empty(root, plan.plan_id, no_log)):
        with pytest.raises(PruneRefused, match="names"):
            call()
    assert entries(root) == before


@pytest.mark.parametrize("path", ["..", "s/..", "/", "", "s/2020-01-01/001/..", TRASH, "lab/other/s", "s/x"])
def test_no_manifest_names_such_a_folder(path):
    assert not trash_manifest.is_folder_path(path)


@pytest.mark.parametrize("cut", [1, 10, 100, 1000])
def test_a_torn_or_damaged_manifest_is_refused(root, cut):
    plan = plan_for(root)
    move(root, plan)
    manifest = root / TRASH / plan.plan_id / "manifest"
    whole = manifest.read_bytes()
    damaged = whole[:cut] + bytes([whole[cut] ^ 1]) + whole[cut + 1 :]
    for content in (whole[:-cut], damaged, whole + b"more\n", b"", b"[" * 100_000 + b"\n"):
        manifest.write_bytes(content)
        for call in (lambda: undo(root, plan), lambda: empty_trash.empty(root, plan.plan_id, no_log)):
            with pytest.raises(PruneRefused, match="manifest"):
                call()
    manifest.write_bytes(whole)
    done, is_left = undo(root, plan)
    assert (len(done.files), is_left) == (len(FILES), False)


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=()), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)


@given(folders=st.lists(names, max_size=4))
def test_what_is_written_to_a_manifest_is_read_again(folders):
    path = "/".join([S1, *folders])
    folder = trash_manifest.FolderState(path, True, 1, 0o700, 2, 3, 4, 5, {"system.posix_acl_access": b"\0\xff"})
    manifest = trash_manifest.Manifest("0" * 16, "/root/\udcff", 1.5, 2.5, (), (folder,))
    assert trash_manifest.read_lines(trash_manifest.write_lines(manifest)) == manifest


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
        for name in ("mkdir", "open", "rename"):

            def fail(called, path, name=name, code=code):
                if called == name and (name == "mkdir" or str(path).startswith("manifest")):
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


def test_two_do_not_use_one_trash_at_once(root):
    plan = plan_for(root)
    move(root, plan)
    with executor.prune_walk.open_root(root) as root_fd, trash_folder.open_trash(root_fd):
        for call in (
            lambda: undo(root, plan),
            lambda: empty_trash.empty(root, None, no_log),
            lambda: move(root, plan),
        ):
            with pytest.raises(Busy, match="another prune of this root"):
                call()
        assert empty_trash.survey(root)[0].n_files == len(FILES)


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


def test_a_prune_that_nobody_wants_any_more_stops_at_the_next_file(root):
    plan, n = plan_for(root), [0]

    def is_wanted():
        n[0] += 1
        return n[0] <= 5

    outcome = move(root, plan, is_wanted=is_wanted)
    assert (len(outcome.deleted), "gone" in str(outcome.stopped)) == (4, True)  # the first session took a question too
    undo(root, plan)
    assert all((root / path).exists() for path in FILES)


def test_a_missing_root_is_told():
    with pytest.raises(RootOffline):
        empty_trash.undo(Path("/nonexistent/root"), "0" * 16, no_log)


@settings(max_examples=60)
@given(
    paths=st.sets(
        st.tuples(
            st.sampled_from([S1, S2, T1, LAB_S1]), st.sampled_from([SPIKES, CLUSTERS, TRIALS, "notes.txt", "x/"])
        ),
        max_size=12,
    ),
    listed=st.sets(st.sampled_from(FILES)),
    modes=st.lists(st.sampled_from([0o700, 0o755, 0o2770, 0o1777]), min_size=3, max_size=3),
)
def test_undo_is_the_inverse_of_a_prune(paths, listed, modes):
    with tempfile.TemporaryDirectory() as top:
        root = Path(top, "root")
        root.mkdir()
        for session, name in paths:
            path = root / session / name
            path.mkdir(parents=True, exist_ok=True) if name.endswith("/") else write(root, f"{session}/{name}")
        for number, folder in enumerate(sorted(path for path in root.rglob("*") if path.is_dir())):
            folder.chmod(modes[number % 3])
        before, contents = look(root), all_bytes(root)
        plan = plan_for(root, listed)
        outcome = move(root, plan)
        assert all_bytes(root) == contents
        assert not outcome.has_failed
        if outcome.deleted or outcome.removed:
            undo(root, plan)
        assert look(root) == before
        assert not (root / TRASH).exists()


def test_an_undo_gives_no_folder_of_another_user_away(root):
    """A kill came before the folder was made; meanwhile somebody else has made one of this name, for himself."""
    os.chown(root / S1, 1000, 1000)
    (root / S1).chmod(0o777)
    plan = plan_for(root)
    move(root, plan)
    for folder in (root / TRASH).glob("*"):
        (folder / "made-again").write_bytes(trash_manifest.seal([S1]))
    private = root / S1
    private.mkdir(parents=True, mode=0o700)
    os.chown(private, 1001, 1001)
    empty_trash.empty_due(root, NOW, no_log)
    about = private.stat()
    assert (about.st_uid, about.st_mode & 0o777) == (1001, 0o700)
    assert (root / S1 / SPIKES).exists()


def test_a_damaged_plan_keeps_no_other_one_in_the_trash(root):
    first = plan_for(root, [path for path in FILES if not path.startswith(S1)])
    move(root, first)
    second = plan_for(root)
    move(root, second)
    manifest = root / TRASH / min(first.plan_id, second.plan_id) / "manifest"  # the one that comes first
    whole = manifest.read_bytes()
    manifest.write_bytes(b"damaged")
    done = empty_trash.empty(root, None, no_log)
    assert ([item.path for item in done.kept], len(done.plans)) == ([f"{TRASH}/{manifest.parent.name}"], 1)
    manifest.write_bytes(whole)
    assert empty_trash.empty(root, None, no_log).kept == []
