"""A digest is that of the whole file as it was read, and no file that changes meanwhile gets one."""

import hashlib
import os
import queue
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest

from alfwatchd import linux
from alfwatchd.errors import StateError
from alfwatchd.index.state_db import StateDb
from alfwatchd.scan import file_digest
from alfwatchd.scan import hasher as hashing_module
from alfwatchd.scan.file_digest import HashJob
from alfwatchd.scan.hasher import Hasher
from alfwatchd.tree.content import Recorded, inode_key
from alfwatchd.tree.packed import pack_signature
from kit.children import NOBODY, as_nobody, needs_root
from kit.trees import fast_folder

PATIENCE = 120.0
FOLDER = "s/2020-01-01/001/alf"
OLD_NS = 1_500_000_000_000_000_000


@pytest.fixture
def top():
    before = set(os.listdir("/proc/self/fd"))
    with fast_folder() as folder:
        (folder / "root" / FOLDER).mkdir(parents=True)
        yield folder
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def root(top):
    return top / "root"


@pytest.fixture
def state(top):
    state = StateDb(top / "state")
    yield state
    state.close()


class Hashing:
    """A hasher and what it posted."""

    def __init__(self, root, digests, *, n_threads=1, **options):
        self.messages = queue.SimpleQueue()
        self.unconfirmed = []
        self.hasher = Hasher(str(root), digests, n_threads, self.messages.put, **{"settle_seconds": 0.0} | options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hasher.close()
        assert not self.hasher.is_alive

    def take(self, n_files):
        """Return name -> (signature, digest) of the next files, in the order in which they were posted."""
        found = {}
        while len(found) < n_files:
            message = self.messages.get(timeout=PATIENCE)
            assert message.digests.keys() == {FOLDER}
            found |= _without_versions(message)
            self.unconfirmed += message.unconfirmed
        return found

    def confirm(self, found):
        """Have those files read again whose digests are not confirmed, and return all digests."""
        jobs, self.unconfirmed = self.unconfirmed, []
        assert all(job.is_recheck for job in jobs)
        self.hasher.submit(jobs)
        return found | self.take(len(jobs))

    def wait(self):
        """Wait until nothing is to be hashed, and return all that was posted by then."""
        deadline = time.monotonic() + PATIENCE
        while self.hasher.n_pending:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        found = {}
        while not self.messages.empty():
            found |= _without_versions(self.messages.get())
        return found


def _without_versions(message):
    return {name: (signature, digest) for name, (signature, digest, _) in message.digests[FOLDER].items()}


def write(root, name, content=b"content", mtime_ns=OLD_NS):
    path = root / FOLDER / name
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def recorded(state, root, name):
    """Return the digest that is recorded for a file as it is, or None."""
    key = inode_key(job(root, name).signature)
    found = state.find_recorded(os.statvfs(root).f_fsid, [key.place]).get(key.place)
    return found.digest if found is not None and found.is_of(key) else None


def record(state, root, name, digest):
    """Record a digest that no file here has: where it is found, nothing was read."""
    key = inode_key(job(root, name).signature)
    born_ns = linux.statx(str(root / FOLDER / name)).btime_ns or 0
    state.save_digests([(os.statvfs(root).f_fsid, key.place, Recorded(key.stamp, born_ns, digest))])


def rewrite(path, content):
    """Write as many other bytes, and let the file look as old as it did."""
    about = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def job(root, name, *, version=0):
    about = (root / FOLDER / name).stat()
    is_link = (root / FOLDER / name).is_symlink()
    signature = pack_signature(about.st_size, about.st_mtime_ns, about.st_ino, is_link, about.st_ctime_ns)
    return HashJob(-about.st_mtime_ns, FOLDER, name, signature, version)


def md5(content):
    return hashlib.md5(content).digest()


CONTENTS = {
    "empty.b.c": b"",
    "small.b.c": b"content",
    "chunk.b.c": bytes(1 << 20),
    "more.b.c": os.urandom(3 * (1 << 20) + 1),
}


@pytest.mark.parametrize("n_threads", [1, 4])
def test_digests_are_md5(root, state, n_threads):
    for name, content in CONTENTS.items():
        write(root, name, content)
    jobs = [job(root, name) for name in CONTENTS]
    with Hashing(root, state, n_threads=n_threads) as hashing:
        hashing.hasher.submit(jobs)
        found = hashing.take(len(CONTENTS))
    assert found == {each.name: (each.signature, md5(CONTENTS[each.name])) for each in jobs}


def test_many_files_and_many_threads(root, state):
    contents = {f"f{number}.b.c": b"%d" % number for number in range(700)}
    for name, content in contents.items():
        write(root, name, content)
    with Hashing(root, state, n_threads=4) as hashing:
        for name in contents:
            hashing.hasher.submit([job(root, name)])
        found = hashing.take(len(contents))
    assert {name: digest for name, (_, digest) in found.items()} == {name: md5(text) for name, text in contents.items()}


def test_a_link_is_hashed_by_its_content(root, state, top):
    (top / "target").write_bytes(b"linked")
    os.utime(top / "target", ns=(OLD_NS, OLD_NS))
    (root / FOLDER / "link.b.c").symlink_to(top / "target")
    with Hashing(root, state) as hashing:
        hashing.hasher.submit([job(root, "link.b.c")])
        assert hashing.take(1)["link.b.c"][1] == md5(b"linked")


def test_the_newest_come_first(root, state):
    ages = [3, 1, 4, 1.5, 9, 2.5, 6]
    for age in ages:
        write(root, f"age{age}.b.c", mtime_ns=int(OLD_NS - age * 1e9))
    time.sleep(0.1)  # one within a step of the clock since it was written would have to wait
    with Hashing(root, state) as hashing:
        hashing.hasher.submit([job(root, f"age{age}.b.c") for age in ages])
        found = hashing.take(len(ages))
    assert list(found) == [f"age{age}.b.c" for age in sorted(ages)]


def test_a_file_that_may_still_be_written_waits(root, state):
    """What is unpacked now has the old time of the archive: the change time tells."""
    write(root, "new.b.c", mtime_ns=time.time_ns())
    write(root, "restored.b.c")
    write(root, "ahead.b.c", mtime_ns=time.time_ns() + 3600 * 10**9)
    with Hashing(root, state, settle_seconds=3600.0) as hashing:
        hashing.hasher.submit([job(root, name) for name in ("new.b.c", "restored.b.c", "ahead.b.c")])
        time.sleep(0.2)
        assert (hashing.hasher.n_pending, hashing.messages.empty()) == (3, True)


def test_a_file_that_waits_delays_no_other_file(root, state):
    write(root, "old.b.c")
    time.sleep(1.1)
    write(root, "new.b.c", mtime_ns=OLD_NS - 10**9)
    with Hashing(root, state, settle_seconds=1.0) as hashing:
        hashing.hasher.submit([job(root, name) for name in ("new.b.c", "old.b.c")])
        assert list(hashing.take(2)) == ["old.b.c", "new.b.c"]


def test_a_file_is_hashed_once_it_has_settled(root, state):
    written = time.time_ns()
    write(root, "new.b.c")
    with Hashing(root, state, settle_seconds=0.3) as hashing:
        hashing.hasher.submit([job(root, "new.b.c")])
        hashing.take(1)
    assert time.time_ns() - written >= 0.28e9  # the clock of files is a little behind


# (what happens to the file after the job was made)
CHANGES = {
    "grown": lambda path: path.write_bytes(b"more content"),
    "newer": lambda path: os.utime(path, ns=(1, 1)),
    "replaced": lambda path: (path.rename(path.with_name("x")), path.write_bytes(b"content")),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a dangling link": lambda path: (path.unlink(), path.symlink_to("nothing")),
    "folder gone": lambda path: path.parent.rename(path.parent.with_name("moved")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_is_no_longer_what_the_job_says_is_not_reported(root, state, change):
    path = write(root, "a.b.c")
    jobs = [job(root, "a.b.c")]
    change(path)
    with Hashing(root, state) as hashing:
        hashing.hasher.submit(jobs)
        assert hashing.wait() == {}
        assert hashing.hasher.is_alive


class Interfering:
    """Records nothing; does something to the disk in the middle of each job."""

    def __init__(self, act):
        self.act = act
        self.saved = []

    def find_recorded(self, *_):
        self.act()
        return {}

    def save_digests(self, rows):
        self.saved += rows


def test_a_file_that_changes_while_it_is_hashed_is_not_reported(root):
    path = write(root, "a.b.c", bytes(1 << 21))

    def append():
        with path.open("ab") as file:
            file.write(b"more")

    digests = Interfering(append)
    with Hashing(root, digests) as hashing:
        hashing.hasher.submit([job(root, "a.b.c")])
        assert hashing.wait() == {}
        assert digests.saved == []
        digests.act = lambda: None
        hashing.hasher.submit([job(root, "a.b.c")])
        assert hashing.take(1)["a.b.c"][1] == md5(bytes(1 << 21) + b"more")


RENEWALS = {
    "mode": lambda path: path.chmod(0o600),
    "hard link": lambda path: os.link(path, path.with_name("other.b.c")),
    "rewritten in secret": lambda path: rewrite(path, b"CONTENT"),
}


@pytest.mark.parametrize("change", RENEWALS.values(), ids=RENEWALS)
def test_a_file_whose_change_time_alone_is_another_is_to_be_looked_at_again(root, state, change):
    """No event tells of a hard link, so only the hasher can: the hash stayed null until the next full scan."""
    path = write(root, "a.b.c")
    first = job(root, "a.b.c")
    time.sleep(0.05)  # the clock of files goes in steps
    change(path)
    with Hashing(root, state) as hashing:
        hashing.hasher.submit([first])
        assert hashing.take(1) == {"a.b.c": (first.signature, b"")}
        hashing.hasher.submit([job(root, "a.b.c")])
        assert hashing.take(1)["a.b.c"][1] == md5(path.read_bytes())


def test_recorded_digests_are_used_again_after_a_restart(root, top):
    write(root, "a.b.c", b"one")
    state = StateDb(top / "state")
    with Hashing(root, state) as hashing:
        hashing.hasher.submit([job(root, "a.b.c")])
        assert hashing.take(1)["a.b.c"][1] == md5(b"one")
    # Had the file been read again, it would show.
    record(state, root, "a.b.c", md5(b"recorded"))
    state.close()
    state = StateDb(top / "state")
    with Hashing(root, state) as hashing:
        hashing.hasher.submit([job(root, "a.b.c")])
        assert hashing.take(1)["a.b.c"][1] == md5(b"recorded")
        state.forget_digests([job(root, "a.b.c").signature])
        hashing.hasher.submit([job(root, "a.b.c")])
        assert hashing.take(1)["a.b.c"][1] == md5(b"one")
    state.close()


def restore_time(root):
    rewrite(root / FOLDER / "a.b.c", b"two")


def restore_tree(root):
    """Remove two files of equal size and time and make them in another order: inode numbers come back."""
    (root / FOLDER / "a.b.c").unlink()
    (root / FOLDER / "b.b.c").unlink()
    write(root, "b.b.c", b"one")
    write(root, "a.b.c", b"two")


def swap(root):
    os.rename(root / FOLDER / "a.b.c", root / FOLDER / "x")
    os.rename(root / FOLDER / "b.b.c", root / FOLDER / "a.b.c")
    os.rename(root / FOLDER / "x", root / FOLDER / "b.b.c")


def copy_times(root):
    (root / FOLDER / "a.b.c").write_bytes(b"six")
    subprocess.run(["touch", "-r", root / FOLDER / "b.b.c", root / FOLDER / "a.b.c"], check=True)


@pytest.mark.parametrize("change", [restore_time, restore_tree, swap, copy_times])
def test_no_file_gets_the_digest_of_another(root, state, change):
    """A session restored from a tar had 39 of 40 digests of other files: same inodes, sizes and times."""
    names = ("a.b.c", "b.b.c")
    write(root, "a.b.c", b"one")
    write(root, "b.b.c", b"two")
    for _ in range(2):
        with Hashing(root, state) as hashing:
            hashing.hasher.submit([job(root, name) for name in names])
            found = hashing.confirm(hashing.take(2))
        assert {name: digest for name, (_, digest) in found.items()} == {
            name: md5((root / FOLDER / name).read_bytes()) for name in names
        }
        time.sleep(0.05)  # the clock of files goes in steps
        change(root)


def test_a_file_with_another_change_time_is_read_again_only_where_that_is_asked_for(root, state):
    """It keeps its digest meanwhile: after a `chmod -R`, terabytes are not read at once."""
    path = write(root, "a.b.c")
    with Hashing(root, state) as hashing:
        hashing.hasher.submit([job(root, "a.b.c")])
        hashing.take(1)
        record(state, root, "a.b.c", md5(b"recorded"))
        time.sleep(0.05)
        path.chmod(0o600)
        hashing.hasher.submit([job(root, "a.b.c")])
        found = hashing.take(1)
        assert (found["a.b.c"][1], recorded(state, root, "a.b.c")) == (md5(b"recorded"), None)
        assert hashing.confirm(found)["a.b.c"][1] == recorded(state, root, "a.b.c") == md5(b"content")


def test_a_slow_hasher_rests_after_each_piece_of_a_file(root, state, monkeypatch):
    rests, wait = [], threading.Event.wait

    def note(event, seconds=None):
        if seconds is None or not threading.current_thread().name.startswith("hasher"):
            return wait(event, seconds)
        return rests.append(seconds)

    monkeypatch.setattr(threading.Event, "wait", note)
    path = root / FOLDER / "huge.b.c"
    path.touch()
    os.truncate(path, 64 << 20)
    with Hashing(root, state, share=0.5) as hashing:
        hashing.hasher.submit([job(root, "huge.b.c").as_recheck()])
        assert hashing.hasher.n_open == 1
        found = hashing.take(1)
        assert found["huge.b.c"][1] == hashlib.md5(bytes(64 << 20)).digest()
        assert len(rests) == 256


def test_a_file_that_grows_is_read_less_and_less_often(root, state):
    """Each pause of a recording in which it seemed to be at its end, all of it was read again."""
    path = write(root, "a.b.c", bytes(10_000_000))
    with Hashing(root, state, settle_seconds=0.03) as hashing:
        hashing.hasher.submit([job(root, "a.b.c")])
        hashing.take(1)
        with path.open("ab") as file:
            file.write(b"more")
        hashing.hasher.submit([job(root, "a.b.c")])
        assert hashing.take(1)["a.b.c"][1] == md5(path.read_bytes())
        assert time.time_ns() - path.stat().st_ctime_ns >= 60_000_000


def test_a_later_job_for_the_same_file_replaces_the_earlier(root, state, monkeypatch):
    clock = SimpleNamespace(time_ns=time.time_ns, monotonic=time.monotonic)
    monkeypatch.setattr(hashing_module, "time", clock)
    write(root, "a.b.c", b"one", mtime_ns=time.time_ns())
    with Hashing(root, state, settle_seconds=600.0) as hashing:
        for _ in range(3):
            hashing.hasher.submit([job(root, "a.b.c")])
        assert hashing.hasher.n_pending == 1
        write(root, "a.b.c", b"three")
        hashing.hasher.submit([job(root, "a.b.c")])
        assert hashing.hasher.n_pending == 1
        clock.time_ns = lambda: time.time_ns() + 601 * 10**9
        assert hashing.take(1)["a.b.c"] == (job(root, "a.b.c").signature, md5(b"three"))
        assert hashing.wait() == {}


class Broken:
    """A state file that has gone bad."""

    def find_recorded(self, *_):
        raise StateError("bad")

    def save_digests(self, _):
        raise StateError("bad")


def test_digests_come_without_any_state(root):
    write(root, "a.b.c")
    with Hashing(root, Broken()) as hashing:
        hashing.hasher.submit([job(root, "a.b.c")])
        assert hashing.take(1)["a.b.c"][1] == md5(b"content")
        assert hashing.hasher.is_alive


@needs_root
def test_a_file_that_cannot_be_read_is_tried_again(root, monkeypatch):
    """Its row would have no md5 until the next restart, whatever the reason was."""
    monkeypatch.setattr("alfwatchd.scan.hasher.SHORTEST_RETRY", 0.01)
    file = write(root, "closed.b.c")
    os.chown(file, NOBODY, NOBODY)

    def run():
        with Hashing(root, Broken()) as hashing:
            file.chmod(0)
            hashing.hasher.submit([job(root, "closed.b.c")])
            found = hashing.wait()
            file.chmod(0o644)
            found |= hashing.take(1)  # the change time is another, so its row must be made again
            hashing.hasher.submit([job(root, "closed.b.c")])
            return found["closed.b.c"][1], hashing.take(1)["closed.b.c"][1]

    assert as_nobody(run) == (b"", md5(file.read_bytes()))


@needs_root
def test_a_file_that_cannot_be_read_delays_no_other_file(root):
    write(root, "closed.b.c").chmod(0o600)
    write(root, "open.b.c")

    def run():
        with Hashing(root, Broken()) as hashing:
            hashing.hasher.submit([job(root, "closed.b.c"), job(root, "open.b.c")])
            return set(hashing.wait())

    assert as_nobody(run) == {"open.b.c"}


def test_pending_files_are_those_not_posted_yet(root, state):
    """`--once` waits for it to be zero and then closes: a digest that is not posted by then would be lost."""
    for number in range(300):
        write(root, f"f{number}.b.c", b"%d" % number)
    for first in range(0, 300, 30):
        with Hashing(root, state) as hashing:
            hashing.hasher.submit([job(root, f"f{number}.b.c") for number in range(first, first + 30)])
            assert hashing.hasher.n_pending > 0
            assert len(hashing.wait()) == 30


def test_closing_does_not_wait_for_a_large_file(root, state):
    path = root / FOLDER / "huge.b.c"
    path.touch()
    os.truncate(path, 1 << 40)
    with Hashing(root, state) as hashing:
        hashing.hasher.submit([job(root, "huge.b.c")])
        while not hashing.hasher.n_reading:
            time.sleep(0.001)
    assert hashing.messages.empty()


def test_what_was_hashed_is_posted_at_the_end(root, state):
    write(root, "a.b.c")
    path = root / FOLDER / "huge.b.c"
    path.touch()
    os.truncate(path, 1 << 40)
    os.utime(path, ns=(1, 1))
    with Hashing(root, state) as hashing:
        hashing.hasher.submit([job(root, "huge.b.c"), job(root, "a.b.c")])
        while hashing.hasher.n_pending > hashing.hasher.n_reading:
            time.sleep(0.001)
    assert hashing.take(1)["a.b.c"][1] == md5(b"content")


class SlowDigests:
    """Holds a thread up at its first look-up, and counts them."""

    def __init__(self, state):
        self.state = state
        self.is_held, self.go_on = threading.Event(), threading.Event()
        self.n_looks = 0

    def find_recorded(self, fsid, places):
        self.n_looks += 1
        self.is_held.set()
        assert self.go_on.wait(PATIENCE)
        return self.state.find_recorded(fsid, places)

    def save_digests(self, rows):
        self.state.save_digests(rows)


def test_a_file_that_is_being_hashed_is_not_hashed_by_another_thread_as_well(root, state):
    write(root, "a.b.c")
    digests = SlowDigests(state)
    with Hashing(root, digests, n_threads=2) as hashing:
        hashing.hasher.submit([job(root, "a.b.c")])
        assert digests.is_held.wait(PATIENCE)
        hashing.hasher.submit([job(root, "a.b.c")])
        assert hashing.hasher.n_pending == 1
        digests.go_on.set()
        assert hashing.wait() == {"a.b.c": (job(root, "a.b.c").signature, md5(b"content"))}
    assert digests.n_looks == 1


def test_a_file_that_was_another_for_a_while_is_hashed_once_more(root, state, monkeypatch):
    write(root, "a.b.c")
    digests, looks = SlowDigests(state), iter([True, False, True, True])
    monkeypatch.setattr(file_digest, "is_same", lambda *_: next(looks))
    with Hashing(root, digests) as hashing:
        hashing.hasher.submit([job(root, "a.b.c")])
        assert digests.is_held.wait(PATIENCE)
        hashing.hasher.submit([job(root, "a.b.c")])  # it is again what it was
        digests.go_on.set()
        assert hashing.take(1) == {"a.b.c": (job(root, "a.b.c").signature, md5(b"content"))}
    assert next(looks, None) is None


class _Held:
    """A state that takes its time to record, until it is told to go on."""

    def __init__(self, state):
        self._state = state
        self.is_recording, self.go_on = threading.Event(), threading.Event()
        self.find_recorded, self.forget_digests = state.find_recorded, state.forget_digests

    def save_digests(self, rows):
        self.is_recording.set()
        assert self.go_on.wait(PATIENCE)
        self._state.save_digests(rows)


def test_a_file_that_was_rewritten_in_secret_while_its_digest_was_made(root, state):
    """Equal in size and times, but an event told: neither row nor state may keep the digest of the old content.

    As what is stored through a mapping, or twice within one tick of the clock; here the old content is there no more.
    """
    write(root, "a.b.c", b"later!")
    held = _Held(state)
    record(state, root, "a.b.c", md5(b"before"))
    with Hashing(root, held) as hashing:
        first = job(root, "a.b.c")
        hashing.hasher.submit([first])
        assert held.is_recording.wait(PATIENCE)
        hashing.hasher.forget([first.signature])
        again = HashJob(first.age_key, FOLDER, "a.b.c", first.signature, 1)
        hashing.hasher.submit([again])
        held.go_on.set()
        posted = [hashing.messages.get(timeout=PATIENCE).digests[FOLDER]["a.b.c"] for _ in range(2)]
        assert [(digest, version) for _, digest, version in posted] == [(md5(b"before"), 0), (md5(b"later!"), 1)]
    assert recorded(state, root, "a.b.c") == md5(b"later!")


def test_a_digest_recorded_too_late_is_forgotten(root, state):
    write(root, "a.b.c", b"before")
    held = _Held(state)
    with Hashing(root, held) as hashing:
        first = job(root, "a.b.c")
        hashing.hasher.submit([first])
        assert held.is_recording.wait(PATIENCE)
        hashing.hasher.forget([first.signature])
        held.go_on.set()
        hashing.messages.get(timeout=PATIENCE)
        assert recorded(state, root, "a.b.c") is None
