"""What the kernel says of mounts, in children with mounts of their own: a disk taken for another one costs its rows."""

import os
from pathlib import Path

import pytest

from alfwatchd.scan.mounts import MountWatch, find_place, list_mounts, mounts_near, top_folders
from alfwatchd.scan.place import Relation, relate
from kit.children import bind, in_own_mounts, mount_tmpfs, unmount
from kit.trees import fast_folder, write


@pytest.fixture
def root():
    with fast_folder() as folder:
        (folder / "root").mkdir()
        yield folder / "root"


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


def test_the_mount_table_of_this_machine_can_be_read():
    mounts = list_mounts()
    assert "/" in {mount.path for mount in mounts}
    assert all(mount.path.startswith("/") and mount.fs_type for mount in mounts)
    assert len(mounts) == Path("/proc/self/mountinfo").read_bytes().count(b"\n")
