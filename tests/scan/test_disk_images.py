"""A disk image is told from the one that was mounted there before, also if both look alike in every number."""

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from alfwatchd.scan import disk_images
from alfwatchd.scan.disk_images import is_image, record_space
from alfwatchd.scan.place import Identity
from kit.children import in_own_mounts, needs_root
from kit.trees import fast_folder

UUID = "11111111-2222-3333-4444-555555555555"


def test_a_disk_is_no_image():
    for dev in (os.makedev(8, 1), os.makedev(259, 3), os.makedev(0, 40)):
        assert (is_image(dev), record_space(5, dev)) == (False, 5)


def test_a_disk_with_xfs_is_known_again_by_its_uuid():
    """The file system id of XFS is the number of its device: a disk that became sdb was hashed again as a whole."""
    first, other = Identity("xfs", "aa"), Identity("xfs", "bb")
    sda, sdb = os.makedev(8, 1), os.makedev(8, 17)
    assert record_space(1, sda, first) == record_space(2, sdb, first) != record_space(1, sda, other)
    assert record_space(1, sda, Identity("ext", "aa")) == 1


def test_what_cannot_be_found_out_is_no_error():
    dev = os.makedev(7, 250_000)
    assert is_image(dev)
    assert record_space(5, dev) == record_space(5, dev) != record_space(6, dev)


@pytest.mark.parametrize(
    ("folder", "slaves", "loops"),
    [
        ("devices/virtual/block/loop5", {}, True),
        ("devices/virtual/block/loop5/loop5p2", {}, True),  # a partition of the image of a whole disk
        ("devices/virtual/block/dm-0", {"dm-0": ["devices/virtual/block/loop5"]}, True),  # LUKS in a file
        ("devices/virtual/block/dm-1", {"dm-1": ["devices/virtual/block/dm-0"], "dm-0": ["block/loop5/loop5p1"]}, True),
        ("devices/virtual/block/dm-0", {"dm-0": ["devices/pci0/ata1/block/sda/sda1"]}, False),
        ("devices/pci0/nvme0/nvme0n1/nvme0n1p2", {}, False),
    ],
)
def test_an_image_may_have_partitions_or_be_encrypted(tmp_path, monkeypatch, folder, slaves, loops):
    monkeypatch.setattr(disk_images, "SYS", tmp_path)
    (tmp_path / "dev/block").mkdir(parents=True)
    (tmp_path / "dev/block/259:3").symlink_to(f"../../{folder}")
    for name, below in slaves.items():
        (tmp_path / "block" / name / "slaves").mkdir(parents=True)
        for each in below:
            (tmp_path / each).mkdir(parents=True, exist_ok=True)
            (tmp_path / "block" / name / "slaves" / os.path.basename(each)).symlink_to(tmp_path / each)
    dev = os.makedev(259, 3)
    (tmp_path / "block/loop5/loop").mkdir(parents=True, exist_ok=True)
    first = record_space(5, dev)
    assert (is_image(dev), first != 5) == (loops, loops)
    assert record_space(5, dev) == first
    os.rename(tmp_path / "block/loop5/loop", tmp_path / "was")
    (tmp_path / "block/loop5/loop").mkdir()  # attached again
    assert (record_space(5, dev) != first) is loops


@contextmanager
def attached(image):
    """Attach an image to the first loop device that is free; skips where that cannot be done."""
    try:
        told = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no loop device: {error}")
    try:
        yield told.stdout.strip()
    finally:
        subprocess.run(["losetup", "--detach", told.stdout.strip()], check=True)


def space_in(device, where):
    """Return where digests of a device are recorded, which is mounted for that time, and looked at twice."""
    subprocess.run(["mount", device, where], check=True)
    try:
        dev, fsid = where.stat().st_dev, os.statvfs(where).f_fsid
        assert is_image(dev)
        assert record_space(fsid, dev) == record_space(fsid, dev)
        return fsid, record_space(fsid, dev)
    finally:
        subprocess.run(["umount", where], check=True)


@needs_root
@in_own_mounts
def test_an_image_is_another_one_whenever_it_is_mounted():
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4")
    with fast_folder() as folder:
        where = Path(folder) / "mounted"
        where.mkdir()
        spaces = []
        for name in ("first", "second"):
            image = Path(folder) / name
            with image.open("wb") as file:
                file.truncate(8 << 20)
            subprocess.run(["mkfs.ext4", "-q", "-U", UUID, image], check=True)
            with attached(image) as device:
                spaces += [space_in(device, where), space_in(device, where)]
    assert len({fsid for fsid, _ in spaces}) == 1
    assert len({space for _, space in spaces}) == 4
