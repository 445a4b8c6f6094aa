"""Where no thread can be started, a user must learn which limit to raise."""

import threading

import pytest

from alfwatchd import threads
from alfwatchd.errors import NoThreads


def test_a_thread_runs_and_keeps_no_process_alive():
    ran = threading.Event()
    thread = threads.start(ran.set, "mine")
    thread.join(60)
    assert (ran.is_set(), thread.name, thread.daemon) == (True, "mine", True)


class Refused(threading.Thread):
    """A thread that the kernel refuses."""

    message = "can't start new thread"

    def start(self):
        raise RuntimeError(self.message)


def test_a_limit_that_is_reached_is_told_with_the_way_out():
    with pytest.raises(NoThreads, match=r"raise TasksMax= or LimitNPROC= .* missing is 'flusher'"):
        threads.begin(Refused(name="flusher"))


def test_a_fault_of_the_program_is_not_taken_for_a_limit(monkeypatch):
    monkeypatch.setattr(Refused, "message", "threads can only be started once")
    with pytest.raises(RuntimeError, match="only be started once"):
        threads.begin(Refused())
