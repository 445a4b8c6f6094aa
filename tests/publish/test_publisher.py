"""Publishing beside the daemon: each target in a thread of its own."""

import logging
import threading
import time
from contextlib import contextmanager

import pytest

from alfwatchd.errors import TargetError
from alfwatchd.publish import publisher as publisher_module
from alfwatchd.publish.folder import FolderTarget
from alfwatchd.publish.publisher import Publisher
from alfwatchd.settings import Publish, Subset
from kit.published import folder_reader, look, write_tables
from kit.trees import fast_folder

PATIENCE = 120.0


@pytest.fixture
def folder():
    with fast_folder() as made:
        write_tables(made / "out", 1)
        yield made


@contextmanager
def publishing(folder, *entries):
    made = Publisher(folder / "out", entries)
    try:
        yield made
    finally:
        made.close()


def entry(target, **settings):
    target.mkdir(exist_ok=True)
    # Half a second, where settings allow a minute at least.
    return Publish(target=str(target), **settings).model_copy(update={"interval_seconds": 0.5})


def wait(is_so):
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def subjects(target):
    found = look(folder_reader(target))
    return found and found[2]


def test_each_target_gets_each_change(folder):
    entries = [entry(folder / "a"), entry(folder / "b", subset=Subset(subjects=("s1",), tag="t"))]
    with publishing(folder, *entries) as publisher:
        idle = publisher.status()
        assert [(each.target, each.tag) for each in idle] == [(str(folder / "a"), ""), (str(folder / "b"), "t")]
        assert {(each.generation, each.lag_seconds, each.last_error, each.next_attempt) for each in idle} == {
            (None,) * 4
        }
        publisher.wake()
        wait(lambda: all(each.generation for each in publisher.status()))
        assert subjects(folder / "a") == {"s1", "s2"}
        assert subjects(folder / "b/t") == {"s1"}
        (first, _) = publisher.status()
        assert (first.lag_seconds, first.last_error, first.next_attempt) == (None, None, None)
        assert first.generation.startswith("1-")
        write_tables(folder / "out", 2, ["s3"])
        publisher.wake()
        assert publisher.status()[0].lag_seconds is not None
        wait(lambda: subjects(folder / "a") == {"s3"})
        wait(lambda: publisher.status()[0].lag_seconds is None)


def test_not_more_often_than_the_interval(folder):
    with publishing(folder, entry(folder / "a").model_copy(update={"interval_seconds": 3600.0})) as publisher:
        publisher.wake()
        wait(lambda: subjects(folder / "a"))
        before = subjects(folder / "a")
        wait(lambda: publisher.status()[0].lag_seconds is None)
        write_tables(folder / "out", 2, ["s3"])
        publisher.wake()
        wait(lambda: publisher.status()[0].next_attempt is not None)
        time.sleep(0.3)
        assert publisher.status()[0].lag_seconds is not None
        assert subjects(folder / "a") == before


def test_old_generations_go_though_nothing_changes(folder):
    def subjects_at(target):
        try:
            return subjects(target)
        except AssertionError:  # what it was about to read is gone: it was stopped for longer than `keep_seconds`
            return set()

    with publishing(folder, entry(folder / "a", keep_seconds=0.2)) as publisher:
        publisher.wake()
        wait(lambda: subjects_at(folder / "a"))
        write_tables(folder / "out", 2, ["s3"])
        publisher.wake()
        wait(lambda: subjects_at(folder / "a") == {"s3"})
        wait(lambda: len(list((folder / "a/tables").iterdir())) == 1)
        write_tables(folder / "out", 3, ["s4"])  # and that was not the thread's last act
        publisher.wake()
        wait(lambda: subjects_at(folder / "a") == {"s4"})


def test_a_dead_target_delays_no_other(folder, monkeypatch):
    """One hangs as in a dead network; the other target, status and the end of the daemon do not wait for it."""
    monkeypatch.setattr(publisher_module, "PATIENCE_SECONDS", 0.2)
    reached, release = threading.Event(), threading.Event()

    class Dead(FolderTarget):
        def token(self, key):
            reached.set()
            release.wait(PATIENCE)
            raise TargetError("is dead")

    def open_target(settings):
        return Dead(folder / "dead") if settings.target.endswith("dead") else FolderTarget(folder / "live")

    monkeypatch.setattr(publisher_module, "open_target", open_target)
    made = Publisher(folder / "out", [entry(folder / "dead"), entry(folder / "live")])
    try:
        made.wake()
        assert reached.wait(PATIENCE)
        wait(lambda: subjects(folder / "live"))
        made.wake()
        wait(lambda: made.status()[1].lag_seconds is None)
        dead, live = made.status()
        assert dead.lag_seconds > 0
        assert live.generation
        made.close()
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("publisher ")]
        assert [thread.name for thread in threads] == [f"publisher {folder / 'dead'}"], "its end was not waited for"
    finally:
        release.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_failures_are_told_and_tried_again(folder, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    away = entry(folder / "away")
    (folder / "away").rmdir()
    with publishing(folder, away) as publisher:
        publisher.wake()
        wait(lambda: caplog.text.count("publishing failed") >= 1 and publisher.status()[0].last_error)
        (status,) = publisher.status()
        assert "not mounted" in status.last_error
        assert status.next_attempt is not None
        assert status.lag_seconds is not None
        time.sleep(0.7)  # the next attempts fail likewise, and that is not told again
        assert caplog.text.count("publishing failed") == 1
        (folder / "away").mkdir()
        wait(lambda: subjects(folder / "away"))
        wait(lambda: publisher.status()[0].last_error is None)


def test_an_unexpected_error_ends_no_thread(folder, monkeypatch, caplog):
    calls = []

    def publish(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError("secret")
        return original(*arguments)

    original = publisher_module.publish
    monkeypatch.setattr(publisher_module, "publish", publish)
    with publishing(folder, entry(folder / "a")) as publisher:
        publisher.wake()
        wait(lambda: subjects(folder / "a"))
    assert "unexpected RuntimeError" in caplog.text
    assert "secret" not in caplog.text
