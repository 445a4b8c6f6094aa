"""What is told before it is on disk: each change once, and nothing for ever.

If one of these fails, a reader is told the same in a loop, or the daemon keeps changes that nobody wants.
"""

import pytest

from alfwatchd.journal import pending as pending_module
from alfwatchd.journal.pending import Pending
from kit.journal import change

SEEN_AT = "2026-01-02T03:04:05+00:00"


@pytest.fixture
def pending():
    return Pending(lambda: 1.0)


def numbers(pending, number=0, limit=100, **options):
    return [(each.change.path[-3:], each.number) for each in pending.newer(number, limit, **options)]


def test_each_change_gets_a_number_and_a_session_is_there_once(pending):
    pending.tell([change(1), change(2)], SEEN_AT)
    pending.tell([change(1)], SEEN_AT)
    assert numbers(pending) == [("002", 1002), ("001", 1003)]
    assert numbers(pending, 1002) == [("001", 1003)]
    assert numbers(pending, pending.number) == []
    assert numbers(pending, limit=1) == [("002", 1002)]
    assert numbers(pending, matches=lambda each: each.path.endswith("1")) == [("001", 1003)]


def test_what_is_on_disk_is_forgotten(pending):
    pending.tell([change(1), change(2)], SEEN_AT)
    pending.forget([change(1).path, change(3).path])
    assert numbers(pending) == [("002", 1002)]
    pending.clear()
    assert numbers(pending) == []


def test_too_many_are_not_kept_and_after_the_flush_it_goes_on(pending, monkeypatch):
    monkeypatch.setattr(pending_module, "MOST_CHANGES", 2)
    pending.tell([change(1), change(2), change(3)], SEEN_AT)
    pending.tell([change(4)], SEEN_AT)
    assert numbers(pending) == []
    pending.forget([])
    pending.tell([change(5)], SEEN_AT)
    assert numbers(pending) == [("005", 1005)]


def test_it_is_asked_until_the_latest_time(pending):
    assert not pending.is_asked(0.0)
    pending.ask(10.0)
    pending.ask(5.0)
    assert (pending.is_asked(9.0), pending.is_asked(10.0)) == (True, False)


def test_listeners_hear_of_each_change(pending):
    heard = []
    pending.listen(lambda: heard.append(pending.number))
    pending.tell([change(1)], SEEN_AT)
    assert heard == [1001]
