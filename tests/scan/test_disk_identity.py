"""Which disk it is: real file systems from images, FUSE pools, and a kernel that refuses to tell."""

import os
import shutil
import subprocess

import pytest

from alfwatchd.errors import RootOffline
from alfwatchd.scan.known_data import Listed
from alfwatchd.scan.mounts import find_place
from alfwatchd.scan.place import Relation, relate
from alfwatchd.scan.root_guard import RootGuard
from alfwatchd.tree.known_sample import KnownSession
from kit.children import bind, in_child, in_own_mounts, mount_tmpfs, unmount
from kit.disk_images import attach, detach, make_image, mount, refuse_ioctls
from kit.trees import write

KINDS = {"ext4": "ext", "xfs": "xfs", "btrfs": "btrfs"}
OURS = [f"lab/Subjects/s{number}/2020-01-01/001" for number in range(4)]
OTHERS = [f"lab/Subjects/other{number}/2020-01-01/001" for number in range(4)]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def fill(root, sessions):
    write(root, *(f"{each}/alf/a.b.npy" for each in sessions))


def known(root, sessions=OURS, *, with_inodes=True):
    inodes = {each: os.stat(root / each).st_ino if with_inodes else 0 for each in sessions}
    return Listed(KnownSession((path,), ino) for path, ino in inodes.items())


def why_offline(guard):
    with pytest.raises(RootOffline) as failed:
        guard.open_root()
    return str(failed.value)


@pytest.fixture(params=[False, True], ids=["ioctl", "ioctl refused"])
def is_refused(request):
    return request.param


@in_own_mounts
def test_a_disk_is_known_wherever_it_is_mounted(root):
    other = root.with_name("other")
    other.mkdir()
    for fs_type, kind in KINDS.items():
        first, second = (make_image(root.with_name(f"{fs_type}{number}"), fs_type) for number in range(2))
        mount(first, root)
        place = find_place(str(root))
        assert (place.fs_type, place.identity.kind) == (fs_type, kind)
        mount(second, other)
        assert relate(place, find_place(str(other))) is Relation.DIFFERENT
        unmount(root)
        spare = attach(first)  # another device name
        mount(spare, root)
        again = find_place(str(root))
        assert relate(place, again) is Relation.SAME
        assert not place.is_same_mount(again)
        unmount(root)
        unmount(other)
        detach(spare)


@in_own_mounts
def test_subvolumes_are_told_apart(root):
    mount(make_image(root.with_name("image"), "btrfs"), root)
    for name in ("a", "b"):
        subprocess.run(["btrfs", "subvolume", "create", root / name], check=True, capture_output=True)
    places = [find_place(str(root / name)) for name in ("a", "b")]
    assert relate(*places) is Relation.DIFFERENT


@in_own_mounts
def test_a_kernel_that_refuses_makes_it_unknown_and_never_different(root):
    for fs_type in KINDS:
        mount(make_image(root.with_name(fs_type), fs_type), root)
        told = find_place(str(root))

        def ask():
            refuse_ioctls()
            return find_place(str(root))

        refused = in_child(ask)
        if fs_type == "ext4":  # statvfs tells
            assert relate(told, refused) is Relation.SAME
        else:
            assert refused.identity is None
            assert relate(told, refused) is relate(refused, told) is Relation.UNKNOWN
        unmount(root)


@pytest.fixture
def devices(root, fs_type):
    """Yield the loop devices of two images, which may be given to other images."""
    made = []
    try:
        images = [make_image(root.with_name(f"image{number}"), fs_type) for number in range(2)]
        made.extend(map(attach, images))
        yield made
    finally:
        for device in made:
            detach(device, must=False)


@pytest.mark.parametrize("fs_type", KINDS)
@in_own_mounts
def test_another_disk_of_the_same_lab_at_the_same_device(root, devices, fs_type, is_refused):
    """Two drives that take turns: equal root inodes, and for XFS equal fsids."""
    for device, sessions in zip(devices, (OURS, OTHERS), strict=True):
        mount(device, root)
        fill(root, sessions)
        unmount(root)
    if is_refused:
        refuse_ioctls()
    mount(devices[0], root)
    guard = RootGuard(str(root), {})
    guard.use_known(known(root))
    guard.open_root()
    unmount(root)
    if is_refused:  # losetup needs ioctls
        mount(devices[1], root)
    else:
        detach(devices[0])
        attach(root.with_name("image1"), devices[0])
        mount(devices[0], root)
    guard.poll_mounts()
    with pytest.raises(RootOffline):
        guard.check()
    assert "another file system than before" in why_offline(guard)
    unmount(root)
    if is_refused:
        mount(devices[0], root)
        guard.open_root()


@pytest.mark.parametrize("fs_type", KINDS)
@pytest.mark.parametrize("has_inodes", [True, False], ids=["inodes known", "inodes lost"])
@in_own_mounts
def test_a_backup_of_the_disk(root, devices, fs_type, is_refused, has_inodes):
    """Names alone would accept an old backup."""
    mount(devices[1], root)
    fill(root, ["x/2020-01-01/001", *reversed(OURS)])
    unmount(root)
    mount(devices[0], root)
    fill(root, OURS)
    if is_refused:
        refuse_ioctls()
    guard = RootGuard(str(root), {})
    guard.use_known(known(root, with_inodes=has_inodes))
    guard.open_root()
    unmount(root)
    mount(devices[1], root)
    is_told = fs_type == "ext4" or not is_refused
    if is_told or has_inodes:
        assert "another file system than before" in why_offline(guard)
        guard.open_root(accept=True)
    else:
        guard.open_root()


@in_own_mounts
def test_a_restart_with_lost_state_asks_the_data(root):
    mount_tmpfs(root)
    fill(root, OURS[:2])
    guard, expected = RootGuard(str(root), {}), Listed(KnownSession((f"lost/{path}", path)) for path in OURS)
    guard.use_known(expected)
    guard.open_root()
    shutil.rmtree(root / OURS[0])
    again = RootGuard(str(root), {})
    again.use_known(expected)
    assert "only 1 of 4 known sessions" in why_offline(again)


# FUSE: no identity at all.


@pytest.fixture
def pool(tmp_path):
    if not shutil.which("mergerfs"):
        pytest.skip("there is no mergerfs")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no FUSE here")

    def make(*branches):
        for each in branches:
            (tmp_path / each).mkdir(exist_ok=True)
        source = ":".join(str(tmp_path / each) for each in branches)
        subprocess.run(["mergerfs", source, tmp_path / "root"], check=True, capture_output=True)

    return make


@in_own_mounts
def test_another_pool_is_not_the_root_and_the_same_one_comes_back(root, pool, tmp_path):
    fill(tmp_path / "a", OURS)
    fill(tmp_path / "b", OTHERS)
    pool("a", "c")
    guard = RootGuard(str(root), {})
    guard.use_known(known(root))
    guard.open_root()
    assert guard.places[""].identity is None
    unmount(root)
    pool("b")
    guard.poll_mounts()
    assert not guard.is_open
    assert "another file system than before (fuse.mergerfs)" in why_offline(guard)
    unmount(root)
    os.rename(tmp_path / "a", tmp_path / "renamed")
    shutil.copytree(tmp_path / "renamed", tmp_path / "a")  # other inodes, and one disk more
    pool("a", "c", "d")
    guard.open_root()
    guard.check()
    unmount(root)


@in_own_mounts
def test_a_pool_below_the_root_is_guarded_alike(root, pool, tmp_path):
    fill(root, ["lab2/Subjects/s/2020-01-01/001"])
    (root / "lab").mkdir()
    below = {name: [each.removeprefix("lab/") for each in sessions] for name, sessions in (("a", OURS), ("b", OTHERS))}
    for name, sessions in below.items():
        fill(tmp_path / name, sessions)
    bind(root / "lab", root / "lab")
    unmount(root / "lab")
    command = ["mergerfs", "{}", str(root / "lab")]

    def mount_pool(branch):
        subprocess.run([part.format(tmp_path / branch) for part in command], check=True, capture_output=True)

    mount_pool("a")
    guard = RootGuard(str(root), {})
    guard.use_known(known(root, [*OURS, "lab2/Subjects/s/2020-01-01/001"]))
    guard.open_root()
    assert guard.missing == {}
    unmount(root / "lab")
    mount_pool("b")
    guard.poll_mounts()
    assert guard.missing.keys() == {"lab"}
    assert guard.is_open
    unmount(root / "lab")
    guard.poll_mounts()
    assert guard.missing.keys() == {"lab"}
    mount_pool("a")
    guard.poll_mounts()
    assert guard.missing == {}
    unmount(root / "lab")


@in_own_mounts
def test_inode_numbers_are_proven_by_a_remount(root, tmp_path):
    """No list of types knows all file systems: one that has kept its numbers once is held to that."""
    mount_tmpfs(tmp_path / "root")
    fill(root, OURS)
    bind(root, root)
    guard = RootGuard(str(root), {})
    guard.use_known(known(root))
    guard.open_root()
    unmount(root)
    bind(root, root)
    guard.open_root()
    assert guard.places[""].keeps_inodes
