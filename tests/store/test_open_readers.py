"""The writer waits for a reader of one file until it has opened the other one, or for as long as that may take."""

import threading
import time
from contextlib import contextmanager

import pytest

from alfwatchd.store import open_readers
from alfwatchd.store.open_readers import Readers
from alfwatchd.watch import inotify

PATIENCE = 120.0
LONG = 10_000.0
"""Seconds on the clock of `readers`, which goes on by itself as ours does, and at once where somebody waits."""


@pytest.fixture(autouse=True)
def no_reader_came_before(monkeypatch):
    monkeypatch.setattr(open_readers, "UNSEEN_SECONDS", 0.0)


class Clock:
    def __init__(self):
        self.n_seconds = 0.0

    def monotonic(self):
        return time.monotonic() + self.n_seconds

    def sleep(self, seconds):
        self.n_seconds += seconds

    def select(self, reading, writing, broken, seconds):
        """Wait for what does not come."""
        self.n_seconds += seconds
        return [], [], []


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(open_readers, "time", made)
    return made


@pytest.fixture
def seconds_waited(clock, monkeypatch):
    def wait(found, name):
        before = clock.n_seconds
        with monkeypatch.context() as patch:
            patch.setattr(open_readers, "select", clock)
            found.wait_for(name, LONG)
        return clock.n_seconds - before

    return wait


def is_about(seconds, expected):
    """Tell whether so many seconds were waited for, less the time that had gone by before."""
    return expected / 2 < seconds <= expected


@pytest.fixture
def folder(tmp_path):
    for name in ("s", "d", "other"):
        (tmp_path / name).touch()
    return tmp_path


def read(folder, names):
    for name in names:
        (folder / name).read_bytes()


@contextmanager
def waiting(found, name, seconds=PATIENCE):
    """Wait in a thread, which must not be over at the end of the block, but must end soon after it."""
    over = threading.Event()

    def wait():
        found.wait_for(name, seconds)
        over.set()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        assert not over.wait(0.1)
        yield
    finally:
        assert over.wait(PATIENCE / 2)
        thread.join()


# what was opened, files whose readers nobody has to wait for
ANSWERED = [("", "sd"), ("dds", ""), ("ddss", "d"), ("ddssddss", "d"), ("ssdd", "s"), ("dddss", ""), ("other", "sd")]


@pytest.mark.parametrize(("opened", "free"), ANSWERED)
def test_an_opening_is_answered_by_one_of_the_other_file(folder, opened, free, seconds_waited):
    for name in "sd":
        found = Readers(folder, "s", "d")
        read(folder, [opened] if opened == "other" else opened)
        waited = seconds_waited(found, name)
        assert waited == 0 if name in free else is_about(waited, LONG)


def test_a_reader_is_waited_for_until_he_comes(folder):
    found = Readers(folder, "s", "d")
    read(folder, "dd")
    with waiting(found, "d"):
        read(folder, "ss")


def test_a_reader_that_begins_later_is_not_waited_for(folder):
    found = Readers(folder, "s", "d")
    read(folder, "dd")
    with waiting(found, "d"):
        read(folder, "dd")  # another one
        read(folder, "ss")
        read(folder, "ddss")
        read(folder, "dd")  # he does not come, and nobody waits
        read(folder, "ssss")


def test_where_several_read_at_once_they_are_not_counted(folder, seconds_waited):
    """The kernel may report two readers as one if they open a file at the same moment: then both are waited for."""
    found = Readers(folder, "s", "d")
    read(folder, "ddd")
    found.look()
    read(folder, "sss")
    assert is_about(seconds_waited(found, "d"), LONG)


def test_a_reader_that_takes_too_long_is_not_waited_for(folder, seconds_waited):
    found = Readers(folder, "s", "d")
    read(folder, "d")
    assert is_about(seconds_waited(found, "d"), LONG)
    assert seconds_waited(found, "d") == 0, "nor once more"


def test_a_reader_from_before_the_watch_is_waited_for_a_moment(folder, monkeypatch, seconds_waited):
    monkeypatch.setattr(open_readers, "UNSEEN_SECONDS", LONG / 4)
    found = Readers(folder, "s", "d")
    assert is_about(seconds_waited(found, "s"), LONG / 4)
    assert seconds_waited(found, "s") == 0


def test_no_reader_came_before_the_watch_to_a_file_that_was_not_there(folder, monkeypatch, seconds_waited):
    monkeypatch.setattr(open_readers, "UNSEEN_SECONDS", LONG)
    (folder / "s").unlink()
    found = Readers(folder, "s", "d")
    assert seconds_waited(found, "s") == 0


def test_what_this_process_opens_does_not_count(folder, seconds_waited):
    found = Readers(folder, "s", "d")
    started = time.monotonic()
    with found.opening("d"):
        read(folder, "d")
    assert seconds_waited(found, "d") == 0
    assert found.last_opened("d") < started
    with found.opening("d"):
        read(folder, "d")
        read(folder, "d")
    assert found.last_opened("d") > started
    assert is_about(seconds_waited(found, "d"), LONG)


def test_the_last_opening_is_told(folder):
    found = Readers(folder, "s", "d")
    before = time.monotonic()
    assert found.last_opened("s") <= before
    read(folder, "s")
    assert found.last_opened("s") > before > found.last_opened("d")


def test_where_no_reader_can_be_seen_there_may_be_one(tmp_path, seconds_waited):
    found = Readers(tmp_path / "missing", "s", "d")
    before = time.monotonic()
    assert found.last_opened("s") >= before
    assert seconds_waited(found, "s") == 0


def test_a_folder_that_was_replaced_is_watched_again(folder, seconds_waited):
    found = Readers(folder / "out", "s", "d")
    for number in range(2):
        (folder / "out").mkdir()
        (folder / "out/d").touch()
        with found.opening("d"):
            pass
        read(folder, ["out/d"])
        assert is_about(seconds_waited(found, "d"), LONG)
        (folder / "out").rename(folder / f"old{number}")


def test_lost_events_may_have_been_anything(folder, monkeypatch, seconds_waited):
    found = Readers(folder, "s", "d")
    with monkeypatch.context() as patch:
        patch.setattr(inotify, "read_events", lambda _: iter([(-1, inotify.IN_Q_OVERFLOW, b"")]))
        found.look()
    before = time.monotonic() - 1
    assert min(found.last_opened("s"), found.last_opened("d")) > before
    assert is_about(seconds_waited(found, "d"), LONG)
