"""The watcher against the real kernel. Each test waits for a sync cookie, never for time to pass."""

import ctypes
import os
import queue
import threading
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyFD

from alfwatchd.errors import WatchError, WatchLimit
from alfwatchd.index.dirty import DirtyMark
from alfwatchd.watch import inotify, watcher
from alfwatchd.watch.events import EventsLost, EventsRead, FolderEvents, PathsChanged
from alfwatchd.watch.watcher import Watcher
from kit.children import as_nobody, in_child, mount_tmpfs, needs_root, unmount, with_own_mounts
from kit.trees import fast_folder, write

PATIENCE = 120.0
_LIBC = ctypes.CDLL(None, use_errno=True)


class Listener:
    """A watcher, what it posted, and the folders that it watches."""

    def __init__(self, top):
        self.root = top / "root"
        self.root.mkdir(exist_ok=True)
        self.cookie_dir = top / "state/cookies"
        self.inbox = queue.Queue()
        self.may_post = threading.Event()
        self.may_post.set()
        self.dies = False
        self.watcher = Watcher(self.post, self.cookie_dir)
        self.n_cookies = 0

    def post(self, message):
        assert threading.current_thread() is not threading.main_thread()
        for each in message.parse(message.buffer) if isinstance(message, EventsRead) else [message]:
            self.inbox.put(each)
        self.may_post.wait(PATIENCE)
        if self.dies and isinstance(message, EventsRead):
            raise RuntimeError("injected")

    def watch(self, path=""):
        fd = os.open(self.root / path, os.O_RDONLY)
        try:
            return self.watcher.add(fd)
        finally:
            os.close(fd)

    def receive(self):
        return self.inbox.get(timeout=PATIENCE)

    def until_cookie(self):
        """Drop a cookie and return all messages up to the one that brings it."""
        self.n_cookies += 1
        name = f"c{self.n_cookies}"
        self.watcher.drop_cookie(name)
        messages = [self.receive()]
        while name not in getattr(messages[-1], "cookies", ()):
            messages.append(self.receive())
        return messages

    def changes(self):
        """Return wd -> all its events, and the watches that are gone, up to now."""
        events, unwatched = {}, []
        for message in self.until_cookie():
            assert isinstance(message, PathsChanged)
            unwatched += message.unwatched
            for wd, found in message.folders.items():
                events.setdefault(wd, DirtyMark(0.0, 0.0)).note(found)
        joined = {
            wd: FolderEvents(mark.names, mark.rewritten, mark.listing, mark.attributes) for wd, mark in events.items()
        }
        return joined, unwatched


@pytest.fixture
def top():
    with fast_folder() as folder:
        yield folder


@pytest.fixture
def listener(top):
    before = descriptors()
    found = Listener(top)
    yield found
    found.may_post.set()
    found.watcher.close()
    assert not found.watcher.is_alive
    assert descriptors() == before


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))


# What is relied on in watchdog, whose internals carry no promise.


def test_contract_of_the_reader(top):
    before = descriptors()
    reader = InotifyFD()
    try:
        assert isinstance(reader, threading.Thread)
        assert reader.daemon
        assert reader.should_keep_running()
        fd = reader._inotify_fd
        wd = inotify.watch_path(fd, bytes(top), inotify.IN_CREATE)
        (top / "x").touch()
        assert list(inotify.parse(reader._read_event_buffer(1 << 18))) == [(wd, inotify.IN_CREATE, b"x")]
    finally:
        reader._close_resources()
    assert descriptors() == before


def test_contract_of_the_end(top):
    """`stop` wakes a reader that waits, which then gets nothing and closes what it opened."""
    before = descriptors()
    ended = threading.Event()

    class Reader(InotifyFD):
        def run(self):
            assert self._read_event_buffer(1 << 18) == b""
            assert not self.should_keep_running()
            ended.set()

    reader = Reader()
    reader.start()
    reader.stop()
    reader.join(PATIENCE)
    assert ended.is_set()
    assert descriptors() == before


# What the kernel tells.

A, B = "a.b.c", "d.e.f"


def append(path, text="more"):
    with path.open("a") as file:
        file.write(text)


def rename_in(root):
    (root.parent / A).rename(root / "in.b.c")


def change_mode(root):
    (root / A).chmod(0o600)


def change_times(root):
    os.utime(root / A, (1, 1))


# (story, what is done, names, those that were rewritten, whether the folder must be listed)
EVENTS = [
    ("nothing", lambda _: None, set(), set(), False),
    ("a new file", lambda root: (root / "new.b.c").write_text("x"), {"new.b.c"}, {"new.b.c"}, False),
    ("an empty one", lambda root: os.mknod(root / "new.b.c"), {"new.b.c"}, set(), False),
    ("a link", lambda root: (root / "new.b.c").symlink_to(A), {"new.b.c"}, set(), False),
    ("a hard link", lambda root: (root / "new.b.c").hardlink_to(root / A), {"new.b.c"}, set(), False),
    ("more content", lambda root: append(root / A), {A}, {A}, False),
    ("less content", lambda root: os.truncate(root / A, 3), {A}, {A}, False),
    ("opened for writing and closed", lambda root: append(root / A, ""), {A}, {A}, False),
    ("mode", change_mode, {A}, set(), False),
    ("times", change_times, {A}, set(), False),
    ("removed", lambda root: (root / A).unlink(), {A}, set(), False),
    ("renamed", lambda root: (root / A).rename(root / "x.y.z"), {A, "x.y.z"}, set(), False),
    ("replaced by a rename", lambda root: (root / A).rename(root / B), {A, B}, set(), False),
    ("moved in", rename_in, {"in.b.c"}, set(), False),
    ("moved out", lambda root: (root / A).rename(root.parent / "x"), {A}, set(), False),
    ("a name that is not UTF-8", lambda root: os.mknod(root / "b\udcff.b.c"), {"b\udcff.b.c"}, set(), False),
    ("a name with a newline", lambda root: os.mknod(root / "a\n.b.c"), {"a\n.b.c"}, set(), False),
    ("the longest name", lambda root: os.mknod(root / ("n" * 255)), {"n" * 255}, set(), False),
    ("a new folder", lambda root: (root / "new").mkdir(), set(), set(), True),
    ("a removed folder", lambda root: (root / "folder").rmdir(), set(), set(), True),
    ("a renamed folder", lambda root: (root / "folder").rename(root / "x"), set(), set(), True),
    ("the mode of a folder below", lambda root: (root / "folder").chmod(0o700), set(), set(), True),
    ("the mode of the folder itself", lambda root: root.chmod(0o700), set(), set(), True),
    ("the folder itself renamed", lambda root: root.rename(root.parent / "other"), set(), set(), True),
    ("what happens in a folder below", lambda root: (root / "folder/x.y.z").touch(), set(), set(), False),
]


@pytest.mark.parametrize(
    ("act", "names", "rewritten", "listing"), [case[1:] for case in EVENTS], ids=[case[0] for case in EVENTS]
)
def test_events(listener, act, names, rewritten, listing):
    write(listener.root, A, B, "folder/")
    write(listener.root.parent, A)
    wd = listener.watch()
    act(listener.root)
    events, unwatched = listener.changes()
    attributes = {A} if act in (change_mode, change_times) else set()
    expected = {wd: FolderEvents(names, rewritten, listing, attributes)} if names or listing else {}
    assert (events, unwatched) == (expected, [])


WRITTEN = {
    "before": lambda path: (append(path), path.chmod(0o600)),
    "afterwards": lambda path: (path.chmod(0o600), append(path)),
    "between": lambda path: (path.chmod(0o600), append(path), path.chmod(0o640)),
    "replaced": lambda path: (path.chmod(0o600), path.rename(path.with_name(B)), path.with_name(B).rename(path)),
}


@pytest.mark.parametrize("act", WRITTEN.values(), ids=WRITTEN)
def test_a_file_whose_attributes_changed_may_have_been_written_to_as_well(listener, act):
    write(listener.root, A, "x.y.z")
    wd = listener.watch()
    act(listener.root / A)
    os.utime(listener.root / "x.y.z")
    assert listener.changes()[0][wd].attributes == {"x.y.z"}


def test_reading_makes_no_event(listener):
    write(listener.root, A, "folder/x.y.z")
    for path in ("", "folder"):
        listener.watch(path)
    for _ in range(3):
        (listener.root / A).read_bytes()
        fd = os.open(listener.root, os.O_RDONLY | os.O_DIRECTORY)
        os.listdir(fd)
        os.fstat(fd)
        listener.watcher.add(fd)
        os.close(fd)
        os.stat(listener.root / A)
        list((listener.root / "folder").iterdir())
        (listener.root / "folder/x.y.z").open("rb").close()
    assert listener.changes() == ({}, [])


def test_events_of_one_folder_are_joined(listener):
    write(listener.root, A)
    wd = listener.watch()
    for _ in range(500):
        append(listener.root / A)
        (listener.root / A).chmod(0o600)
    (listener.root / "new").mkdir()
    messages = listener.until_cookie()
    assert sum(wd in message.folders for message in messages) == len([m for m in messages if m.folders])
    assert messages[-1].folders.get(wd) is None or messages[-1].folders[wd].names <= {A}
    assert {name for message in messages for events in message.folders.values() for name in events.names} == {A}


@pytest.fixture
def long_rests(monkeypatch):
    monkeypatch.setattr(watcher, "REST_SECONDS", 1e6)


def test_events_gather_while_the_reader_rests_which_a_cookie_ends(long_rests, listener):
    """Both halves at once: without rests there would be more messages, and without `hurry` no second one, ever."""
    wd = listener.watch()
    os.mknod(listener.root / "first.b.c")  # one event, unlike `touch`
    assert listener.receive().folders[wd].names == {"first.b.c"}
    names = {f"f{number}.b.c" for number in range(300)}
    for name in names:
        (listener.root / name).touch()
    (message,) = listener.until_cookie()
    assert message.folders[wd].names == names


def test_a_storm_is_read_without_rests(long_rests, listener):
    """Events that fill a read are followed by the next read: the kernel would run out of room."""
    wd = listener.watch()
    listener.may_post.clear()
    os.mknod(listener.root / "first.b.c")  # one event, unlike `touch`
    assert listener.receive().folders[wd].names == {"first.b.c"}
    names = {f"{number:04d}{'n' * 200}" for number in range(1000)}
    for name in names:
        (listener.root / name).touch()
    listener.may_post.set()
    listener.watcher.drop_cookie("c")  # for which the reader does not rest
    found = set()
    while found != names:
        found |= listener.receive().folders.get(wd, FolderEvents()).names


def test_the_end_waits_for_no_rest(long_rests, top):
    listener = Listener(top)
    wd = listener.watch()
    os.mknod(listener.root / A)
    assert wd in listener.receive().folders
    listener.watcher.close()
    assert not listener.watcher.is_alive


# What is watched.


def test_what_is_watched_is_the_open_folder_whatever_its_name_is_by_then(listener):
    write(listener.root, "one/", "two/")
    fd = os.open(listener.root / "one", os.O_RDONLY)
    (listener.root / "one").rename(listener.root / "moved")
    (listener.root / "two").rename(listener.root / "one")
    wd = listener.watcher.add(fd)
    os.close(fd)
    (listener.root / "one" / A).touch()
    assert listener.changes() == ({}, [])
    (listener.root / "moved" / A).touch()
    events, _ = listener.changes()
    assert events[wd].names == {A}


def test_the_same_folder_has_the_same_watch(listener):
    write(listener.root, "one/", "two/")
    one, two = listener.watch("one"), listener.watch("two")
    (listener.root / "one").rename(listener.root / "three")
    listener.changes()
    assert (listener.watch("three"), listener.watch("two"), one != two) == (one, two, True)
    inodes = {wd: os.stat(listener.root / name).st_ino for wd, name in ((one, "three"), (two, "two"))}
    assert listener.watcher.watched_inodes() == inodes


def test_a_folder_made_again_under_the_same_name_has_another_watch(listener):
    write(listener.root, "one/")
    old = listener.watch("one")
    (listener.root / "one").rmdir()
    (listener.root / "one").mkdir()
    new = listener.watch("one")
    events, unwatched = listener.changes()
    assert (new != old, unwatched, events[old]) == (True, [old], FolderEvents(listing=True))
    (listener.root / "one" / A).touch()
    events, _ = listener.changes()
    assert events[new].names == {A}


def test_removed_watches_are_silent(listener):
    write(listener.root, "one/", "two/")
    one, two = listener.watch("one"), listener.watch("two")
    listener.watcher.remove(one)
    listener.watcher.remove(one)
    listener.watcher.remove(12345)
    (listener.root / "one" / A).touch()
    (listener.root / "two" / A).touch()
    events, unwatched = listener.changes()
    assert (set(events), unwatched) == ({two}, [one])
    assert set(listener.watcher.watched_inodes()) == {two}


def test_what_is_no_folder_cannot_be_watched(listener):
    write(listener.root, A)
    with pytest.raises(WatchError, match="cannot watch") as refusal:
        listener.watch(A)
    assert not isinstance(refusal.value, WatchLimit)


@needs_root
def test_a_folder_that_cannot_be_read_cannot_be_watched(top):
    (top / "closed").mkdir(mode=0o700)
    os.chown(top, 65534, 65534)

    def run():
        listener = Listener(top)
        fd = os.open(top / "closed", os.O_PATH)
        try:
            listener.watcher.add(fd)
        except WatchError as error:
            return type(error).__name__, str(error)
        finally:
            listener.watcher.close()

    assert as_nobody(run) == ("WatchError", "cannot watch: Permission denied")


def test_unmounting_takes_the_watch_away(top):
    def run():
        listener = Listener(top)
        (listener.root / "mount").mkdir()
        mount_tmpfs(listener.root / "mount")
        write(listener.root, "mount/below/")
        watches = sorted([listener.watch("mount"), listener.watch("mount/below")])
        own = listener.watch()
        unmount(listener.root / "mount")
        _, unwatched = listener.changes()
        write(listener.root, A)
        events, _ = listener.changes()
        listener.watcher.close()
        return watches, sorted(set(unwatched)), events[own].names

    watches, unwatched, names = with_own_mounts(run)
    assert (unwatched, names) == (watches, {A})


def test_limits_of_the_kernel_say_what_to_do(top):
    def run():
        if _LIBC.unshare(0x10000000) != 0:  # CLONE_NEWUSER: limits of its own
            return None
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1\n")
        limit = Path("/proc/sys/user/max_inotify_watches")
        limit.write_text("3")
        before = descriptors()
        listener = Listener(top)
        write(listener.root, *"abc/")
        found = []
        for name in ("one", "two", "three"):
            (listener.root / name).mkdir()
            try:
                listener.watch(name)
            except WatchLimit as error:
                found.append((name, str(error)))
        limit.write_text("4")
        listener.watch("three")
        listener.watcher.close()
        Path("/proc/sys/user/max_inotify_instances").write_text("0")
        try:
            Listener(top)
        except WatchLimit as error:
            found.append(("instance", str(error)))
        return found, descriptors() == before

    uid = os.geteuid()
    try:
        found = in_child(run)
    except AssertionError as error:
        if "PermissionError" not in str(error):
            raise
        pytest.skip("no user namespace can be made here")
    if found is None:
        pytest.skip("no user namespace can be made here")
    ((name, watches), (_, instances)), all_closed = found
    assert (name, all_closed) == ("three", True)
    assert "sysctl fs.inotify.max_user_watches=" in watches
    assert "max_user_instances" in instances


# Cookies.


def test_a_cookie_comes_behind_all_earlier_events(listener):
    wd = listener.watch()
    n_files, seen, came = 3000, set(), {}
    for number in range(n_files):
        (listener.root / f"f{number}.b.c").touch()
        if number % 100 == 99:
            listener.watcher.drop_cookie(f"after{number}")
    while len(came) < n_files // 100:
        message = listener.receive()
        assert isinstance(message, PathsChanged)
        if wd in message.folders:
            seen |= message.folders[wd].names
        for name in message.cookies:
            came[int(name.removeprefix("after"))] = len(came)
            assert seen >= {f"f{number}.b.c" for number in range(int(name.removeprefix("after")) + 1)}
    assert list(came) == sorted(came)


def test_a_cookie_leaves_no_file_and_is_no_event(listener):
    listener.watch()
    messages = listener.until_cookie()
    assert messages == [PathsChanged({}, ("c1",), ())]
    assert list(listener.cookie_dir.iterdir()) == []
    assert listener.watcher.watched_inodes().keys() == {listener.watch()}
    assert listener.cookie_dir.stat().st_mode & 0o777 == 0o700


def test_cookies_come_from_another_file_system_in_order(top, tmp_path):
    if top.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is but one file system here")
    listener = Listener(top)
    listener.watcher.close()
    messages = queue.Queue()
    watcher = Watcher(lambda read: messages.put(*read.parse(read.buffer)), tmp_path / "cookies")
    try:
        fd = os.open(listener.root, os.O_RDONLY)
        wd = watcher.add(fd)
        os.close(fd)
        for number in range(50):
            name = f"f{number}.b.c"
            (listener.root / name).touch()
            watcher.drop_cookie(name)
            names = set()
            while True:
                message = messages.get(timeout=PATIENCE)
                names |= message.folders.get(wd, FolderEvents()).names
                if message.cookies:
                    break
            assert (message.cookies, names) == ((name,), {name})
    finally:
        watcher.close()


@pytest.mark.parametrize("is_known", [True, False])
def test_cookies_outlive_the_removal_of_their_folder(listener, is_known):
    """Whether or not the reader has seen it go: some systems clean up /tmp, and /run at log-out."""
    wd = listener.watch()
    if not is_known:
        listener.may_post.clear()
        (listener.root / "blocks.b.c").touch()
        listener.receive()
    listener.cookie_dir.rmdir()
    listener.cookie_dir.parent.rmdir()
    if is_known:
        (listener.root / "behind.b.c").touch()
        while wd not in listener.receive().folders:
            pass
    listener.watcher.drop_cookie("first")
    listener.may_post.set()
    while "first" not in listener.receive().cookies:
        pass
    (listener.root / A).touch()
    events, _ = listener.changes()
    assert events[wd].names == {A}
    assert listener.watcher.watched_inodes().keys() == {wd}


def test_cookies_outlive_the_replacement_of_their_folder(listener):
    wd = listener.watch()
    listener.cookie_dir.rmdir()
    listener.cookie_dir.mkdir()
    (listener.root / A).touch()
    while wd not in listener.receive().folders:
        pass
    listener.until_cookie()


@pytest.mark.parametrize("break_it", [lambda path: path.write_text(""), lambda path: path.symlink_to("/dev/null")])
def test_a_cookie_folder_that_cannot_be_made_is_no_limit(top, break_it):
    break_it(top / "state")
    before = descriptors()
    with pytest.raises(WatchError, match="folder of sync cookies") as refusal:
        Listener(top)
    assert not isinstance(refusal.value, WatchLimit)
    assert descriptors() == before


@pytest.mark.parametrize("replace", [Path.touch, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_stands_in_the_place_of_the_folder_of_cookies_goes(listener, replace):
    listener.until_cookie()
    listener.cookie_dir.rmdir()
    replace(listener.cookie_dir)
    listener.until_cookie()


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_a_cookie_comes_back_though_a_process_that_was_killed_left_one_of_its_name(listener, make):
    make(listener.cookie_dir / "c1")
    listener.until_cookie()


def test_a_cookie_that_cannot_be_made_is_told(listener):
    (listener.cookie_dir / "c1").mkdir()
    with pytest.raises(WatchError, match="cannot make a sync cookie"):
        listener.watcher.drop_cookie("c1")


# Lost events, and the end.


def test_overflow_is_told_and_watching_goes_on(listener):
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    write(listener.root, A, B)
    wd = listener.watch()
    listener.may_post.clear()
    (listener.root / A).touch()
    listener.receive()  # now the reader is blocked
    for _ in range(limit // 2 + 100):  # two files in turns: equal events in a row are joined by the kernel
        os.chmod(listener.root / A, 0o600)
        os.chmod(listener.root / B, 0o600)
    (listener.root / "lost.b.c").touch()
    listener.may_post.set()
    message = listener.receive()
    seen = set()
    while isinstance(message, PathsChanged):
        seen |= message.folders[wd].names
        message = listener.receive()
    assert (message.reader_alive, "overflow" in message.reason) == (True, True)
    events, _ = listener.changes()
    assert seen | events.get(wd, FolderEvents()).names == {A, B}
    (listener.root / "after.b.c").touch()
    events, _ = listener.changes()
    assert events[wd].names == {"after.b.c"}
    assert listener.watcher.is_alive


def post_fails(listener):
    listener.dies = True


def read_fails(listener):
    folder = os.open("/", os.O_RDONLY)
    os.dup2(folder, listener.watcher.inotify_fd)  # read(2): EISDIR
    os.close(folder)


@pytest.mark.parametrize("kill", [post_fails, read_fails])
def test_the_death_of_the_reader_is_told_and_leaves_nothing_open(listener, kill):
    listener.watch()
    listener.until_cookie()
    kill(listener)
    (listener.root / A).touch()
    message = listener.receive()
    while isinstance(message, PathsChanged):
        message = listener.receive()
    assert isinstance(message, EventsLost)
    assert not message.reader_alive
    assert "died" in message.reason
    for thread in threading.enumerate():
        if thread.name == "watcher":
            thread.join(PATIENCE)
    assert not listener.watcher.is_alive
    # The fixture closes the watcher and counts descriptors. One opened meanwhile must stay open.
    fd = os.open("/", os.O_RDONLY)
    listener.watcher.close()
    os.close(fd)


def test_closing_twice_does_no_harm(top):
    before = descriptors()
    listener = Listener(top)
    listener.watcher.close()
    fds = [os.open("/", os.O_RDONLY) for _ in range(5)]
    listener.watcher.close()
    for fd in fds:
        os.close(fd)
    assert descriptors() == before


def test_nothing_is_posted_after_the_end(top):
    listener = Listener(top)
    listener.watch()
    listener.watcher.close()
    while not listener.inbox.empty():
        listener.inbox.get()
    (listener.root / A).touch()
    assert (listener.inbox.empty(), listener.watcher.is_alive) == (True, False)
