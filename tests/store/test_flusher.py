"""The thread that writes the tables: each flush is answered once, and an error does not end the thread."""

import queue
import threading

import pytest

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.store.flusher import Flushed, Flusher, FlushFailed
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.trees import fast_folder

pytestmark = pytest.mark.usefixtures("no_readers")

PATIENCE = 120.0
SESSION = Session("s/2020-01-01/001", ())


@pytest.fixture
def out_dir():
    with fast_folder() as folder:
        yield folder


def test_a_flush_that_failed_is_told_and_the_next_one_is_done(out_dir):
    """A full disk must not end flushing for good."""
    answers = queue.Queue()
    flusher = Flusher(TableWriter(out_dir, "/data"), answers.put)
    try:
        (out_dir / f".{SESSIONS}.tmp/in the way").mkdir(parents=True)
        flusher.submit(Snapshot(3, {SESSION.path: SESSION}), TableRules())
        failed = answers.get(timeout=PATIENCE)
        assert isinstance(failed, FlushFailed)
        assert SESSIONS in failed.error
        assert flusher.is_alive
        (out_dir / f".{SESSIONS}.tmp/in the way").rmdir()
        flusher.submit(Snapshot(4, {SESSION.path: SESSION}), TableRules())
        done = answers.get(timeout=PATIENCE)
        assert isinstance(done, Flushed)
        assert (done.generation, done.seconds >= 0) == (1, True)
    finally:
        flusher.close()
    assert (not flusher.is_alive, answers.empty()) == (True, True)
    assert {path.name for path in out_dir.iterdir()} >= {SESSIONS, DATASETS}


def test_closing_finishes_what_was_submitted(out_dir):
    """The last changes before a restart are written."""
    posted = []
    flusher = Flusher(
        TableWriter(out_dir, "/data"), lambda message: posted.append((message, threading.current_thread()))
    )
    flusher.submit(Snapshot(1, {SESSION.path: SESSION}), TableRules())
    flusher.close()
    ((message, thread),) = posted
    assert (message.generation, thread.name) == (1, "flusher")
