"""How a file is replaced where others may write to the folder, too."""

import os

import pytest

from alfwatchd.store import atomic
from alfwatchd.store.atomic import write_atomically
from kit.trees import fast_folder, make_socket

NAME = "a.pqt"
IN_THE_WAY = {
    "file": lambda path: path.write_text("of a process that was killed"),
    "pipe": os.mkfifo,
    "socket": make_socket,
    "empty folder": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("precious"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
}
CASES = pytest.mark.parametrize("make", IN_THE_WAY.values(), ids=IN_THE_WAY)


@pytest.fixture
def folder():
    with fast_folder() as folder:
        (folder / "precious").write_text("precious")
        yield folder
        assert (folder / "precious").read_text() == "precious"


@CASES
def test_what_stands_where_the_file_belongs_is_replaced(folder, make):
    make(folder / NAME)
    replace(folder)
    assert only_new(folder)


def replace(folder):
    return write_atomically(folder / NAME, lambda target: target.write_text("new"))


def only_new(folder):
    return {path.name: path.read_text() for path in folder.iterdir()} == {"precious": "precious", NAME: "new"}


@CASES
def test_what_stands_where_the_new_file_is_written_is_replaced(folder, make):
    make(folder / f".{NAME}.tmp")
    assert replace(folder) == atomic.file_version(folder / NAME)
    assert only_new(folder)


@CASES
def test_what_stands_in_the_place_of_the_lock_is_taken_for_an_old_one(folder, make, monkeypatch):
    monkeypatch.setattr(atomic, "_LOCK_STALE_SECONDS", 0.1)
    make(folder / ".ONE.lock")
    replace(folder)
    assert only_new(folder)


@pytest.mark.parametrize("seconds", [-1e9, -3600, 3600, 1e10])
def test_a_lock_of_a_wrong_time_is_waited_for_no_longer_than_others(folder, seconds, monkeypatch):
    monkeypatch.setattr(atomic, "_LOCK_STALE_SECONDS", 0.1)
    lock = folder / ".ONE.lock"
    lock.touch()
    os.utime(lock, (lock.stat().st_mtime + seconds,) * 2)
    replace(folder)
    assert only_new(folder)


def test_who_puts_a_link_in_place_of_the_file_that_is_written_gets_nothing_written_elsewhere(folder):
    temporary = folder / f".{NAME}.tmp"

    def write(target):
        temporary.unlink()
        temporary.symlink_to("precious")
        target.write_text("new")

    write_atomically(folder / NAME, write)


def test_a_folder_that_holds_something_is_told_by_the_name_of_the_file(folder):
    (folder / NAME / "kept").mkdir(parents=True)
    with pytest.raises(OSError, match=NAME):
        replace(folder)
    assert (folder / NAME / "kept").is_dir()
    assert not (folder / f".{NAME}.tmp").exists()


def test_an_error_names_the_file(folder):
    def fail(target):
        raise OSError(28, "No space left on device", str(target))

    with pytest.raises(OSError, match=NAME) as caught:
        write_atomically(folder / NAME, fail)
    assert caught.value.filename == str(folder / NAME)
