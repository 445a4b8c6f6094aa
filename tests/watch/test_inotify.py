"""The layout of events and the calls of inotify: a wrong one would lose changes, or put them in the wrong folder."""

import errno
import os
import struct
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyConstants, InotifyFD

from alfwatchd.errors import WatchError
from alfwatchd.watch import inotify

FLAGS = [name for name in dir(inotify) if name.startswith("IN_")]


@pytest.fixture
def fd():
    found = inotify.make()
    yield found
    os.close(found)


def record(wd, mask, cookie, name, padding=0):
    name = name + b"\0" * (padding + 1) if name or padding else b""
    return struct.pack("iIII", wd, mask, cookie, len(name)) + name


def test_flags_are_those_of_another_library():
    """A flag that was mistyped would make the kernel leave out events."""
    assert len(FLAGS) == 18
    assert {name: getattr(inotify, name) for name in FLAGS} == {name: getattr(InotifyConstants, name) for name in FLAGS}


def test_events_are_taken_apart_as_another_library_does_it():
    """Names of files may hold any byte but NUL and slash; a look goes to the name that comes out here."""
    buffer = b"".join([
        record(1, 0x100, 0, b"a.b.c", 10), record(2, 0x40000200, 7, b""), record(-1, 0x4000, 0, b""),
        record(3, 2, 0, b"\xff\xfe \n", 3), record(4, 8, 0, b"x"),
    ])  # fmt: skip
    expected = [
        (1, 0x100, b"a.b.c"), (2, 0x40000200, b""), (-1, 0x4000, b""), (3, 2, b"\xff\xfe \n"), (4, 8, b"x"),
    ]  # fmt: skip
    assert list(inotify.parse(buffer)) == expected
    assert [(wd, mask, name) for wd, mask, _, name in InotifyFD._parse_event_buffer(buffer)] == expected
    assert list(inotify.parse(b"")) == []


def test_all_events_that_are_there_are_read_and_none_is_waited_for(fd, tmp_path):
    """More events than one read returns: readers of the tables whose opening is not seen are not waited for."""
    wd = inotify.watch_path(fd, bytes(tmp_path), inotify.IN_CREATE)
    assert list(inotify.read_events(fd)) == []
    names = [f"{number:0200d}".encode() for number in range(500)]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    assert list(inotify.read_events(fd)) == [(wd, inotify.IN_CREATE, name) for name in names]


def test_a_watch_is_removed_once_or_twice(fd, tmp_path):
    """The kernel removes the watch of a deleted folder by itself; removing it again must not end the engine."""
    wd = inotify.watch_path(fd, bytes(tmp_path))
    assert inotify.watch_path(fd, bytes(tmp_path)) == wd > 0
    inotify.remove_watch(fd, wd)
    assert list(inotify.read_events(fd)) == [(wd, inotify.IN_IGNORED, b"")]
    inotify.remove_watch(fd, wd)


def test_an_open_folder_is_watched_whatever_lies_at_its_path_now(fd, tmp_path):
    """A folder that is renamed between being opened and being watched would otherwise go unwatched."""
    (tmp_path / "old").mkdir()
    folder = os.open(tmp_path / "old", os.O_RDONLY)
    (tmp_path / "old").rename(tmp_path / "new")
    try:
        wd = inotify.watch_folder(fd, folder)
    finally:
        os.close(folder)
    (tmp_path / "new/x").touch()
    assert (wd, inotify.IN_CREATE, b"x") in list(inotify.read_events(fd))


def test_what_cannot_be_watched_says_why(fd, tmp_path):
    """The folder is polled instead, and `status` shows the reason."""
    with pytest.raises(FileNotFoundError):
        inotify.watch_path(fd, b"/nonexistent")
    (tmp_path / "file").touch()
    file = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with pytest.raises(WatchError, match=os.strerror(errno.ENOTDIR)):
            inotify.watch_folder(fd, file)
    finally:
        os.close(file)


def test_the_limit_is_told():
    """`status` shows it beside the number of watches in use."""
    assert inotify.watches_limit() == int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    assert "sysctl fs.inotify.max_user_watches=" in str(inotify.limit_reached())
