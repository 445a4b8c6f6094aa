"""The worker process of a full scan: what it answers, and what it costs."""

import os
import time
from pathlib import Path

import pytest

from alfwatchd.engine.inbox import Inbox
from alfwatchd.index.look_queue import Look
from alfwatchd.index.scan_worker import flatten, restore
from alfwatchd.index.worker_pool import ENOUGH_UNITS, WorkerPool
from alfwatchd.scan.subtree import Found
from alfwatchd.tree.folder import Folder, Listing
from alfwatchd.tree.packed import NO_FILES, PackedFiles, pack_signature
from alfwatchd.tree.rows import Problem
from alfwatchd.watch import inotify
from kit.trees import write

PATIENCE = 120.0
HEAVY = ("libarrow", "numpy", "pandas", "sqlite")
"""Parts of the names of libraries that make a worker take five times the memory, and four times as long to start."""


@pytest.mark.parametrize(
    "listing",
    [
        Listing(1, 2),
        Listing(1, 2, {"alf": 3}, PackedFiles.pack({"a.b.c": pack_signature(1, 2, 3, False)}), 4),
        Listing(1, 2, {"001": 3}, links=frozenset({"001"}), has_links=True),
        Listing(1, 2, {}, NO_FILES, unknown={"a.b.c"}, shared_inodes={7}, problems=(Problem("x", "y", "z"),)),
        None,
    ],
)
def test_what_goes_from_process_to_process_comes_back_the_same(listing):
    """Whatever got lost on the way would be a row that is missing or wrong."""
    found = Found(3, "alf", 5, listing)
    assert restore(flatten(found)) == found
    assert type(flatten(found)) is tuple  # pickle would have to name the class, and takes three times as long


@pytest.fixture
def inotify_fd():
    fd = inotify.make()
    yield fd
    os.close(fd)


def processes_of(group):
    """Return the ids of all processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[2]) == group:
            found.append(int(path.parent.name))
    return found


def test_workers_that_watch_load_no_heavy_library(tmp_path, inotify_fd):
    """With `scan_workers = 8`, a scan would take 200 MB more if workers loaded pyarrow, and begin a second later."""
    inbox = Inbox()
    pool = WorkerPool(str(tmp_path), (), 3, inbox.post)
    for number in range(ENOUGH_UNITS):
        write(tmp_path, f"u{number}/2020-01-01/001/a.b.c")
        pool.submit(Look(Folder.at(f"u{number}/2020-01-01"), is_urgent=False, deep=True, is_unit=True))
    try:
        pool.share(inotify_fd)
        deadline = time.monotonic() + PATIENCE
        while not (answers := inbox.drain()):
            assert time.monotonic() < deadline, "no worker answers"
            inbox.wait(0.1)
        for message in answers:
            pool.receive(message)
        while len(workers := processes_of(pool.process_group)) < 3:  # the first may answer before the last is forked
            assert time.monotonic() < deadline, workers
            time.sleep(0.01)
        assert len(workers) == 3
        for worker in workers:
            maps = Path(f"/proc/{worker}/maps").read_text()
            assert "python" in maps
            assert [name for name in HEAVY if name in maps] == []
        found = [folder for unit in pool.take(is_last=True) for folder in unit.found]
        assert found
        assert all(folder.wd > 0 for folder in found), "they do watch"
    finally:
        pool.close()
