"""What clients are answered while the daemon reads the tables of earlier runs.

If one of these fails, `status` or the end of the daemon waits until everything is read, or a request is lost.
"""

import gc
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from alfwatchd.api import FlushRequest, StatusRequest, SyncRequest
from alfwatchd.engine import messages
from alfwatchd.engine.inbox import Inbox
from alfwatchd.engine.waiting import wait_for
from alfwatchd.errors import OutDirError
from alfwatchd.settings import Adopt, Settings

SETTINGS = Settings(root=Path("/r"), out_dir=Path("/o"), state_dir=Path("/s"), socket=Path("/s/s"),
                    adopt=Adopt(source="https://example.org/x?SECRET"))  # fmt: skip


def wait(make, inbox):
    pinged = []
    result = wait_for(make, inbox, SETTINGS, pinged.append)
    assert pinged == sorted(pinged)
    assert gc.isenabled()
    return result


def test_status_is_answered_and_other_requests_are_kept_in_order():
    inbox, asked = Inbox(), [Future() for _ in range(3)]

    def make():
        inbox.post(SyncRequest(asked[0]))
        inbox.post(StatusRequest(asked[1]))
        inbox.post(messages.Reload())
        status = asked[1].result(20)
        inbox.post(FlushRequest(asked[2]))
        return status

    status = wait(make, inbox)
    assert (status.state, status.root, status.adopt.source) == ("starting", "/r", "https://example.org/x")
    assert [type(each) for each in inbox.drain()] == [SyncRequest, messages.Reload, FlushRequest]
    assert not asked[0].done()


def test_an_error_of_the_thread_is_raised():
    def make():
        raise OutDirError("no")

    with pytest.raises(OutDirError, match="no"):
        wait(make, Inbox())


def test_a_daemon_that_is_told_to_stop_does_not_wait():
    inbox, release = Inbox(), threading.Event()
    inbox.post(messages.Stop())
    assert wait(lambda: release.wait(20), inbox) is None
    assert [type(each) for each in inbox.drain()] == [messages.Stop]
    release.set()
