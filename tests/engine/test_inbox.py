"""The queue of messages to the engine.

If one of these fails, a message or a request is lost, the daemon hangs, or events fill its memory.
"""

import os
import signal
import threading
import time
from concurrent.futures import Future

import pytest

from alfwatchd.api import StatusRequest
from alfwatchd.engine import inbox as module
from alfwatchd.engine.inbox import Inbox
from alfwatchd.engine.messages import Reload, Stop
from alfwatchd.errors import AlfwatchdError
from alfwatchd.store.flusher import Flushed
from alfwatchd.tree.session_changes import ChangedSessions
from alfwatchd.watch.events import EventsLost, EventsRead, PathsChanged

WAIT_SECONDS = 120.0


def test_messages_come_in_order_and_once():
    inbox = Inbox()
    messages = [Stop(), Reload(), Flushed(1, 0.0, ChangedSessions())]
    for message in messages:
        inbox.post(message)
    inbox.wait(WAIT_SECONDS)  # takes one ahead
    assert inbox.has_messages
    assert inbox.drain() == messages
    assert not inbox.has_messages
    assert inbox.drain() == []


def test_wait_ends_with_a_message_from_another_thread():
    inbox = Inbox()
    thread = threading.Thread(target=lambda: inbox.post(Stop()))
    started = time.monotonic()
    thread.start()
    inbox.wait(WAIT_SECONDS)
    thread.join()
    assert time.monotonic() - started < WAIT_SECONDS
    assert inbox.drain() == [Stop()]


def test_wait_ends_with_a_message_from_a_signal_handler():
    inbox = Inbox()
    before = signal.signal(signal.SIGUSR1, lambda *_: inbox.post(Stop()))
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        started = time.monotonic()
        inbox.wait(WAIT_SECONDS)
        assert time.monotonic() - started < WAIT_SECONDS
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert inbox.drain() == [Stop()]


@pytest.mark.parametrize("timeout", [-1.0, 0.0, 0.01])
def test_wait_ends_in_time(timeout):
    inbox = Inbox()
    inbox.wait(timeout)
    assert inbox.drain() == []


def test_wait_always_ends_in_time():
    # A daemon hung in `SimpleQueue.get`, once in many thousand short waits.
    inbox = Inbox()

    def wait_often():
        for _ in range(50_000):
            inbox.post(Stop())
            inbox.drain()
            inbox.wait(1e-6)

    thread = threading.Thread(target=wait_often, daemon=True)
    thread.start()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def test_too_many_events_become_lost_events_once(monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 3)
    inbox = Inbox()
    for _ in range(2):
        for letter in (b"a", b"b", b"c", b"d", b"too", b"many"):
            inbox.post(EventsRead(letter, told))
        inbox.post(Stop())  # all else is never lost
        lost = EventsLost("the daemon could not keep up with events")
        assert inbox.drain() == [PathsChanged({}, ("abcd",)), lost, Stop()]


def told(buffer):
    return [PathsChanged({}, (buffer.decode(),))]


def test_events_are_parsed_when_they_are_drained_in_their_order():
    def by_another_reader(buffer):
        return [EventsLost("overflow"), *told(buffer)]

    inbox = Inbox()
    for message in [
        EventsRead(b"a", told), EventsRead(b"b", told), EventsRead(b"c", by_another_reader),
        EventsRead(b"d", by_another_reader), Stop(), EventsRead(b"e", by_another_reader),
    ]:  # fmt: skip
        inbox.post(message)
    inbox.wait(WAIT_SECONDS)  # takes one ahead
    lost = EventsLost("overflow")
    assert inbox.drain() == [*told(b"ab"), lost, *told(b"cd"), Stop(), lost, *told(b"e")]


def refused(reply):
    return isinstance(reply.exception(WAIT_SECONDS), AlfwatchdError) and "stopping" in str(reply.exception())


def test_a_closed_inbox_refuses_requests():
    inbox = Inbox()
    taken, waiting, ahead, late = (Future() for _ in range(4))
    inbox.post(StatusRequest(taken))
    inbox.drain()
    inbox.post(StatusRequest(ahead))
    inbox.wait(WAIT_SECONDS)
    inbox.post(StatusRequest(waiting))
    inbox.post(Stop())
    inbox.close()
    inbox.post(StatusRequest(late))
    assert all(map(refused, (waiting, ahead, late)))
    assert not taken.done()  # the engine took it, and answers it
    assert inbox.drain() == []


def test_every_request_is_answered_while_the_inbox_closes():
    for _ in range(200):
        inbox, replies = Inbox(), [Future() for _ in range(20)]
        ready = threading.Barrier(2, timeout=WAIT_SECONDS)

        def post(inbox=inbox, replies=replies, ready=ready):
            ready.wait()
            for reply in replies:
                inbox.post(StatusRequest(reply))

        thread = threading.Thread(target=post)
        thread.start()
        ready.wait()
        inbox.close()
        thread.join()
        assert all(map(refused, replies))
