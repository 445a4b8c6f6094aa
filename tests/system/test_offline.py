"""The guard, with real mounts: whatever happens to the disk, only what was deleted loses its rows."""

import os
import random
import re
import shutil
import time
from contextlib import contextmanager

import pytest

from alfwatchd.errors import RootOffline
from kit.mount import mount_box
from kit.program import listed, make_small_tree, program, read_tables, walk

pytestmark = pytest.mark.heavy

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
LAB = "lab/Subjects"


@pytest.fixture
def box(tmp_path):
    with mount_box(tmp_path) as made:
        make_small_tree(made.path(made.disk))
        made.mount_disk()
        yield made


@pytest.fixture
def boxed(box, tmp_path):
    """A program whose root is a mounted disk, and whose tables are elsewhere."""
    (tmp_path / "tables").mkdir()
    with program(box.root, tmp_path / "tables", prefix=box.prefix) as made:
        yield made


@pytest.fixture
def plain(tmp_path):
    """A program on a plain folder."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "root").mkdir()
    with program(make_small_tree(tmp_path / "root"), tmp_path / "tables") as made:
        yield made


@contextmanager
def untouched(made):
    """The tables on disk stay the very same files."""
    before = [made.out_dir.joinpath(name).stat() for name in ("sessions.pqt", "datasets.pqt")]
    counts = made.client.status().n_sessions, made.client.status().n_datasets
    yield
    status = made.client.status()
    assert (status.n_sessions, status.n_datasets) == counts
    after = [made.out_dir.joinpath(name).stat() for name in ("sessions.pqt", "datasets.pqt")]
    assert [(file.st_ino, file.st_mtime_ns) for file in after] == [(file.st_ino, file.st_mtime_ns) for file in before]


def assert_offline(made, why):
    """Every command that promises something about the disk fails, at once, and says since when and why."""
    errors = [made.run("sync", code=1).stderr]
    for request in (made.client.flush, made.client.rescan):
        with pytest.raises(RootOffline) as failed:
            request()
        assert failed.value.exit_code == 1
        errors.append(str(failed.value))
    for error in errors:
        assert why in error
        assert re.search(r"offline since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", error)
    status = made.client.status()
    assert status.state == "offline"
    assert why in status.detail


def assert_live(made, root=None):
    """The daemon is back, and the tables are right."""
    made.assert_equals_fresh_index()
    root = root or made.root
    assert listed(made.out_dir, root) == walk(root)
    assert made.client.status().state == "live"


@needs_root
def test_an_unmounted_root_keeps_its_rows_until_it_is_back(box, boxed):
    boxed.start()
    with untouched(boxed):
        box.unmount()
        assert_offline(boxed, "the root is suddenly empty")  # the folder below the mount point is
        shutil.rmtree(box.path(box.disk) / LAB / "s1")  # through another mount: no event tells
    box.mount_disk()
    assert_live(boxed, box.path(box.root))
    assert not any("/s1/" in path for path in listed(boxed.out_dir, box.path(box.root)))


@needs_root
def test_it_goes_offline_and_comes_back_without_being_asked(box, boxed):
    boxed.start()
    with untouched(boxed):
        box.unmount()
        boxed.wait(lambda: boxed.client.status().state == "offline")
    box.mount_disk()
    boxed.wait(lambda: boxed.client.status().state == "live")
    assert_live(boxed, box.path(box.root))


@needs_root
@pytest.mark.timeout(1200)
def test_nothing_is_written_to_what_is_mounted_over_tables_in_the_root(box, scale):
    """Neither tables nor a lock: they would keep the strange disk busy, and its own tables would be replaced."""
    with program(box.root, box.root, prefix=box.prefix) as made:
        made.start()
        before = listed(box.path(box.root), box.path(box.root))
        for _ in range(scale(3, 60)):
            time.sleep(random.uniform(0, 2))  # it looks for its tables, and for its lock, every two seconds
            box.mount_tmpfs(box.root)
            made.wait(lambda: made.client.status().state == "offline")
            assert os.listdir(box.path(box.root)) == []
            box.unmount(lazily=False)  # nothing keeps it busy
            made.wait(lambda: made.client.status().state == "live")
        made.client.sync()
        assert listed(box.path(box.root), box.path(box.root)) == before
        assert "flush failed" not in made.log


@needs_root
@pytest.mark.parametrize("lab", ["lab", "otherlab"])
def test_what_lies_below_the_mount_point_is_not_taken_for_the_data(box, boxed, lab):
    """A rig goes on copying while the disk is not mounted: same lab, new session."""
    make_small_tree(box.root, lab, ["new"])
    boxed.start()
    with untouched(boxed):
        box.unmount()
        assert_offline(boxed, "the root is another file system than before")
    box.mount_disk()
    assert_live(boxed, box.path(box.root))


@needs_root
def test_another_disk_is_only_taken_when_a_person_says_so(box, boxed):
    boxed.start()
    with untouched(boxed):
        box.mount_tmpfs(box.root)
        assert_offline(boxed, "the root is suddenly empty")
        make_small_tree(box.path(box.root), "otherlab", ["o1", "o2"])
        assert_offline(boxed, "the root is another file system than before (tmpfs)")
    boxed.run("rescan", "--accept-root")
    assert_live(boxed, box.path(box.root))
    boxed.stop()
    boxed.start()  # what was accepted is remembered
    assert_live(boxed, box.path(box.root))
    box.unmount()  # and the first disk is the other one now
    assert_offline(boxed, "the root is another file system than before")


def test_a_root_that_is_renamed_away_and_back(plain):
    plain.start()
    away = plain.root.with_name("away")
    with untouched(plain):
        plain.root.rename(away)
        assert_offline(plain, "the root cannot be read (No such file or directory)")
        plain.root.mkdir()
        assert_offline(plain, "the root is suddenly empty")
    plain.root.rmdir()
    (away / LAB / "s2/2020-01-01/002/added.later.npy").write_bytes(b"1")
    away.rename(plain.root)
    assert_live(plain)


def test_a_root_that_was_emptied_while_no_daemon_ran(plain):
    plain.start()
    plain.stop()
    shutil.move(plain.root / "lab", plain.root.with_name("lab"))
    plain.start(wait=False)
    plain.wait(lambda: plain.state == "offline")
    before = listed(plain.out_dir, plain.root)
    assert len(before) == 12
    assert_offline(plain, "the root is suddenly empty")
    plain.stop()  # also offline, it ends well
    assert listed(plain.out_dir, plain.root) == before

    error = plain.run_once(code=1).stderr
    assert "suddenly empty" in error
    assert "--accept-root" in error
    assert listed(plain.out_dir, plain.root) == before

    plain.run_once("--accept-root")
    assert [len(table) for table in read_tables(plain.out_dir)] == [0, 0]
    plain.run_once()  # what was accepted is remembered


def test_a_root_that_is_deleted_for_real_loses_its_rows(plain):
    plain.start()
    shutil.rmtree(plain.root / "lab")
    assert_live(plain)
    assert [len(table) for table in read_tables(plain.out_dir)] == [0, 0]
    plain.stop()
    plain.start()
    make_small_tree(plain.root)
    assert_live(plain)


@needs_root
def test_what_is_mounted_below_the_root_is_guarded_alike(box, boxed):
    subject = box.root / LAB / "mounted"
    box.path(subject).mkdir()
    boxed.start()
    box.mount_tmpfs(subject)
    make_small_tree(box.path(box.root / LAB), "mounted", ["deep"])  # junk in the layout, but for what follows
    shutil.move(box.path(subject) / "Subjects/deep/2020-01-01", box.path(subject) / "2020-01-01")
    assert_live(boxed, box.path(box.root))
    everything = listed(boxed.out_dir, box.path(box.root))

    box.unmount(subject)
    boxed.client.sync()
    (problem,) = boxed.client.status().problems
    assert (problem.kind, problem.path) == ("other_filesystem", f"{LAB}/mounted")
    box.path(subject).rmdir()  # not even the mount point is left
    shutil.rmtree(box.path(box.root) / LAB / "s1")  # elsewhere, life goes on
    assert boxed.client.sync().exactness == "partial"
    kept = {path: size for path, size in everything.items() if "/s1/" not in path}
    assert listed(boxed.out_dir, box.path(box.root)) == kept

    boxed.stop()
    boxed.start()  # a restart does not lose them either
    assert listed(boxed.out_dir, box.path(box.root)) == kept
    assert [problem.path for problem in boxed.client.status().problems] == [f"{LAB}/mounted"]

    boxed.run("rescan", "--accept-root")
    assert_live(boxed, box.path(box.root))
    assert not any("/mounted/" in path for path in listed(boxed.out_dir, box.path(box.root)))
    assert boxed.client.status().problems == []


@needs_root
def test_what_a_mount_covers_is_back_when_it_is_gone(box, boxed):
    session = box.root / LAB / "s1/2020-01-01/001"
    boxed.start()
    box.mount_tmpfs(session)
    box.path(session / "covering.disk.npy").write_bytes(b"1")
    assert_live_after = walk(box.path(box.root))
    boxed.wait(lambda: boxed.client.status().n_datasets == len(assert_live_after))
    box.unmount(session)
    boxed.wait(lambda: boxed.client.status().problems != [])
    assert boxed.client.sync().exactness == "partial"
    assert listed(boxed.out_dir, box.path(box.root)) == assert_live_after
    boxed.run("rescan", "--accept-root")
    assert_live(boxed, box.path(box.root))


@pytest.fixture
def unprivileged(plain):
    """A program that may not read everything, as most are; for root, without the power to do so nonetheless."""
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("there is no setpriv, and root can read everything")
        plain.prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    return plain


@pytest.mark.parametrize("folder", ["s1", "s1/2020-01-01/001/alf"])
def test_a_folder_that_cannot_be_read_keeps_its_rows(unprivileged, folder):
    unprivileged.start()
    everything = walk(unprivileged.root)
    locked = unprivileged.root / LAB / folder
    locked.chmod(0)
    try:
        (unprivileged.root / LAB / "s2/2020-01-01/001/_ibl_trials.choice.npy").unlink()
        assert unprivileged.client.sync().exactness == "partial"
        status = unprivileged.client.status()
        assert [(each.kind, each.path) for each in status.problems] == [("unreadable", f"{LAB}/{folder}")]
        assert (status.state, "cannot be read" in status.detail) == ("polled", True)
        kept = {path: size for path, size in everything.items() if "s2/2020-01-01/001/_ibl" not in path}
        assert listed(unprivileged.out_dir, unprivileged.root) == kept

        unprivileged.stop()
        unprivileged.start()  # from the tables, as nothing else knows them now
        assert listed(unprivileged.out_dir, unprivileged.root) == kept
        assert unprivileged.client.sync().exactness == "partial"
        assert [each.path for each in unprivileged.client.status().problems] == [f"{LAB}/{folder}"]
    finally:
        locked.chmod(0o755)
    assert unprivileged.client.sync().exactness == "exact"
    assert unprivileged.client.status().problems == []
    assert_live(unprivileged)


@pytest.mark.parametrize("name", ["sessions.pqt", "datasets.pqt"])
def test_tables_that_cannot_be_read_are_not_replaced(unprivileged, name):
    """Rows of what cannot be read now, and the columns of other programs, are nowhere else."""
    unprivileged.start()
    unprivileged.stop()
    table = unprivileged.out_dir / name
    before = table.read_bytes()
    table.chmod(0)
    unprivileged.start(wait=False)
    assert unprivileged.process.wait(20) == 1
    unprivileged.process = None
    assert f"{table}: cannot be read (Permission denied)" in unprivileged.log
    assert f"{table}: cannot be read" in unprivileged.run_once(code=1).stderr
    table.chmod(0o644)
    assert table.read_bytes() == before
    unprivileged.start()
    assert_live(unprivileged)


def test_links_that_lead_nowhere_do_not_keep_the_root_offline(unprivileged):
    private = unprivileged.home / "private"
    (private / "folder").mkdir(parents=True)
    (unprivileged.root / "loop").symlink_to("loop")
    (unprivileged.root / "private").symlink_to(private / "folder")
    unprivileged.start()
    unprivileged.stop()
    private.chmod(0)
    try:
        unprivileged.start()
        assert_live(unprivileged)
    finally:
        private.chmod(0o755)


def test_a_root_that_cannot_be_read_is_offline(unprivileged):
    unprivileged.start()
    with untouched(unprivileged):
        unprivileged.root.chmod(0)
        try:
            assert_offline(unprivileged, "Permission denied")
        finally:
            unprivileged.root.chmod(0o755)
    assert_live(unprivileged)
