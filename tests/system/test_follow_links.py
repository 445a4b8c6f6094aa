"""Two servers below one root: One reads both, prune deletes behind no link, and a server that is away loses no row."""

import os
import shutil

import pytest
from one.api import One

from kit.mount import mount_box
from kit.program import make_small_tree, program, read_tables

LAB = "lab/Subjects"
BEHIND = "other/Subjects"


@pytest.fixture
def farm(tmp_path):
    """A program whose root holds one lab, and a link to the Subjects of another one."""
    root, server = tmp_path / "root", tmp_path / "server"
    make_small_tree(root)
    make_small_tree(server, lab="other", subjects=("t1", "t2"))
    (root / "other").mkdir()
    (root / BEHIND).symlink_to(server / BEHIND)
    with program(root, flags=["--config", str(tmp_path / "config.toml")]) as made:
        (tmp_path / "config.toml").write_text("follow_links = true\n[prune]\nmax_fraction = 1.0\nenabled = true\n")
        yield made


def test_one_loads_what_is_behind_a_link(farm):
    farm.make_tables()
    one = One(cache_dir=farm.root, mode="local")
    (eid, *_) = one.search(subject="t1")
    assert one.load_dataset(eid, "spikes.times.npy").size
    assert len(one.search()) == 10


@pytest.mark.parametrize("has_daemon", [False, True])
def test_no_prune_deletes_behind_a_link(farm, tmp_path, has_daemon):
    """The reference is of the first lab only: all of the other server would go, and it is not this lab's to delete."""
    farm.make_tables()
    reference = tmp_path / "reference"
    reference.mkdir()
    (farm.root / BEHIND).unlink()
    farm.make_tables()
    for name in ("sessions.pqt", "datasets.pqt"):
        shutil.copy(farm.root / name, reference)
    (farm.root / BEHIND).symlink_to(tmp_path / "server" / BEHIND)
    session = farm.root / f"{LAB}/s1/2020-01-01/001"
    (session / "raw").symlink_to(tmp_path / f"server/{BEHIND}/t1/2020-01-01/001/alf")
    extra, kept = session / "alf/clusters.depths.npy", session / "alf/clusters.waves.npy"
    for file in (extra, kept):
        file.write_bytes(b"12345")
        os.utime(file, (0, 0))
    (tmp_path / f"server/{BEHIND}/t1/2020-01-01/001/clusters.link.npy").symlink_to(kept)
    before = sorted(path for path in (tmp_path / "server").rglob("*"))
    if has_daemon:
        farm.start(*farm.flags)
        ended = farm.run("prune", "--reference", reference, "--newer", "--apply")
    else:
        farm.run_once()
        places = [f"--root={farm.root}", f"--state-dir={farm.home / 'state'}", *farm.flags]
        ended = farm.run_bare("prune", *places, "--reference", reference, "--newer", "--apply")
    assert "moved to trash: lab/Subjects/s1/2020-01-01/001/alf/clusters.depths.npy" in ended.stdout
    assert not extra.exists()
    assert kept.exists()
    assert sorted(path for path in (tmp_path / "server").rglob("*")) == before
    assert (farm.root / BEHIND).is_symlink()
    assert (session / "raw").is_symlink()


@pytest.mark.heavy
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_server_that_is_unmounted_and_mounted_again_loses_no_row(tmp_path):
    """Its mount point is an empty folder then: this must not look as if the lab had deleted everything."""
    with mount_box(tmp_path) as box:
        root, server = tmp_path / "data", tmp_path / "server"
        make_small_tree(box.path(root))
        make_small_tree(box.path(box.disk), lab="other", subjects=("t1", "t2"))
        for place in (root / "other", server):
            box.path(place).mkdir()
        (root / BEHIND).symlink_to(server / BEHIND)
        (tmp_path / "config.toml").write_text("follow_links = true\n")
        box.run("mount", "--bind", box.disk, server)
        flags = ["--config", str(tmp_path / "config.toml")]
        with program(root, prefix=box.prefix, flags=flags) as made:
            made.start(*flags)
            assert made.client.status().n_sessions == 10
            box.unmount(server)
            made.wait(lambda: made.state == "polled")
            made.client.sync()
            status = made.client.status()
            assert (status.n_sessions, [each.kind for each in status.problems]) == (10, ["other_filesystem"])
            assert len(read_tables(made.out_dir)[0]) == 10
            shutil.rmtree(box.path(box.disk) / f"{BEHIND}/t2")
            box.run("mount", "--bind", box.disk, server)
            made.wait(lambda: made.state == "live" and made.client.status().n_sessions == 8)
            made.assert_equals_fresh_index()
            assert made.client.status().problems == []
            made.stop()
