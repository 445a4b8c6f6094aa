"""ONE's own lock file: without it, `One.save_cache` and the daemon would each write over what the other just wrote."""

import json
import os
import threading
import time
from types import SimpleNamespace

import pytest
from iblutil.io.params import FileLock

from alfwatchd.atomic import write_atomically
from alfwatchd.store import one_lock as one_lock_module
from alfwatchd.store.one_lock import NAME, one_lock
from kit.trees import IN_THE_WAY, fast_folder

PATIENCE = 120.0


@pytest.fixture
def folder():
    with fast_folder() as folder:
        (folder / "precious").write_text("precious")
        yield folder
        assert (folder / "precious").read_text() == "precious"
        assert not (folder / NAME).exists()


def set_patience(monkeypatch, seconds):
    monkeypatch.setattr(one_lock_module, "STALE_SECONDS", seconds)


def test_one_waits_for_our_lock(folder):
    with one_lock(folder):
        assert json.loads((folder / ".ONE.lock").read_text())["pid"] == os.getpid()
        with pytest.raises(TimeoutError), FileLock(folder / ".ONE", timeout=0.1, timeout_action="raise"):
            pass


def test_we_wait_for_the_lock_of_one(folder):
    """A flush in the middle of `One.save_cache` would be lost with it."""
    taken = threading.Event()

    def take():
        with one_lock(folder):
            taken.set()

    taker = threading.Thread(target=take)
    with FileLock(folder / ".ONE", timeout=5):
        taker.start()
        assert not taken.wait(0.3)
    assert taken.wait(PATIENCE)
    taker.join()


def test_our_lock_goes_whatever_happens(folder):
    """A lock that stays after an error would make One wait for ten seconds, and every flush for five."""
    with pytest.raises(ZeroDivisionError), one_lock(folder):
        raise ZeroDivisionError


def test_an_old_lock_was_left_behind(folder, monkeypatch):
    """It is taken over at once, without the wait that a new one gets: each flush would be so much later."""
    stopped = SimpleNamespace(monotonic=lambda: 0.0, time=time.time, sleep=time.sleep)  # no wait ever ends
    monkeypatch.setattr(one_lock_module, "time", stopped)
    (folder / NAME).write_text("{}")
    os.utime(folder / NAME, (0, 0))
    finished = threading.Event()

    def take():
        with one_lock(folder):
            finished.set()

    taker = threading.Thread(target=take)
    taker.start()
    assert finished.wait(PATIENCE)
    taker.join()


@pytest.mark.parametrize("seconds", [-1e9, -3600, 3600, 1e10])
def test_a_lock_is_left_behind_after_a_while_whatever_its_clock_says(folder, seconds, monkeypatch):
    """The folder may be on a server whose clock is wrong: no flush may wait for ever."""
    set_patience(monkeypatch, 0.2)
    lock = folder / NAME
    lock.write_text("{}")
    os.utime(lock, (lock.stat().st_mtime + seconds,) * 2)
    with one_lock(folder):
        assert json.loads(lock.read_text())["program"] == "alfwatchd"


def test_a_lock_that_changes_hands_is_not_taken_over(folder, monkeypatch):
    """Several processes of ONE that save one after the other would be overtaken in the middle of a write."""
    set_patience(monkeypatch, 0.3)
    lock, taken = folder / NAME, threading.Event()
    lock.write_text("{}")

    def take():
        with one_lock(folder):
            taken.set()

    taker = threading.Thread(target=take)
    taker.start()
    for number in range(8):
        assert not taken.wait(0.1)
        (folder / "next").write_text(f"holder {number}")
        (folder / "next").rename(lock)
    lock.unlink()
    assert taken.wait(PATIENCE)
    taker.join()


@pytest.mark.parametrize("make", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_what_stands_in_the_place_of_the_lock_is_taken_for_an_old_one(folder, make, monkeypatch):
    """A folder or pipe of this name, which no program releases, would end all flushes."""
    set_patience(monkeypatch, 0.1)
    make(folder / NAME)
    with one_lock(folder):
        pass


def test_the_lock_is_taken_only_where_the_writer_asks_for_it(folder):
    """No ONE looks into a state folder: a lock file there would only make the daemon wait for itself."""
    seen = []

    def check():
        seen.append(sorted(path.name for path in folder.iterdir()))

    def write(path):
        path.write_text("new")

    write_atomically(folder / "a", write, check=check)
    write_atomically(folder / "a", write, check=check, lock=one_lock)
    assert seen == [["precious"], [".a.tmp", "precious"], ["a", "precious"], [".ONE.lock", ".a.tmp", "a", "precious"]]
