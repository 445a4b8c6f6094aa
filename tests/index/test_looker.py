"""File systems come and go while folders are looked at: no row may go for a disk that is away."""

import os

import pytest

from alfwatchd.errors import RootOffline
from alfwatchd.scan.known_data import Listed
from alfwatchd.tree.known_sample import KnownSession
from kit.children import bind, in_own_mounts, mount_tmpfs, unmount
from kit.engine import EngineBox
from kit.trees import fast_folder, indexing, listed, problems, scan_all, write

S1, T1 = "s/2020-01-01/001", "t/2020-01-01/001"


@pytest.fixture
def root():
    with fast_folder() as folder:
        (folder / "root").mkdir()
        yield folder / "root"


def offline_reason(call, *args, **more):
    with pytest.raises(RootOffline) as offline:
        call(*args, **more)
    return str(offline.value)


def open_root(guard, known=(), **more):
    guard.use_known(Listed(KnownSession((path,)) for path in sorted(known)))
    guard.open_root(**more)


@in_own_mounts
def test_rows_outlive_an_unmounted_root(root):
    mount_tmpfs(root)
    write(root, f"{S1}/a.b.c", f"{T1}/a.b.c")
    with indexing(root) as indexer:
        scan_all(indexer)
        before = listed(indexer)
        unmount(root)
        indexer.start_scan("test", 0.0)
        offline_reason(indexer.scan, 0.0)
        assert listed(indexer) == before == {S1: {"a.b.c"}, T1: {"a.b.c"}}


@in_own_mounts
def test_rows_outlive_a_disk_that_goes_between_two_looks(root):
    """The root was right when the pass began; the listing that would drop everything is not believed."""
    disk = root.with_name("disk")
    disk.mkdir()
    mount_tmpfs(disk)
    write(disk, f"{S1}/a.b.c", f"{T1}/a.b.c")
    bind(disk, root)
    with indexing(root) as indexer:
        scan_all(indexer)
        before = listed(indexer)
        real = indexer.scanner.list_folder

        class Unmounting:
            root = indexer.scanner.root

            def list_folder(self, fd, folder):
                if folder.parent is None:
                    unmount(root, lazily=True)
                    fd = os.open(root, os.O_RDONLY)
                    try:
                        return real(fd, folder)
                    finally:
                        os.close(fd)
                return real(fd, folder)

        real_scanner = indexer.scanner
        indexer.use_scanner(Unmounting())
        indexer.start_scan("test", 0.0)
        offline_reason(indexer.scan, 0.0)
        assert listed(indexer) == before
        indexer.use_scanner(real_scanner)
        bind(disk, root)
        indexer.forget_work()
        scan_all(indexer)
        assert listed(indexer) == before


@in_own_mounts
def test_rows_below_a_mount_outlive_it_and_others_go_on(root):
    disk = root.with_name("disk")
    disk.mkdir()
    mount_tmpfs(disk)
    write(root, "s/", f"{T1}/a.b.c")
    write(disk, "2020-01-01/001/a.b.c")
    bind(disk, root / "s")
    with indexing(root) as indexer:
        scan_all(indexer)
        assert listed(indexer) == {S1: {"a.b.c"}, T1: {"a.b.c"}}
        unmount(root / "s")
        (root / T1 / "a.b.c").rename(root / T1 / "x.y.z")
        scan_all(indexer)
        assert listed(indexer) == {S1: {"a.b.c"}, T1: {"x.y.z"}}
        assert problems(indexer) == {"s": "other_filesystem"}
        bind(disk, root / "s")
        (root / "s/2020-01-01/001/a.b.c").unlink()
        scan_all(indexer)
        assert listed(indexer) == {S1: frozenset(), T1: {"x.y.z"}}
        assert problems(indexer) == {}


def index_with_mount(root):
    """Return the engine of a tree with a disk mounted in a lab."""
    write(root, "x/Subjects/s/2020-01-01/001/a.b.c", "x/Subjects/t/")
    mount_tmpfs(root / "x/Subjects/t")
    write(root, "x/Subjects/t/2020-01-01/001/a.b.c")
    box = EngineBox(root)
    assert box.sync().exactness == "exact"
    return box


def change_mounts(root):
    """Let the kernel tell of a mount; it tells nothing of a mount whose folders above are renamed."""
    (root.parent / "elsewhere").mkdir(exist_ok=True)
    mount_tmpfs(root.parent / "elsewhere")


@in_own_mounts
def test_a_mount_whose_folders_above_are_renamed_comes_back_by_itself(root):
    box = index_with_mount(root)
    for before, after in (("x", "y"), ("y", "z"), ("z", "x")):
        (root / before).rename(root / after)
        change_mounts(root)
        box.now += 10
        assert box.sync().exactness == "exact"
        assert box.status().state == "live"
        assert box.status().problems == []
        assert sorted(box.paths()) == [f"{after}/Subjects/{name}/2020-01-01/001/a.b.c" for name in "st"]
    box.close()


@in_own_mounts
def test_a_mount_that_is_mounted_again_below_a_renamed_folder_comes_back_by_itself(root):
    disk = root.with_name("disk")
    disk.mkdir()
    mount_tmpfs(disk)
    write(disk, "2020-01-01/001/a.b.c")
    write(root, "x/Subjects/s/2020-01-01/001/a.b.c", "x/Subjects/t/")
    bind(disk, root / "x/Subjects/t")
    box = EngineBox(root)
    box.sync()
    unmount(root / "x/Subjects/t")
    (root / "x").rename(root / "y")
    box.now += 10
    assert box.sync().exactness == "partial"
    assert [each.path for each in box.status().problems] == ["x/Subjects/t"]
    bind(disk, root / "y/Subjects/t")
    box.now += 10
    assert box.sync().exactness == "exact"
    assert box.status().problems == []
    assert sorted(box.paths()) == [f"y/Subjects/{name}/2020-01-01/001/a.b.c" for name in "st"]
    box.close()


@in_own_mounts
def test_a_mount_that_is_not_elsewhere_is_missed_whatever_becomes_of_the_folders_above(root):
    box = index_with_mount(root)
    unmount(root / "x/Subjects/t")
    (root / "x").rename(root / "y")
    mount_tmpfs(root / "y/Subjects/t")  # another one
    box.now += 10
    assert box.sync().exactness == "partial"
    assert [each.path for each in box.status().problems] == ["x/Subjects/t"]
    box.close()


class Disturbed:
    """A scanner that lists another folder than it was given, once, at one path: what a race with `mount` amounts to."""

    def __init__(self, scanner, path, disturb):
        self.real, self.root, self.path, self.disturb = scanner, scanner.root, path, disturb
        self.excluded = scanner.excluded

    def list_folder(self, fd, folder):
        if folder.path != self.path or self.disturb is None:
            return self.real.list_folder(fd, folder)
        disturb, self.disturb = self.disturb, None
        return disturb(lambda: self.list_again(folder))

    def list_again(self, folder):
        fd = os.open(f"{self.root}/{folder.path}", os.O_RDONLY)
        try:
            return self.real.list_folder(fd, folder)
        finally:
            os.close(fd)


def mounted_disk(root, place):
    """Make a disk that can be mounted again and again."""
    disk = root.with_name("disk")
    disk.mkdir()
    mount_tmpfs(disk)
    bind(disk, place)
    return disk


@in_own_mounts
def test_a_disk_that_is_away_for_the_time_of_one_look_loses_no_row(root):
    write(root, "s/", f"{T1}/a.b.c")
    disk = mounted_disk(root, root / "s")
    write(disk, "2020-01-01/001/a.b.c")
    with indexing(root) as indexer:
        scan_all(indexer)
        before = listed(indexer)

        def blink(look):
            unmount(root / "s", lazily=True)
            found = look()
            bind(disk, root / "s")
            return found

        indexer.use_scanner(Disturbed(indexer.scanner, "s", blink))
        indexer.start_scan("test", 0.0)
        losses = []
        while indexer.queue.is_waiting:
            indexer.scan(0.0)
            losses.append(before.keys() - listed(indexer).keys())
        assert indexer.scanner.disturb is None
        assert losses == [set()] * len(losses)
        assert indexer.tree.n_dropped == 0


@in_own_mounts
@pytest.mark.parametrize("moment", ["s", f"{S1}", T1])
def test_the_first_scan_does_not_end_on_another_disk(root, moment):
    """Nothing is known yet, so nothing seems to go; but the tables of the last run would be replaced."""
    write(root, "s/2020-01-01/002/left.on.npy", "t/")  # below the mount point
    disk = mounted_disk(root, root)
    write(disk, f"{S1}/a.b.c", f"{T1}/a.b.c")
    with indexing(root) as indexer:

        def go(look):
            unmount(root, lazily=True)
            return look()

        indexer.use_scanner(Disturbed(indexer.scanner, moment, go))
        indexer.open_root()
        indexer.start_scan("test", 0.0)
        with pytest.raises(RootOffline):
            while indexer.queue.is_waiting:
                indexer.scan(0.0)
        assert (indexer.scanner.disturb, indexer.scans_done) == (None, 0)


@in_own_mounts
def test_what_goes_during_the_first_scan_is_missing_at_its_end(root):
    write(root, "s/", "t/")
    disk = mounted_disk(root, root / "s")
    write(disk, "2020-01-01/001/a.b.c")
    with indexing(root) as indexer:

        def go(look):
            unmount(root / "s", lazily=True)
            return look()

        indexer.use_scanner(Disturbed(indexer.scanner, "s", go))
        scan_all(indexer)
        assert indexer.scanner.disturb is None
        assert indexer.guard.missing.keys() == {"s"}
