"""A program that follows a real daemon hears of each session, also over restarts and kills.

If one of these fails, a lab's own scripts miss a recording.
"""

import asyncio
import shutil
import threading

import pytest

import alfwatchd
from kit.program import make_small_tree, program

pytestmark = pytest.mark.usefixtures("no_readers")


class Follower(threading.Thread):
    """Collects what the feed tells, in a thread of its own."""

    def __init__(self, daemon, **options):
        super().__init__()
        self.changes = alfwatchd.Client(daemon.socket, root=daemon.root).changes(**options)
        self.told = []
        self._ends = threading.Event()
        self.start()

    def run(self):
        with self.changes:
            while not self._ends.is_set():
                if (item := self.changes.take(0.1)) is not None:
                    self.told.append(item)

    def end(self):
        self._ends.set()
        self.join()

    @property
    def paths(self):
        return [each.path if isinstance(each, alfwatchd.Change) else "fresh" for each in self.told]


@pytest.fixture
def daemon(tmp_path):
    with program(make_small_tree(tmp_path / "root")) as made:
        made.start()
        made.client.sync()
        yield made


def copy_session(daemon, number):
    """Copy a session, and return the path of the copy."""
    path = f"lab/Subjects/s1/2030-01-01/{number:03d}"
    source = next(each for each in sorted(daemon.root.glob("lab/Subjects/s1/*/*")) if each.is_dir())
    shutil.copytree(source, daemon.root / path)
    return path


def test_a_follower_hears_of_each_session_once_over_stops_and_kills(daemon):
    follower = Follower(daemon)
    try:
        daemon.wait(lambda: follower.changes.cursor != "now")
        expected = []
        for number, end in enumerate((daemon.stop, daemon.kill, daemon.stop), 1):
            expected.append(copy_session(daemon, number))
            daemon.client.sync()
            end()
            expected.append(copy_session(daemon, number + 100))
            daemon.start()
            daemon.client.sync()
            daemon.wait(lambda: len(follower.told) >= len(expected))
        assert follower.paths == expected
        assert [each.change for each in follower.told] == ["added"] * len(expected)
    finally:
        follower.end()
    found = list(daemon.client.changes(since="start", follow=False))
    assert sorted(each.path for each in found) == sorted(expected)
    assert (found[-1].generation, found[-1].cursor) == (daemon.client.status().generation, follower.changes.cursor)


def test_after_the_state_folder_is_lost_the_follower_is_told_to_take_everything(daemon):
    follower = Follower(daemon)
    try:
        daemon.wait(lambda: follower.changes.cursor != "now")
        daemon.stop()
        shutil.rmtree(daemon.home / "state")
        daemon.start()
        daemon.client.sync()
        daemon.wait(lambda: follower.paths == ["fresh"])
        path = copy_session(daemon, 1)
        daemon.client.sync()
        daemon.wait(lambda: follower.paths == ["fresh", path])
    finally:
        follower.end()


def test_what_is_not_on_disk_is_told_before_the_flush_and_again_after_it(daemon):
    """The default settings flush each 10 s, and the last flush was just now."""

    async def follow():
        client = alfwatchd.Client(daemon.socket, root=daemon.root)
        async with client.changes_async(flushed=False) as changes:
            waiting = asyncio.ensure_future(anext(changes))
            while changes.cursor == "now":
                await asyncio.sleep(0.01)
            number, early = 0, None
            while early is None:  # the engine begins to look within a second after the first client has asked
                number += 1
                path = copy_session(daemon, number)
                await asyncio.wait({waiting}, timeout=1.0)
                early = waiting.result() if waiting.done() else None
                if early is not None and early.generation is not None:
                    early, waiting = None, asyncio.ensure_future(anext(changes))
            found = [early]
            await asyncio.to_thread(client.sync)
            while found[-1].generation is None or found[-1].path != path:
                found.append(await anext(changes))
            return path, early, found

    path, early, found = asyncio.run(follow())
    assert (early.generation, early.change) == (None, "added")
    last = [each for each in found if each.path == path][-1]
    assert (last.change, last.eid != "") == ("added", True)
    assert last.generation <= daemon.client.status().generation
