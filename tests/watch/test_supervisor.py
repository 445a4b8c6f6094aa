"""The proof that watching works: without it, a watcher that died would leave the tables wrong for ever."""

from types import SimpleNamespace

import pytest

from alfwatchd.errors import WatchError, WatchLimit
from alfwatchd.tree.folder import NOT_WATCHED, Folder
from alfwatchd.watch.supervisor import WatchSupervisor


class FakeWatcher:
    """A watcher without a kernel."""

    def __init__(self):
        self.is_alive, self.inotify_fd = True, 77
        self.cookies, self.removed, self.error, self.is_closed = [], [], None, False

    def add(self, fd):
        if self.error is not None:
            raise self.error
        return fd + 100

    def remove(self, wd):
        self.removed.append(wd)

    def drop_cookie(self, name):
        if self.error is not None:
            raise self.error
        self.cookies.append(name)

    def close(self):
        self.is_closed = True


@pytest.fixture
def made():
    found = SimpleNamespace(watchers=[], refusal=None)

    def new_watcher():
        if found.refusal is not None:
            raise found.refusal
        found.watchers.append(FakeWatcher())
        return found.watchers[-1]

    found.watch = WatchSupervisor(new_watcher)
    found.watch.renew(0.0)
    return found


def test_a_heartbeat_that_comes_back_is_followed_by_the_next(made):
    assert made.watch.beat(14.9) == ""
    assert made.watchers[0].cookies == []
    for now in (15.0, 30.0, 45.0):
        assert made.watch.beat(now) == ""
        made.watch.cookie_returned(made.watchers[0].cookies[-1])
    assert len(made.watchers[0].cookies) == 3
    assert len(made.watchers) == 1


def test_a_heartbeat_that_does_not_come_back_rebuilds_the_chain(made):
    made.watch.beat(15.0)
    made.watch.cookie_returned("another one")
    assert made.watch.beat(29.9) == ""
    assert "heartbeat" in made.watch.beat(30.0)
    assert (made.watchers[0].is_closed, len(made.watchers), made.watch.n_renewed) == (True, 2, 2)
    assert made.watch.beat(30.1) == ""


def test_lost_events_excuse_the_heartbeat(made):
    """Its cookie was among them: rebuilding the chain would lose more events."""
    made.watch.beat(15.0)
    made.watch.excuse_heartbeat()
    assert made.watch.beat(30.0) == ""
    assert len(made.watchers) == 1


def test_a_dead_reader_is_replaced_at_once(made):
    made.watchers[0].is_alive = False
    assert made.watch.beat(1.0) == "the reader of events ended"
    assert len(made.watchers) == 2


def test_without_a_watcher_the_folders_are_polled_until_there_is_one(made):
    """A user who raises the limit needs no restart."""
    made.refusal = WatchLimit("no inotify instance")
    made.watchers[0].is_alive = False
    made.watch.beat(1.0)
    assert not made.watch.is_on
    assert (made.watch.inotify_fd, made.watch.problem) == (-1, "no inotify instance")
    assert "all folders are not watched" in made.watch.problems()[0].message
    with pytest.raises(WatchError):
        made.watch.drop_cookie()
    assert made.watch.beat(16.0) == ""
    made.refusal = None
    assert made.watch.beat(31.0) == "watching begins again"
    assert (made.watch.is_on, made.watch.problems()) == (True, [])


def test_a_folder_that_cannot_be_watched_is_told_until_it_is(made):
    """It is looked at again at each `sync`, and `status` says why."""
    folder = Folder.at("s")
    made.watchers[0].error = WatchLimit("the limit is reached")
    made.watch.arm(folder, 3)
    assert made.watch.unwatched == {folder}
    assert "1 folders are not watched: the limit is reached" in made.watch.problems()[0].message
    made.watchers[0].error = None
    made.watch.arm(folder, 3)
    assert (made.watch.unwatched, made.watch.problems(), folder.wd) == (set(), [], 103)


def test_a_watch_that_no_folder_has_is_removed(made):
    """Watches that stay behind use up the user's limit."""
    folder = Folder.at("s")
    made.watch.arm(folder, 3)
    made.watch.arm(folder, 4)  # another folder lies there now
    assert made.watchers[0].removed == [103]
    made.watch.release_unclaimed(104)
    made.watch.release_unclaimed(NOT_WATCHED)
    made.watch.release_unclaimed(105)
    assert made.watchers[0].removed == [103, 105]


def test_where_nothing_is_to_be_watched_nothing_is_a_problem():
    watch = WatchSupervisor()
    watch.renew(0.0)
    assert (watch.is_on, watch.beat(100.0), watch.problems(), watch.audit()) == (False, "", [], [])
