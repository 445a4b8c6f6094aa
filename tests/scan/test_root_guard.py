"""The guard of the root: rows may go only while the disk is what it was."""

import os
import resource
import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest

from alfwatchd.errors import RootOffline
from alfwatchd.scan.known_data import Listed
from alfwatchd.scan.mounts import MountWatch, find_place
from alfwatchd.scan.place import Place
from alfwatchd.scan.root_guard import RootGuard
from alfwatchd.tree.known_sample import KnownSession
from kit.children import NOBODY, bind, in_own_mounts, mount_tmpfs, unmount
from kit.trees import fast_folder, write


@pytest.fixture
def root():
    with fast_folder() as folder:
        (folder / "root").mkdir()
        yield folder / "root"


def offline_reason(call, *args, **more):
    with pytest.raises(RootOffline) as offline:
        call(*args, **more)
    return str(offline.value)


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
    guard.use_known(Listed(KnownSession((path,)) for path in sorted(known)))
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
    assert {*os.listdir("/proc/self/fd")} <= {*before}


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


# What may be another image.


@in_own_mounts
def test_what_is_mounted_again_is_told_once(root):
    """A digest that no change time proves must not outlive a mount: another image may be there."""
    write(root, "s/", "t/")
    mount_tmpfs(root / "t")
    guard = opened(root)
    assert guard.take_remounted() == {"", "t"}
    guard.poll_mounts()
    assert guard.take_remounted() == set()
    unmount(root / "t")
    guard.poll_mounts()
    mount_tmpfs(root / "t")
    guard.poll_mounts()
    open_root(guard, accept=True)
    assert guard.take_remounted() == {"", "t"}
    guard.close_root("it was gone for a while")
    open_root(guard)
    assert guard.take_remounted() == {""}
    assert guard.take_remounted() == set()
    guard.close()


@in_own_mounts
def test_the_file_system_of_a_folder_is_that_of_the_mount_that_it_lies_in(root):
    write(root, "s/deep/", "sx/")
    mount_tmpfs(root / "s")
    guard = opened(root)
    below = find_place(str(root / "s"))
    assert [guard.place_of(path) for path in ("s", "s/deep")] == [below, below]
    assert [guard.place_of(path) for path in ("", "sx")] == [guard.places[""]] * 2
    guard.close()
    assert RootGuard(str(root), {}).place_of("s") is None


# Followed links.


@pytest.fixture
def linked(root):
    """A root with a link to a server, and the server."""
    server = root.with_name("server")
    write(server, "Subjects/m/2020-01-01/001/a.b.c", "Subjects/n/2020-01-01/001/a.b.c")
    write(root, "lab/", "other/s/")
    (root / "lab/Subjects").symlink_to(server / "Subjects")
    return server


BEHIND = {f"lab/Subjects/{subject}/2020-01-01/001" for subject in "mn"}


def test_a_followed_link_is_a_place_that_is_recorded(root, linked):
    kept = []
    guard = opened(root, BEHIND, record=lambda places: kept.append(dict(places)), follow_links=True)
    assert guard.see_links("lab", {"Subjects"}) == set()
    guard.check_mounts()
    assert kept[-1]["lab/Subjects"].is_link
    again = opened(root, BEHIND, kept[-1], follow_links=True)
    linked.rename(linked.with_name("away"))
    again.check_mounts()
    assert again.missing == {"lab/Subjects": "No such file or directory"}
    assert RootGuard(str(root), kept[-1]).places.keys() == {""}  # no link counts without the setting


def test_a_link_that_is_not_recorded_is_proven_by_the_known_sessions(root, linked):
    """The state folder was deleted while a server was away: its sessions are in the tables, and behind no folder."""
    guard = opened(root, BEHIND, follow_links=True)
    for name in ("away", "server"):
        linked.rename(linked.with_name("hidden"))
        if name == "server":
            write(root.with_name("server"), "Subjects/x/")
        assert guard.see_links("lab", {"Subjects"}) == {"Subjects"}
        assert "0 of 2 known sessions" in guard.missing["lab/Subjects"]
        assert [problem.kind for problem in guard.problems()] == ["other_filesystem"]
        guard.check_mounts()
        assert guard.is_missing("lab/Subjects/m")
        shutil.rmtree(root.with_name("server"), ignore_errors=True)
        linked.with_name("hidden").rename(linked)
        before = guard.n_mount_changes
        guard.poll_mounts()
        assert (guard.missing, guard.problems(), guard.n_mount_changes) == ({}, [], before + 1)
        guard.see_links("lab", set())


def test_a_link_is_told_from_its_target(root, linked):
    """Rows of a link that a person removed go; those of a target that is away stay."""
    guard = opened(root, BEHIND, follow_links=True)
    guard.see_links("lab", {"Subjects"})
    (root / "lab/Subjects").unlink()
    guard.check_mounts()
    assert (guard.missing, guard.places.keys()) == ({}, {""})


def test_data_behind_a_link_that_were_mounted_again_are_known(root, linked):
    """After a restart, NFS and FUSE have other numbers, and no identity: then the known sessions decide."""
    guard = opened(root, BEHIND, follow_links=True)
    guard.see_links("lab", {"Subjects"})
    place = guard.places["lab/Subjects"]
    guard.places["lab/Subjects"] = other_numbers(place)
    guard.check_mounts()
    assert (guard.missing, guard.places["lab/Subjects"].ino) == ({}, place.ino)
    shutil.rmtree(linked / "Subjects/m")
    shutil.rmtree(linked / "Subjects/n")
    guard.places["lab/Subjects"] = other_numbers(place)
    guard.check_mounts()
    assert "only 0 of 2 known sessions" in guard.missing["lab/Subjects"]


def other_numbers(place):
    return replace(place, fsid=1, dev=1, ino=2, identity=None, unique_id=0)


def test_a_mount_point_whose_name_is_not_utf_8_can_be_told(root):
    """`status` is JSON, which has no place for such a name."""
    write(root, "s/")
    place = opened(root).places[""]
    guard = opened(root, recorded={"": place, "disk\udcff": place})
    assert [(problem.kind, problem.path) for problem in guard.problems()] == [("other_filesystem", "disk\\udcff")]
