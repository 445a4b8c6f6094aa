"""The digest of one file: recorded for the very file, read from the disk, or not to be had."""

import hashlib
import os
import time

import pytest

from alfwatchd import linux
from alfwatchd.scan import file_digest
from alfwatchd.scan.file_digest import Found, HashJob, Reader, TooYoung
from alfwatchd.scan.mounts import Mount
from alfwatchd.tree.content import Recorded, inode_key, record_key
from alfwatchd.tree.packed import pack_signature
from kit.trees import fast_folder

FOLDER, NAME = "s/2020-01-01/001/alf", "a.b.c"
RECORDED = b"recorded, not md5"[:16]
FUSE, EXT4 = 0x65735546, 0xEF53


class Records:
    """What is recorded, in memory."""

    def __init__(self):
        self.rows = {}

    def find_recorded(self, fsid, places):
        return {place: self.rows[fsid, place] for place in places if (fsid, place) in self.rows}


class Box:
    def __init__(self, root):
        self.root, self.path = root, root / FOLDER / NAME
        self.path.parent.mkdir(parents=True)
        self.records = Records()
        self.is_over = False
        self.rests = []

    def write(self, content=b"content"):
        """Write the file, and let the clock of files go on."""
        self.path.write_bytes(content)
        os.utime(self.path, (1, 1))
        time.sleep(0.05)

    def job(self):
        about = self.path.stat()
        signature = pack_signature(about.st_size, about.st_mtime_ns, about.st_ino, False, about.st_ctime_ns)
        return HashJob.of(FOLDER, NAME, signature, 0)

    def record(self, *, born=None):
        """Record a digest that no file here has: where it is found, nothing was read."""
        key, about = inode_key(self.job().signature), linux.statx(str(self.path))
        record = Recorded(key.stamp, (about.btime_ns or 0) if born is None else born, RECORDED)
        self.records.rows[os.statvfs(self.root).f_fsid, key.place] = record

    def find(self, job=None, rest=None):
        return Reader(str(self.root), self.records, lambda: self.is_over, rest).find(job or self.job())


@pytest.fixture
def box():
    with fast_folder() as folder:
        yield Box(folder)


def md5(content):
    return hashlib.md5(content).digest()


def test_the_digest_is_read_and_given_with_what_is_to_be_recorded(box):
    box.write()
    found, born_ns = box.find(), linux.statx(str(box.path)).btime_ns
    key = inode_key(box.job().signature)
    assert found == Found(
        box.job(), md5(b"content"), True, os.statvfs(box.root).f_fsid, key.place,
        Recorded(key.stamp, born_ns, md5(b"content")),
    )  # fmt: skip


def test_a_recorded_digest_is_that_of_the_file_as_it_is(box):
    box.write()
    box.record()
    assert box.find() == Found(box.job(), RECORDED)


def test_a_file_with_another_change_time_keeps_its_digest_until_it_is_read_again(box):
    """A `chmod -R` of terabytes while the daemon was down had all of them read at once, and no hash until then."""
    box.write()
    if linux.statx(str(box.path)).btime_ns is None:
        pytest.skip("this file system has no times of birth")
    box.record()
    box.path.chmod(0o600)
    time.sleep(0.05)
    assert box.find() == Found(box.job(), RECORDED, is_confirmed=False)
    found = box.find(box.job().as_recheck())
    assert (found.digest, found.is_confirmed) == (md5(b"content"), True)


@pytest.mark.parametrize("born", [0, 1])
def test_a_file_that_may_be_another_has_no_digest_until_it_is_read(box, born):
    """Its inode number was given again (another time of birth), or the file system has no such times (ext3)."""
    box.write()
    box.record(born=born)
    box.path.chmod(0o600)
    time.sleep(0.05)
    assert box.find().digest == md5(b"content")


def test_what_was_recorded_of_an_older_version_does_not_count(box):
    box.write()
    box.record()
    job = HashJob.of(FOLDER, NAME, box.job().signature, 1)
    assert box.find(job).digest == md5(b"content")


def test_reading_ends_as_soon_as_the_file_has_changed(box):
    """A recording of 100 GB was read to its end although its digest could not count any more."""
    box.write(b"")
    os.truncate(box.path, 1 << 40)
    time.sleep(0.05)
    n_pieces = []

    def append(_):
        n_pieces.append(1)
        if len(n_pieces) == 3:
            with box.path.open("ab") as file:
                file.write(b"more")
        time.sleep(0.05)

    assert box.find(rest=append) is None
    assert len(n_pieces) < 100


def test_reading_ends_when_the_program_ends(box):
    box.write(b"")
    os.truncate(box.path, 1 << 40)
    time.sleep(0.05)
    box.is_over = True
    assert box.find() is None


def test_no_digest_is_made_of_a_file_younger_than_the_clock_of_its_file_system(box, monkeypatch):
    """--once recorded four wrong ones of four on ext3, which counts seconds. The clock of a server is not known."""
    box.write()
    monkeypatch.setattr(linux, "file_system_type", lambda _: FUSE)
    found = box.find()
    assert isinstance(found, TooYoung)
    assert found.wait_ns >= 2_000_000_000


@pytest.mark.parametrize(
    ("fs_type", "is_certain"), [("fuse.mergerfs", True), ("fuse.sshfs", False), ("fuse.bindfs", False)]
)
def test_a_file_with_two_equal_times_is_known_again_where_the_change_time_is_certainly_one(
    box, monkeypatch, fs_type, is_certain
):
    """Most files are written once: on a pool of mergerfs, all of them were read again at each start."""
    box.path.write_bytes(b"content")
    about = box.path.stat()
    if about.st_ctime_ns != about.st_mtime_ns:
        pytest.skip("this file system gives the two times one after the other")
    mount_id = linux.statx(str(box.path)).mount_id
    monkeypatch.setattr(linux, "file_system_type", lambda _: FUSE)
    monkeypatch.setattr(file_digest, "list_mounts", lambda: [Mount(mount_id, "0:1 /", "/", fs_type, "")])
    signature = pack_signature(7, about.st_mtime_ns, about.st_ino, False, about.st_ctime_ns)
    time.sleep(2.1)  # the clock of what is below FUSE is not known
    job = HashJob.of(FOLDER, NAME, signature, 0)
    found = box.find(job)
    assert found.digest == md5(b"content")
    if found.record is None:
        assert not is_certain, "without a time of birth, there is nothing to record"
        return
    assert found.place == record_key(FUSE, f"{FOLDER}/{NAME}", signature).place
    box.records.rows[found.fsid, found.place] = found.record
    assert box.find(job) == Found(job, md5(b"content"), is_confirmed=is_certain)


@pytest.mark.parametrize(("is_copy", "is_proof"), [(False, True), (True, False)])
def test_bindfs_tells_change_times_if_the_folder_that_it_shows_has_them(box, monkeypatch, is_copy, is_proof):
    """It mounts as plain `fuse`, and an option makes it tell modification times in their place."""
    (box.root / "seen" / FOLDER).mkdir(parents=True)
    box.path.write_bytes(b"content")
    shown = box.root / "seen" / FOLDER / NAME
    if is_copy:
        shown.write_bytes(b"content")
    else:
        shown.hardlink_to(box.path)
    about = box.path.stat()
    signature = pack_signature(7, about.st_mtime_ns, about.st_ino, False, about.st_ctime_ns)
    key = record_key(FUSE, f"{FOLDER}/{NAME}", signature)
    fsid = os.statvfs(box.root).f_fsid
    box.records.rows[fsid, key.place] = Recorded(key.stamp, 0, RECORDED)
    mount = Mount(linux.statx(str(box.path)).mount_id, "0:1 /seen", str(box.root), "fuse", str(box.root))

    def tell(fd):
        return EXT4 if os.readlink(f"/proc/self/fd/{fd}") == str(shown) else FUSE

    monkeypatch.setattr(linux, "file_system_type", tell)
    monkeypatch.setattr(file_digest, "list_mounts", lambda: [mount])
    found = box.find(HashJob.of(FOLDER, NAME, signature, 0))
    assert (found == Found(HashJob.of(FOLDER, NAME, signature, 0), RECORDED)) is is_proof


def test_what_is_read_before_the_clock_reaches_its_second_is_not_recorded(box, monkeypatch):
    """The clock was set back on ext3: a file that is rewritten when that second comes again looks as before."""
    box.write()
    monkeypatch.setattr(file_digest, "may_recur", lambda *_: True)
    assert box.find() == Found(box.job(), md5(b"content"))
