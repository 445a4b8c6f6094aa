"""Files that anybody may have put there: a reader must not hang on a pipe, nor a writer remove what it must not."""

import errno
import os
import socket

import pytest

from alfwatchd.files import NotRegular, file_version, open_regular, open_regular_fd, remove, sync_folder
from kit.trees import IN_THE_WAY, fast_folder


@pytest.fixture
def folder():
    with fast_folder() as folder:
        (folder / "precious").write_text("precious")
        before = sorted(os.listdir("/proc/self/fd"))
        yield folder
        assert (folder / "precious").read_text() == "precious"
        assert {*os.listdir("/proc/self/fd")} <= {*before}


def test_a_regular_file_is_opened_by_path_or_in_a_folder(folder):
    (folder / "link").symlink_to("precious")
    for name in ("precious", "link"):
        with open_regular(folder / name) as file:
            assert file.read() == b"precious"
    folder_fd = os.open(folder, os.O_RDONLY)
    try:
        fd = open_regular_fd("precious", dir_fd=folder_fd, follow_links=False)
        assert os.read(fd, 100) == b"precious"
        os.close(fd)
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            open_regular("link", dir_fd=folder_fd, follow_links=False)
    finally:
        os.close(folder_fd)


def test_nothing_else_is_opened_nor_waited_for(folder):
    """A flush that opens a pipe in the place of the tables would wait for ever, and with it every `sync`."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "link"):
        with pytest.raises(NotRegular, match=f"is no regular file.*{name}"):
            open_regular(folder / name)
    with socket.socket(socket.AF_UNIX) as here:
        here.bind(str(folder / "socket"))
        with pytest.raises(OSError, match="No such device"):
            open_regular(folder / "socket")


@pytest.mark.parametrize("make", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_whatever_is_in_the_way_is_removed_and_nothing_that_it_leads_to(folder, make):
    make(folder / "x")
    remove(folder / "x")
    assert not os.path.lexists(folder / "x")
    remove(folder / "x")
    make(folder / "x")
    folder_fd = os.open(folder, os.O_RDONLY)
    try:
        remove("x", dir_fd=folder_fd)
    finally:
        os.close(folder_fd)
    assert not os.path.lexists(folder / "x")


def test_a_folder_that_holds_something_is_not_removed(folder):
    """It may be a user's data."""
    (folder / "x/kept").mkdir(parents=True)
    with pytest.raises(OSError, match="not empty"):
        remove(folder / "x")
    assert (folder / "x/kept").is_dir()


def test_the_version_tells_a_file_from_another_one_of_its_name(folder):
    """By it the writer sees that another program replaced the tables."""
    path = folder / "precious"
    about, version = path.stat(), file_version(path)
    assert version == (about.st_ino, about.st_size, about.st_mtime_ns)
    (folder / "other").write_text("precious")
    os.utime(folder / "other", ns=(about.st_mtime_ns, about.st_mtime_ns))
    assert file_version(folder / "other") != version
    assert file_version(folder / "nothing") is None
    (folder / "link").symlink_to("nowhere")
    assert file_version(folder / "link") is None
    assert file_version(folder / "link", follow_links=False) is not None


def test_a_file_system_that_syncs_no_folders_can_be_written_to(folder, monkeypatch):
    """Otherwise each flush and each prune would fail there, after it has replaced the file."""
    code = errno.EINVAL

    def fsync(fd):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    folder_fd = os.open(folder, os.O_RDONLY)
    try:
        sync_folder(folder_fd)
        sync_folder(folder)
        code = errno.EIO
        for each in (folder_fd, folder):
            with pytest.raises(OSError, match="Input/output"):
                sync_folder(each)
    finally:
        os.close(folder_fd)


def test_a_regular_file_is_made_and_added_to_but_not_through_a_link(folder):
    """The notes of lost rows must not be added to a file that another program made the name lead to."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    for text in (b"one", b"two"):
        fd = open_regular_fd(folder / "made", flags, 0o640, follow_links=False)
        os.write(fd, text)
        os.close(fd)
    assert (folder / "made").read_bytes() == b"onetwo"
    assert not (folder / "made").stat().st_mode & 0o007
    (folder / "link").symlink_to("precious")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        open_regular_fd(folder / "link", flags, follow_links=False)
