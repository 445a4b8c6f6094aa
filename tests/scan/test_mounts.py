"""File systems come and go, in children with mounts of their own."""

import os
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from alfwatchd.errors import RootOffline
from alfwatchd.scan.known_data import Listed
from alfwatchd.scan.mounts import MountWatch, find_place, list_mounts, mounts_near, top_folders
from alfwatchd.scan.place import Place, Relation, relate
from alfwatchd.scan.root_guard import RootGuard
from alfwatchd.tree.known_sample import KnownSession
from kit.children import NOBODY, bind, in_own_mounts, mount_tmpfs, unmount
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


# Places.


def test_a_place_is_what_the_kernel_says(root):
    place = find_place(str(root))
    about = root.stat()
    assert (place.fsid, place.dev, place.ino) == (os.statvfs(root).f_fsid, about.st_dev, about.st_ino)
    mount = next(mount for mount in list_mounts() if mount.mount_id == place.mount_id)
    assert place.fs_type == mount.fs_type
    assert root.is_relative_to(mount.path)
    assert find_place(str(root)) == place
    (root / "link").symlink_to(root)
    assert find_place(str(root / "link")) == place


def test_a_place_is_a_folder(root):
    write(root, "file")
    for path, error in (("missing", FileNotFoundError), ("file", NotADirectoryError)):
        with pytest.raises(error):
            find_place(str(root / path))


def test_descriptors_are_closed(root):
    before = sorted(os.listdir("/proc/self/fd"))
    find_place(str(root))
    with pytest.raises(OSError, match="missing"):
        find_place(str(root / "missing"))
    watch = MountWatch()
    guard = RootGuard(str(root), {})
    open_root(guard, set())
    watch.close()
    guard.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


@in_own_mounts
def test_file_systems_with_equal_numbers_are_told_apart(root):
    """Device and inode numbers are given again: two disks, one after the other, can look the same to stat(2)."""
    found = []
    for _ in range(3):
        mount_tmpfs(root)
        found.append(find_place(str(root)))
        unmount(root)
    assert len({(place.dev, place.ino) for place in found}) < 3  # else this test shows nothing
    assert {place.fs_type for place in found} == {"tmpfs"}
    assert not any(one.is_same_mount(other) for one in found for other in found if one is not other)
    if found[0].identity is not None:  # Linux 6.9
        assert len({place.identity for place in found}) == 3


@in_own_mounts
def test_the_same_file_system_mounted_again_is_the_same_data(root):
    disk, place = root / "disk", root / "place"
    for folder in (disk, place):
        folder.mkdir()
    mount_tmpfs(disk)
    found = []
    for _ in range(2):
        bind(disk, place)
        found.append(find_place(str(place)))
        unmount(place)
    first, second = found
    assert not first.is_same_mount(second)
    for other in (second, find_place(str(disk))):
        assert relate(first, other) is (Relation.SAME if first.identity is not None else Relation.UNKNOWN)
    assert relate(first, find_place(str(place))) is not Relation.SAME


def test_top_folders_are_folders_and_links_to_folders(root):
    write(root, "a/", "b/c/", "file")
    (root / "link").symlink_to("a")
    (root / "dangling").symlink_to("nothing")
    (root / "loop").symlink_to("loop")
    (root / "long").symlink_to("x" * 300)
    assert top_folders(str(root)) == {"a", "b", "link"}


# The mount table.

ODD_NAMES = [
    "a b",
    "tab\t",
    "newline\n",
    "back\\slash",
    "return\r",
    "form\x0cfeed",
    "\u2028",
    "Ä",
    "b\udcff",
    "#",
    "\\040",
]


@in_own_mounts
def test_mounts_below_a_folder_whatever_their_names(root):
    for name in [*ODD_NAMES, "plain/deep"]:
        (root / name).mkdir(parents=True)
        mount_tmpfs(root / name)
    sibling = root.parent / "root2"
    sibling.mkdir()
    mount_tmpfs(sibling)
    found = {path: mount.fs_type for path, mount in below(root).items()}
    assert found == dict.fromkeys([str(root / name) for name in [*ODD_NAMES, "plain/deep"]], "tmpfs")
    assert below(f"{root}/") == below(root)
    assert below(root / "plain").keys() == {str(root / "plain/deep")}
    assert below(root / "plain/deep") == {}
    assert below("/").keys() >= found.keys()
    for path, mount in below(root).items():
        assert find_place(path).mount_id == mount.mount_id


def below(folder):
    return {mount.path: mount for mount in mounts_near(str(folder))[1]}


@in_own_mounts
def test_mounts_on_a_folder_and_above_it(root):
    deep = root / "a/b"
    deep.mkdir(parents=True)
    mount_tmpfs(root)
    deep.mkdir(parents=True)
    mount_tmpfs(deep)
    above = [mount.path for mount in mounts_near(str(deep))[0]]
    assert above[0] == "/"
    assert above[-2:] == [str(root), str(deep)]


@in_own_mounts
def test_each_change_of_the_mount_table_is_told_once(root):
    one, other = MountWatch(), MountWatch()
    assert not one.has_changed()
    mount_tmpfs(root)
    assert (one.has_changed(), one.has_changed()) == (True, False)
    (root / "x").mkdir()
    mount_tmpfs(root / "x")
    unmount(root / "x")
    assert (one.has_changed(), one.has_changed()) == (True, False)
    unmount(root, lazily=True)
    assert (one.has_changed(), one.has_changed()) == (True, False)
    assert (other.has_changed(), other.has_changed()) == (True, False)  # each watch has its own eyes


# The guard of the root.


@pytest.fixture
def guard(root):
    guard = RootGuard(str(root), {})
    yield guard
    guard.close()


def opened(root, known=(), recorded=None, **more):
    guard = RootGuard(str(root), recorded or {}, **more)
    open_root(guard, known)
    return guard


def open_root(guard, known=(), **more):
    guard.known = Listed(KnownSession((path,)) for path in sorted(known))
    guard.open_root(**more)


def test_a_root_that_stays_is_fine(root, guard):
    assert not guard.is_open
    open_root(guard, set())
    for name in ("a", "b"):
        write(root, f"{name}/")
        guard.check()
    assert (guard.is_open, guard.places.keys(), guard.missing, guard.problems()) == (True, {""}, {}, [])
    assert guard.fs_types == {find_place(str(root)).fs_type}


@pytest.mark.parametrize("replace", [False, True])
def test_a_root_that_is_removed_is_offline(root, guard, replace):
    write(root, "s/", "t/")
    open_root(guard, set())
    root.rename(root.with_name("away"))
    if replace:
        write(root, "other/")
    reason = offline_reason(guard.check)
    assert reason.startswith(f"{root}: ")
    assert ("something else is there now" if replace else "No such file") in reason
    assert not guard.is_open
    expected = "another file system than before" if replace else "cannot be read (No such file or directory)"
    assert expected in offline_reason(open_root, guard, {"s", "t"})
    shutil.rmtree(root, ignore_errors=True)
    root.with_name("away").rename(root)
    open_root(guard, {"s", "t"})
    guard.check()


def test_a_root_that_is_a_file_is_offline(root, guard):
    root.rmdir()
    root.write_text("")
    assert "Not a directory" in offline_reason(open_root, guard, set())


def test_a_root_must_be_opened_first(guard):
    assert "something else" in offline_reason(guard.check)


def test_a_root_that_was_closed_must_be_opened_again(guard):
    open_root(guard, set())
    guard.close_root()
    assert not guard.is_open
    offline_reason(guard.check)
    open_root(guard, set())
    guard.check()


def test_a_root_can_be_accepted_as_it_is(root, guard):
    guard.places = {"": Place(1, 2, 3, 4, "other"), "gone": Place(5, 6, 7, 8, "other")}
    write(root, "new/")
    assert "another file system than before" in offline_reason(open_root, guard, {"s", "t"})
    open_root(guard, {"s", "t"}, accept=True)
    assert guard.places == {"": find_place(str(root))}
    guard.check()
    assert guard.problems() == []
    root.rename(root.with_name("away"))
    offline_reason(open_root, guard, {"s"}, accept=True)  # nothing is there to be accepted


@in_own_mounts
def test_an_unmounted_root_is_offline_until_it_is_back(root):
    disk = root.with_name("disk")
    disk.mkdir()
    mount_tmpfs(disk)
    write(disk, "s/", "t/")
    bind(disk, root)
    guard = opened(root)
    unmount(root)
    assert "something else" in offline_reason(guard.check)
    assert "suddenly empty" in offline_reason(open_root, guard, {"s", "t"})
    write(root, "lost+found/")  # what lies in the mount point below
    assert "another file system than before" in offline_reason(open_root, guard, {"s", "t"})
    bind(disk, root)
    open_root(guard, {"s", "t"})
    guard.check()


@in_own_mounts
def test_another_disk_at_the_same_place_is_not_the_root(root):
    mount_tmpfs(root)
    write(root, "s/", "t/")
    guard = opened(root)
    before = guard.places[""]
    unmount(root)
    mount_tmpfs(root)
    # Whether the numbers of stat(2) tell it or not:
    offline_reason(guard.check)
    write(root, "x/")
    assert "another file system than before (tmpfs)" in offline_reason(open_root, guard, {"s", "t"})
    write(root, "s/", "t/")
    if before.identity is not None:  # Linux 6.9: that it looks alike is no proof
        assert "another file system than before (tmpfs)" in offline_reason(open_root, guard, {"s", "t"})
    open_root(guard, {"s", "t"}, accept=before.identity is not None)
    assert guard.places[""] == find_place(str(root))


@in_own_mounts
def test_something_mounted_over_the_root_hides_it(root):
    write(root, "s/", "t/")
    guard = opened(root)
    mount_tmpfs(root)
    offline_reason(guard.check)
    assert "suddenly empty" in offline_reason(open_root, guard, {"s"})
    unmount(root, lazily=True)
    open_root(guard, {"s"})
    guard.check()


# Mounts below the root.


@in_own_mounts
def test_mounts_below_are_recorded_and_missed(root):
    write(root, "s/", "a b/", "plain/")
    mount_tmpfs(root / "s")
    mount_tmpfs(root / "a b")
    records = []
    guard = opened(root, record=lambda places: records.append(dict(places)) if places not in records[-1:] else None)
    assert guard.places == {path: find_place(str(root / path)) for path in ("", "s", "a b")}
    assert (records, guard.missing) == ([guard.places], {})
    unmount(root / "a b")
    assert guard.missing == {}
    guard.poll_mounts()
    assert guard.missing.keys() == {"a b"}
    assert [(problem.kind, problem.path) for problem in guard.problems()] == [("other_filesystem", "a b")]
    asked = ["a b", "a b/x", "a", "a bc", "s", "s/x", "", "plain"]
    assert [path for path in asked if guard.is_missing(path)] == ["a b", "a b/x"]
    assert guard.places.keys() == {"", "s", "a b"}
    mount_tmpfs(root / "a b")
    guard.poll_mounts()
    assert guard.missing == {"a b": "another file system is there (tmpfs)"}
    assert len(records) == 1
    open_root(guard, set(), accept=True)
    assert (guard.missing, guard.places["a b"]) == ({}, find_place(str(root / "a b")))
    assert records[1:] == [guard.places]


@in_own_mounts
def test_a_mount_is_missed_after_a_restart_too_until_it_is_back(root):
    disk = root.with_name("disk")
    disk.mkdir()
    mount_tmpfs(disk)
    write(root, "s/", "t/")
    bind(disk, root / "s")
    recorded = opened(root).places
    unmount(root / "s")
    guard = opened(root, {"s", "t"}, recorded)
    assert guard.missing.keys() == {"s"}
    (root / "s").rmdir()
    guard.check_mounts()
    assert guard.missing == {"s": "No such file or directory"}
    (root / "s").mkdir()
    bind(disk, root / "s")
    guard.poll_mounts()
    assert (guard.missing, guard.problems()) == ({}, [])


@in_own_mounts
def test_a_folder_that_a_sandbox_mounts_on_itself_is_no_other_one(root):
    """`ReadWritePaths=` of a unit; `--once` runs outside of it with the same state."""
    write(root, "s/", "t/")
    bind(root / "s", root / "s")
    guard = opened(root, {"s", "t"})
    assert guard.places.keys() == {"", "s"}
    unmount(root / "s")
    guard.poll_mounts()
    assert guard.missing == {}
    again = opened(root, {"s", "t"}, guard.places)
    assert again.missing == {}


@in_own_mounts
def test_what_is_mounted_elsewhere_is_no_matter(root):
    guard = opened(root)
    other = root.with_name("other")
    other.mkdir()
    mount_tmpfs(other)
    assert guard.poll_mounts()
    assert (guard.n_mount_changes, guard.places.keys(), guard.missing) == (0, {""}, {})  # else containers cost scans
    assert not guard.poll_mounts()
    mount_tmpfs(root.parent)  # above: whether it matters, the guard of the root tells
    assert guard.poll_mounts()
    unmount(root.parent)
    open_root(guard, set())
    unmount(other)
    guard.poll_mounts()
    mount_tmpfs(root.parent)
    offline_reason(guard.check)
    before = guard.n_mount_changes
    unmount(root.parent)
    assert guard.poll_mounts()
    assert guard.n_mount_changes == before + 1  # any may bring it back


# Rows.


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

        real_scanner, indexer.scanner = indexer.scanner, Unmounting()
        indexer.start_scan("test", 0.0)
        offline_reason(indexer.scan, 0.0)
        assert listed(indexer) == before
        indexer.scanner = real_scanner
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


def test_the_mount_table_of_this_machine_can_be_read():
    mounts = list_mounts()
    assert "/" in {mount.path for mount in mounts}
    assert all(mount.path.startswith("/") and mount.fs_type for mount in mounts)
    assert len(mounts) == Path("/proc/self/mountinfo").read_bytes().count(b"\n")


class Disturbed:
    """A scanner that lists another folder than it was given, once, at one path: what a race with `mount` amounts to."""

    def __init__(self, scanner, path, disturb):
        self.real, self.root, self.path, self.disturb = scanner, scanner.root, path, disturb

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

        indexer.scanner = Disturbed(indexer.scanner, "s", blink)
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

        indexer.scanner = Disturbed(indexer.scanner, moment, go)
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

        indexer.scanner = Disturbed(indexer.scanner, "s", go)
        scan_all(indexer)
        assert indexer.scanner.disturb is None
        assert indexer.guard.missing.keys() == {"s"}


# When the guard cannot see.


@contextmanager
def no_descriptors():
    """Let no file be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@in_own_mounts
def test_a_mount_table_that_cannot_be_read_closes_the_root(root):
    """Else what was unmounted meanwhile would be taken for deleted."""
    write(root, "s/", "t/")
    mount_tmpfs(root / "s")
    guard = opened(root)
    unmount(root / "s")
    with no_descriptors():
        guard.poll_mounts()
        assert not guard.is_open
        assert "cannot be read (Too many open files)" in offline_reason(guard.check)
        assert "Too many open files" in offline_reason(open_root, guard, {"s", "t"})
    open_root(guard, {"s", "t"})
    assert guard.missing.keys() == {"s"}


@in_own_mounts
def test_a_mount_that_cannot_be_looked_at_is_missing_no_longer_than_that(root):
    write(root, "s/", "t/")
    mount_tmpfs(root / "s")
    guard = opened(root)
    (root / "s").chmod(0)
    mount_tmpfs(root / "t")
    os.seteuid(NOBODY)
    guard.poll_mounts()
    assert guard.missing == {"s": "Permission denied"}
    os.seteuid(0)
    before = guard.n_mount_changes
    assert not guard.poll_mounts()
    assert guard.missing == {}
    assert guard.n_mount_changes == before + 1  # so that somebody looks at it


@in_own_mounts
def test_mounts_of_another_root_are_not_recorded(root):
    write(root, "s/", "t/")
    guard = opened(root)
    mount_tmpfs(root)
    write(root, "x/")
    mount_tmpfs(root / "x")
    guard.poll_mounts()
    assert not guard.is_open
    offline_reason(guard.check)
    unmount(root / "x")
    unmount(root)
    open_root(guard, {"s", "t"})
    assert (guard.places.keys(), guard.missing) == ({""}, {})


def test_places_are_recorded_until_they_are(root):
    kept = []
    guard = opened(root, record=lambda places: kept.append(dict(places)))
    guard.poll_mounts()
    guard.poll_mounts()
    assert len(kept) >= 3
    assert all(each == guard.places for each in kept)
    guard.close()
