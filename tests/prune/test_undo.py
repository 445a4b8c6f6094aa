"""Undo brings back all that a prune took, as it was, and overwrites nothing that was made since."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alfwatchd.alf.grammar import TRASH
from alfwatchd.prune import empty_trash, trash_manifest
from kit.prune import CLUSTERS, LAB_S1, S1, S2, SPIKES, T1, TRIALS, entries, plan_for, write
from kit.trash import FILES, NOW, all_bytes, look, make_root, move, no_log, trashed, undo

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left_open")


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / "root")


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
    """A kill came before the folder was made, and then another user made a folder of this name."""
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
