"""Rows whose digest is recorded get it without a look at the file; all others go to the hasher."""

import os
import time
from dataclasses import replace

import pytest

from alfwatchd import linux
from alfwatchd.errors import StateError
from alfwatchd.index import hash_queue
from alfwatchd.index.hash_queue import HashQueue
from alfwatchd.index.state_db import StateDb
from alfwatchd.scan.hasher import Hashed, Hasher
from alfwatchd.tree.content import Recorded, inode_key
from alfwatchd.tree.folder import LookResult
from alfwatchd.tree.packed import SIGNATURE_SIZE, digest_of, either_way, pack_signature, unpack_signature
from kit.trees import fast_folder, indexing, scan_all, write

RECORDED = b"recorded, not md5"[:16]
SESSION = "s/2020-01-01/001"


class Jobs(Hasher):
    """A hasher without threads, which only notes what it is given."""

    def __init__(self, root, state):
        super().__init__(str(root), state, 0, self.post)
        self.paths = []

    def post(self, message):
        raise AssertionError("there is nobody who could")

    def submit(self, jobs):
        self.paths += [f"{job.folder}/{job.name}" for job in jobs]


class Box:
    def __init__(self, root, state, indexer):
        self.root, self.state, self.indexer = root, state, indexer
        self.hasher, self.rechecks = Jobs(root, state), Jobs(root, state)
        self.queue = HashQueue(self.hasher, state, self.rechecks)

    def submit(self):
        self.hasher.paths.clear()
        self.queue.submit(self.indexer.take_committed(), self.indexer)
        self.indexer.scan(0.0)
        return sorted(self.hasher.paths)

    def rows(self):
        sessions = self.indexer.tables.snapshot().sessions.values()
        return {f"{each.path}/{name}": value for each in sessions for name, value in each.datasets()}

    def record(self, *paths, fsid=None):
        fsid = self.indexer.guard.places[""].fsid if fsid is None else fsid
        rows = self.rows()
        for path in paths:
            key, born_ns = inode_key(rows[path][:SIGNATURE_SIZE]), linux.statx(str(self.root / path)).btime_ns
            self.state.save_digests([(fsid, key.place, Recorded(key.stamp, born_ns, RECORDED))])

    def digests(self):
        return {path: digest_of(value) for path, value in self.rows().items()}


@pytest.fixture
def box(monkeypatch):
    with fast_folder() as folder:
        root = folder / "root"
        write(root, f"{SESSION}/a.b.c", f"{SESSION}/alf/a.b.c", f"{SESSION}/alf/new.b.c", "t/2020-01-01/001/a.b.c")
        os.symlink(root / SESSION / "a.b.c", root / SESSION / "link.b.c")
        state = StateDb(folder / "state")
        with indexing(root) as indexer:
            scan_all(indexer)
            here = indexer.guard.places[""].fs_type  # whatever the tests run on
            monkeypatch.setattr(hash_queue, "ONE_FSID", hash_queue.ONE_FSID | {here})
            yield Box(root, state, indexer)
        state.close()


def test_recorded_digests_need_no_hasher(box):
    box.record(f"{SESSION}/a.b.c", f"{SESSION}/alf/a.b.c")
    assert box.submit() == [f"{SESSION}/alf/new.b.c", f"{SESSION}/link.b.c", "t/2020-01-01/001/a.b.c"]
    assert {path for path, digest in box.digests().items() if digest} == {f"{SESSION}/a.b.c", f"{SESSION}/alf/a.b.c"}
    assert set(box.digests().values()) == {RECORDED, b""}
    assert box.submit() == [f"{SESSION}/alf/new.b.c", f"{SESSION}/link.b.c"]  # as the row has changed
    assert box.submit() == []


def test_a_file_that_changed_since_goes_to_the_hasher(box):
    box.record(f"{SESSION}/a.b.c")
    (box.root / SESSION / "a.b.c").write_bytes(b"other content")
    scan_all(box.indexer)
    assert f"{SESSION}/a.b.c" in box.submit()


def test_a_file_that_was_rewritten_with_equal_size_and_time_goes_to_the_hasher(box):
    box.record(f"{SESSION}/a.b.c")
    box.indexer.tree.rewritten.append(box.rows()[f"{SESSION}/a.b.c"][:SIGNATURE_SIZE])
    assert f"{SESSION}/a.b.c" in box.submit()


def test_a_digest_that_was_made_before_a_file_was_rewritten_does_not_count(box):
    """It was on its way when the event came, and stood in the row for ever: size and time were those of before."""
    signature = box.rows()[f"{SESSION}/a.b.c"][:SIGNATURE_SIZE]
    box.submit()
    box.indexer.tree.rewritten.append(signature)
    box.submit()
    for version, digest in ((1, b"of the new one.."), (0, b"of the old one..")):
        box.hasher.paths.clear()
        box.queue.accept(Hashed({SESSION: {"a.b.c": (signature, digest, version)}}), box.indexer)
        box.indexer.scan(0.0)
    assert box.digests()[f"{SESSION}/a.b.c"] == b"of the new one.."
    assert box.hasher.paths == [f"{SESSION}/a.b.c"]  # nobody else might ask for it again


def test_a_file_that_only_has_another_inode_number_without_proof_is_read_again_slowly(box):
    """On sshfs and FAT all files were read again, and had no hash until then, whenever the kernel forgot them."""
    path = f"{SESSION}/a.b.c"
    box.submit()
    folder = box.indexer.tree.find(SESSION)
    about = unpack_signature(box.rows()[path])
    box.indexer.tree.made_up[folder.dev] = False
    old, new = (pack_signature(about.file_size, 5, inode, False, 5) for inode in (3, 4))
    box.indexer.tree.patch(folder, LookResult({"a.b.c": old}))
    box.indexer.tree.set_digest(folder, {"a.b.c": (old, RECORDED)})
    box.indexer.commit()
    box.submit()
    box.indexer.tree.patch(folder, LookResult({"a.b.c": new}))
    box.indexer.commit()
    assert path not in box.submit()
    assert box.rechecks.paths == [path]
    assert box.digests()[path] == RECORDED


def test_a_run_that_ends_shows_no_digest_that_it_could_not_confirm(box):
    """`--once` left the old hash of a file that cannot be read any more."""
    path = f"{SESSION}/a.b.c"
    box.queue = HashQueue(box.hasher, box.state, box.hasher)
    box.record(path, f"{SESSION}/alf/a.b.c")
    time.sleep(0.02)  # the clock of files goes in steps
    for name in (path, f"{SESSION}/alf/a.b.c"):
        (box.root / name).chmod(0o600)
    scan_all(box.indexer)
    assert {path, f"{SESSION}/alf/a.b.c"} <= set(box.submit())
    if not box.digests()[path]:
        pytest.skip("this file system has no times of birth")
    signature = box.rows()[f"{SESSION}/alf/a.b.c"][:SIGNATURE_SIZE]
    box.queue.accept(Hashed({f"{SESSION}/alf": {"a.b.c": (signature, b"read, no guess..", 0)}}), box.indexer)
    box.queue.end(box.indexer)
    box.indexer.scan(0.0)
    assert [box.digests()[name] for name in (path, f"{SESSION}/alf/a.b.c")] == [b"", b"read, no guess.."]


def test_a_file_whose_change_time_is_another_is_looked_at_again(box):
    """No event tells of a hard link outside of the root: the row would have no hash until the next full scan."""
    path = f"{SESSION}/a.b.c"
    signature = box.rows()[path][:SIGNATURE_SIZE]
    time.sleep(0.02)  # the clock of files goes in steps
    os.link(box.root / path, box.root.parent / "backup")
    box.submit()
    box.queue.accept(
        Hashed({SESSION: {"a.b.c": (signature, b"", 0)}, "gone": {"a.b.c": (signature, b"", 0)}}), box.indexer, 5.0
    )
    assert box.indexer.scan(1000.0) > 0
    assert box.rows()[path] != signature
    assert path in box.submit()
    box.queue.accept(Hashed({SESSION: {"a.b.c": (signature, b"", 0)}}), box.indexer)
    assert box.indexer.scan(2000.0) == 0  # a run of `--once` looks at nothing twice


def test_a_file_that_was_rewritten_in_secret_by_one_of_its_names(box):
    """The event tells of one name; the row of the other kept the digest of the old content for ever."""
    first, second = f"{SESSION}/a.b.c", "t/2020-01-01/001/second.b.c"
    os.link(box.root / first, box.root / second)
    scan_all(box.indexer)
    signature = box.rows()[first][:SIGNATURE_SIZE]
    for name in (first, second, link := f"{SESSION}/link.b.c"):
        folder = box.indexer.tree.find(os.path.dirname(name))
        box.indexer.tree.set_digest(folder, {os.path.basename(name): (box.rows()[name][:SIGNATURE_SIZE], RECORDED)})
    box.indexer.scan(0.0)
    assert {box.digests()[name] for name in (first, second, link)} == {RECORDED}
    folder = box.indexer.tree.find(SESSION)
    box.indexer.tree.patch(folder, LookResult({"a.b.c": signature}, set()), {"a.b.c"})
    box.submit()
    box.indexer.scan(0.0)
    assert {box.digests()[name] for name in (first, second, link)} == {b""}
    assert {first, second, link} <= set(box.submit())
    assert {box.hasher.version(each) for each in either_way(signature)} == {1}


PATH = f"{SESSION}/a.b.c"


@pytest.fixture
def renewed(box):
    """A file whose digest is recorded, and that got another change time while no daemon ran."""
    if linux.statx(str(box.root / PATH)).btime_ns is None:
        pytest.skip("this file system has no times of birth")
    box.record(PATH)
    time.sleep(0.02)  # the clock of files goes in steps
    (box.root / PATH).chmod(0o600)
    scan_all(box.indexer)
    return box


def test_a_hash_stays_after_a_chmod_until_the_file_is_read_again(renewed):
    """A nightly `chmod -R` while the daemon was down took all hashes away, and terabytes were read again at once."""
    assert PATH not in renewed.submit()
    assert renewed.digests()[PATH] == RECORDED
    assert renewed.rechecks.paths == [PATH]


def test_a_hash_of_an_older_content_is_replaced_once_the_file_was_read_again(renewed):
    renewed.submit()
    signature = renewed.rows()[PATH][:SIGNATURE_SIZE]
    renewed.queue.accept(Hashed({SESSION: {"a.b.c": (signature, b"of other content", 0)}}), renewed.indexer)
    renewed.indexer.scan(0.0)
    assert renewed.digests()[PATH] == b"of other content"


def test_a_file_that_changes_while_it_waits_to_be_read_again_is_not_forgotten(renewed):
    """A second `chmod` that the daemon heard of leaves the hash: it is no more confirmed than before."""
    renewed.submit()
    first = renewed.rows()[PATH][:SIGNATURE_SIZE]
    time.sleep(0.02)
    (renewed.root / PATH).chmod(0o640)
    about = (renewed.root / PATH).stat()
    second = pack_signature(about.st_size, about.st_mtime_ns, about.st_ino, False, about.st_ctime_ns)
    tree = renewed.indexer.tree
    tree.patch(tree.find(SESSION), LookResult({"a.b.c": second}), frozenset(), {"a.b.c"})
    renewed.indexer.scan(0.0)
    renewed.rechecks.paths.clear()
    renewed.queue.accept(Hashed({SESSION: {"a.b.c": (first, b"", 0)}}), renewed.indexer, 5.0)
    assert renewed.rechecks.paths == [PATH]
    assert renewed.digests()[PATH] == RECORDED


def test_a_hash_does_not_stay_if_an_event_told_of_a_write(box):
    """As `touch -r` after a write: the file looks like the one that was recorded, with another change time."""
    box.record(PATH)
    for content, mtime_ns in ((b"other", None), (b"other", (box.root / PATH).stat().st_mtime_ns)):
        time.sleep(0.02)
        (box.root / PATH).write_bytes(content[: (box.root / PATH).stat().st_size])
        if mtime_ns is not None:
            os.utime(box.root / PATH, ns=(mtime_ns, mtime_ns))
        scan_all(box.indexer)
        assert PATH in box.submit()
        assert box.digests()[PATH] == b""


def test_a_file_with_the_inode_number_of_another_gets_no_digest_of_it(box):
    key, row = inode_key(box.rows()[PATH]), box.rows()[PATH][:SIGNATURE_SIZE]
    box.state.save_digests(
        [(box.indexer.guard.places[""].fsid, key.place, Recorded(inode_key(row).stamp[:24] + bytes(9), 1, RECORDED))]
    )
    assert PATH in box.submit()
    assert box.rechecks.paths == []


def test_a_later_run_reads_again_what_this_one_leaves(renewed):
    renewed.queue = HashQueue(renewed.hasher, renewed.state, None)
    assert PATH not in renewed.submit()
    assert (renewed.digests()[PATH], renewed.queue.n_unconfirmed) == (RECORDED, 0)


def unknown(box):
    del box.indexer.guard.places[""]


def put_on(fs_type):
    def put(box):
        places = box.indexer.guard.places
        places[""] = replace(places[""], fs_type=fs_type)

    return put


def mount(path):
    def put(box):
        box.indexer.guard.places[path] = box.indexer.guard.places[""]

    return put


UNSURE = {
    "nobody knows the file system": unknown,
    "a file system with many ids": put_on("many"),
    "a network": put_on("nfs4"),
    "a mount in the session": mount(f"{SESSION}/alf"),
    "the session is a mount": mount(SESSION),
    "the session is in a mount": mount("s"),
}


def test_subvolumes_have_ids_of_their_own():
    assert "btrfs" not in hash_queue.ONE_FSID


@pytest.mark.parametrize("put", UNSURE.values(), ids=UNSURE)
def test_where_the_file_system_is_unsure_the_hasher_asks_the_file(box, put):
    box.record(f"{SESSION}/a.b.c")
    put(box)
    assert f"{SESSION}/a.b.c" in box.submit()
    assert set(box.digests().values()) == {b""}


def test_a_mount_elsewhere_changes_nothing(box):
    box.record(f"{SESSION}/a.b.c", "t/2020-01-01/001/a.b.c")
    mount("s/2020-01-01/00")(box)
    mount(f"{SESSION}x")(box)
    mount("t")(box)
    assert f"{SESSION}/a.b.c" not in box.submit()
    assert box.digests()[f"{SESSION}/a.b.c"] == RECORDED
    assert box.digests()["t/2020-01-01/001/a.b.c"] == b""


def test_files_and_sessions_that_are_links_may_lie_elsewhere(box):
    target = box.root.parent / "elsewhere"
    write(target, "a.b.c")
    (box.root / "u/2020-01-01").mkdir(parents=True)
    os.symlink(target, box.root / "u/2020-01-01/001")
    scan_all(box.indexer)
    box.record("u/2020-01-01/001/a.b.c", f"{SESSION}/link.b.c")
    assert {"u/2020-01-01/001/a.b.c", f"{SESSION}/link.b.c"} <= set(box.submit())


def test_digests_of_another_file_system_are_others(box):
    box.record(f"{SESSION}/a.b.c", fsid=12345)
    assert f"{SESSION}/a.b.c" in box.submit()


def test_a_broken_state_file_leaves_all_to_the_hasher(box, monkeypatch):
    """Files are read again then, instead of rows going without digests."""

    def fail(*_):
        raise StateError("damaged")

    box.record(f"{SESSION}/a.b.c")
    monkeypatch.setattr(box.state, "find_recorded", fail)
    assert len(box.submit()) == len(box.rows())
