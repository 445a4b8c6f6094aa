"""The Python client of the change feed, with and without asyncio.

If one of these fails, a script misses a session, hears of one twice, or ends when the daemon is restarted.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import alfwatchd
from alfwatchd import changes
from alfwatchd.errors import (
    NoDaemon,
    UsageError,
    WrongRoot,
)
from alfwatchd.web.client import Client
from kit.control import WAIT_SECONDS, control_box, wait
from kit.feed import FeedBox
from kit.journal import change

pytestmark = pytest.mark.usefixtures("no_readers")


@pytest.fixture(scope="module")
def server():
    with control_box() as box:
        yield box


@pytest.fixture
def box(server):
    yield FeedBox(server)
    wait(lambda: not server.server.connections, "a client keeps its connection")


def read_all(client, **options):
    with client.changes(follow=False, **options) as found:
        return [number(each) for each in found]


def read_all_async(client, **options):
    async def read():
        async with client.changes_async(follow=False, **options) as found:
            return [number(each) async for each in found]

    return asyncio.run(read())


def number(item):
    return item.path[-3:] if isinstance(item, changes.Change) else "fresh"


def followers(box):
    return [each for each in box.box.server.connections if each.is_follower]


def drop_all(box):
    """Close all connections, as a daemon that ends does."""
    done = threading.Event()

    def drop():
        for each in box.box.server.connections:
            each.drop()
        done.set()

    box.box.server.call_soon(drop)
    assert done.wait(WAIT_SECONDS)


READERS = [read_all, read_all_async]


@pytest.mark.parametrize("read", READERS)
def test_without_following_it_tells_what_there_is_and_ends(box, read):
    for each in range(1, 4):
        box.add(change(each), change(each + 100, lab="other"))
    assert read(box.box.client, since=box.begun) == ["001", "101", "002", "102", "003", "103"]
    assert read(box.box.client, since=box.begun, lab="other") == ["101", "102", "103"]
    assert read(box.box.client, since=box.begun, subject="t") == []
    assert read(box.box.client) == []


@pytest.mark.parametrize("read", READERS)
def test_a_place_that_is_too_old_is_told_before_what_follows(box, read):
    box.add(change(1))
    assert read(box.box.client, since=0) == ["fresh"]
    assert read(box.box.client, since="00000000.3") == ["fresh"]


def test_a_program_that_forgets_fresh_fails():
    with pytest.raises(AttributeError):
        assert alfwatchd.Fresh(1, "j", "j.1").path


@pytest.mark.parametrize("read", READERS)
def test_many_pages(box, read):
    n_changes = 2500
    for first in range(0, n_changes, 500):
        box.add(*(change(each % 1000, subject=f"s{each // 1000}") for each in range(first, first + 500)))
    assert len(read(box.box.client, since=box.begun)) == n_changes


def test_following_goes_on_after_the_daemon_closed_the_connection(box):
    with box.box.client.changes(since=box.begun) as found:
        told = []
        for each in range(1, 6):
            box.add(change(each))
            told.append(next(found))
            drop_all(box)
        assert [number(each) for each in told] == ["001", "002", "003", "004", "005"]
        assert found.cursor == told[-1].cursor


def test_following_with_asyncio_goes_on_too(box):
    async def follow():
        told = []
        async with box.box.client.changes_async(since=box.begun) as found:
            for each in range(1, 6):
                await asyncio.to_thread(box.add, change(each))
                told.append(number(await anext(found)))
                await asyncio.to_thread(drop_all, box)
        return told, found.cursor

    told, cursor = asyncio.run(follow())
    assert told == ["001", "002", "003", "004", "005"]
    assert cursor == f"{box.journal_id}.{box.begun + 5}"


def test_a_task_that_is_cancelled_while_it_waits_loses_nothing(box):
    async def follow():
        told = []
        async with box.box.client.changes_async(since=box.begun) as found:
            for each in range(1, 6):
                for _ in range(3):
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(anext(found), 0.02)
                await asyncio.to_thread(box.add, change(each))
                told.append(number(await anext(found)))
        return told

    assert asyncio.run(follow()) == ["001", "002", "003", "004", "005"]


def test_from_now_on_nothing_is_missed_once_the_daemon_has_answered(box):
    box.add(change(1))
    with box.box.client.changes() as found:
        assert found.cursor == "now"
        while found.cursor == "now":
            assert found.take(0.05) is None
        drop_all(box)
        box.add(change(2))
        assert number(next(found)) == "002"


def test_take_returns_after_its_time(box):
    with box.box.client.changes(since=box.begun) as found:
        assert found.take(0) is None
        assert found.take(0.05) is None
        box.add(change(1))
        assert number(found.take(WAIT_SECONDS)) == "001"


def test_a_later_call_goes_on_at_a_cursor(box):
    box.add(change(1), change(2), change(3))
    with box.box.client.changes(since=box.begun) as found:
        assert [number(next(found)) for _ in range(2)] == ["001", "002"]
        cursor = found.cursor
    assert read_all(box.box.client, since=cursor) == ["003"]


def test_the_cursor_moves_on_without_wanted_changes(box):
    generation = box.add(change(1))
    with box.box.client.changes(since=box.begun, follow=False, lab="other") as found:
        assert list(found) == []
        assert found.cursor == f"{box.journal_id}.{generation}"


def test_a_journal_that_begins_again_is_told(box):
    with ThreadPoolExecutor() as pool, box.box.client.changes() as found:
        waiting = pool.submit(next, found)
        wait(lambda: followers(box))
        box.box.journal.begin_again()
        fresh = waiting.result(WAIT_SECONDS)
        assert (type(fresh), fresh.generation, fresh.cursor) == (
            alfwatchd.Fresh, box.begun + 1, f"{box.journal_id}.{box.begun + 1}",
        )  # fmt: skip
        box.add(change(1))
        assert number(next(found)) == "001"


def test_without_a_daemon_it_fails_at_once(tmp_path):
    for follow in (True, False):
        with pytest.raises(NoDaemon):
            next(Client(tmp_path / "s").changes(since=1, follow=follow))
    with pytest.raises(NoDaemon):
        read_all_async(Client(tmp_path / "s"), since=1)


def test_what_the_daemon_refuses_is_raised(box):
    with pytest.raises(UsageError, match=r"query\.since"):
        next(box.box.client.changes(since="yesterday"))
    with pytest.raises(WrongRoot):
        next(Client(box.box.path, root="/").changes())
