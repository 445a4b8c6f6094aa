"""Who reads one of two files is waited for until he has opened the other one, or for as long as he may take."""

import threading
import time
from contextlib import contextmanager

import pytest

from alfwatchd import readers
from alfwatchd.readers import Readers

PATIENCE = 20.0


@pytest.fixture(autouse=True)
def nobody_came_before(monkeypatch):
    monkeypatch.setattr(readers, "_UNSEEN_SECONDS", 0.0)


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


def seconds_waited(found, name, seconds):
    started = time.monotonic()
    found.wait_for(name, seconds)
    return time.monotonic() - started


# what was opened, files whose readers nobody has to wait for
ANSWERED = [("", "sd"), ("dds", ""), ("ddss", "d"), ("ddssddss", "d"), ("ssdd", "s"), ("dddss", ""), ("other", "sd")]


@pytest.mark.parametrize(("opened", "free"), ANSWERED)
def test_an_opening_is_answered_by_one_of_the_other_file(folder, opened, free):
    for name in "sd":
        found = Readers(folder, "s", "d")
        read(folder, [opened] if opened == "other" else opened)
        assert (seconds_waited(found, name, 0.2) < 0.1) is (name in free)


def test_a_reader_is_waited_for_until_he_comes(folder):
    found = Readers(folder, "s", "d")
    read(folder, "dd")
    with waiting(found, "d"):
        read(folder, "ss")


def test_who_begins_later_is_not_waited_for(folder):
    found = Readers(folder, "s", "d")
    read(folder, "dd")
    with waiting(found, "d"):
        read(folder, "dd")  # another one
        read(folder, "ss")
        read(folder, "ddss")
        read(folder, "dd")  # he does not come, and nobody waits
        read(folder, "ssss")


def test_where_several_read_at_once_nobody_is_counted(folder):
    """Two that open a file at the same moment may be told as one: he who is answered was not the only one."""
    found = Readers(folder, "s", "d")
    read(folder, "ddd")
    found.look()
    read(folder, "sss")
    assert 0.25 < seconds_waited(found, "d", 0.3) < PATIENCE


def test_who_takes_too_long_is_not_waited_for(folder):
    found = Readers(folder, "s", "d")
    read(folder, "d")
    assert 0.25 < seconds_waited(found, "d", 0.3) < PATIENCE
    assert seconds_waited(found, "d", 0.3) < 0.1, "nor once more"


def test_who_came_before_the_watch_is_waited_for_a_moment(folder, monkeypatch):
    monkeypatch.setattr(readers, "_UNSEEN_SECONDS", 0.3)
    found = Readers(folder, "s", "d")
    assert 0.2 < seconds_waited(found, "s", PATIENCE) < PATIENCE
    assert seconds_waited(found, "s", PATIENCE) < 0.2


def test_nobody_came_before_the_watch_to_a_file_that_was_not_there(folder, monkeypatch):
    monkeypatch.setattr(readers, "_UNSEEN_SECONDS", PATIENCE)
    (folder / "s").unlink()
    found = Readers(folder, "s", "d")
    assert seconds_waited(found, "s", PATIENCE) < 1


def test_what_this_process_opens_does_not_count(folder):
    found = Readers(folder, "s", "d")
    started = time.monotonic()
    with found.opening("d"):
        read(folder, "d")
    assert seconds_waited(found, "d", PATIENCE) < 1
    assert found.last_opened("d") < started
    with found.opening("d"):
        read(folder, "d")
        read(folder, "d")
    assert found.last_opened("d") > started
    assert seconds_waited(found, "d", 0.2) > 0.1


def test_the_last_opening_is_told(folder):
    found = Readers(folder, "s", "d")
    before = time.monotonic()
    assert found.last_opened("s") <= before
    read(folder, "s")
    assert found.last_opened("s") > before > found.last_opened("d")


def test_where_nobody_can_be_seen_anybody_may_be_there(tmp_path):
    found = Readers(tmp_path / "missing", "s", "d")
    before = time.monotonic()
    assert found.last_opened("s") >= before
    assert seconds_waited(found, "s", PATIENCE) < 1


def test_a_folder_that_was_replaced_is_watched_anew(folder):
    found = Readers(folder / "out", "s", "d")
    for number in range(2):
        (folder / "out").mkdir()
        (folder / "out/d").touch()
        with found.opening("d"):
            pass
        read(folder, ["out/d"])
        assert seconds_waited(found, "d", 0.2) > 0.1
        (folder / "out").rename(folder / f"old{number}")


def test_lost_events_may_have_been_anything(folder, monkeypatch):
    found = Readers(folder, "s", "d")
    monkeypatch.setattr(found, "_events", lambda: iter([(readers._IN_Q_OVERFLOW, "")]))
    found.look()
    monkeypatch.undo()
    before = time.monotonic() - 1
    assert min(found.last_opened("s"), found.last_opened("d")) > before
    assert seconds_waited(found, "d", 0.2) > 0.1
