"""Worker processes that read a full scan: whatever becomes of them, each unit comes back exactly once."""

import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest

from alfwatchd.alf.grammar import Kind
from alfwatchd.engine.inbox import Inbox
from alfwatchd.index import worker_pool
from alfwatchd.index.look_queue import Look
from alfwatchd.index.worker_pool import WorkerPool
from alfwatchd.scan.scanner import Scanner
from alfwatchd.scan.subtree import crawl, not_watched
from alfwatchd.tree.folder import Folder
from kit.control import wait
from kit.engine import EngineBox
from kit.trees import fast_folder, write, write_odd_tree

S1, S2 = "s/2020-01-01/001", "s/2020-01-01/002"
PATIENCE = 120.0


@pytest.fixture
def root():
    with fast_folder() as folder:
        write_odd_tree(folder / "root")
        yield folder / "root"


# Worker processes.


@contextmanager
def workers(root, n_units, n_workers=2, post=None):
    """Yield workers that read as many units, and their inbox."""
    inbox = Inbox()
    made = WorkerPool(str(root), (), n_workers, post or inbox.post)
    for number in range(n_units):
        write(root, f"u{number}/2020-01-01/001/a.b.c")
        made.submit(Look(Folder.at(f"u{number}/2020-01-01"), is_urgent=False, deep=True, is_unit=True))
    made.share(-1)
    try:
        yield made, inbox
    finally:
        made.close()


def take_all(made, inbox, n_units):
    units = []
    deadline = time.monotonic() + PATIENCE
    while len(units) < n_units:
        assert time.monotonic() < deadline, "the workers are silent"
        inbox.wait(0.1)
        for message in inbox.drain():
            made.receive(message)
        made.share(-1)
        units += made.take(is_last=True)
    return units


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_workers_read_what_a_crawl_here_reads(root, n_workers):
    with workers(root, 100, n_workers) as (made, inbox):
        units = take_all(made, inbox, 100)
        assert not made.are_running, "they end with the last unit"
    scanner = Scanner(str(root))
    assert {unit.look.folder.path for unit in units} == {f"u{number}/2020-01-01" for number in range(100)}
    for unit in units:
        assert unit.found == list(crawl(scanner, Folder.at(unit.look.folder.path), not_watched))


def test_few_units_are_given_back_and_no_process_is_started(root):
    with workers(root, worker_pool.ENOUGH_UNITS - 1) as (made, _):
        assert not made.are_running
        assert made.take(is_last=False) == []
        assert {unit.found for unit in made.take(is_last=True)} == {None}


def test_what_a_dead_worker_was_to_read_is_given_back(root):
    with workers(root, 100) as (made, inbox):
        os.killpg(made.process_group, signal.SIGKILL)
        units = take_all(made, inbox, 100)
        assert {unit.found is None for unit in units} >= {True}
        assert made.problem == "a worker process ended, or the thread that waits for answers"
        assert not made.are_running
        made.submit(units[0].look)
        made.share(-1)
        assert not made.are_running, "not tried again at once"
        assert [unit.found for unit in made.take(is_last=False)] == [None]


def submit(made, units):
    for unit in units:
        made.submit(unit.look)
    made.share(-1)


def test_a_dead_worker_does_not_end_workers_for_good(root, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(worker_pool, "time", SimpleNamespace(monotonic=lambda: clock.now))
    with workers(root, 100) as (made, inbox):
        rests = []
        for _ in range(4):
            assert made.are_running
            os.killpg(made.process_group, signal.SIGKILL)
            while made.are_running:
                inbox.wait(0.1)
                for message in inbox.drain():
                    made.receive(message)
            units = made.take(is_last=True)
            assert {unit.found for unit in units} >= {None}
            began = clock.now
            while not made.are_running:
                clock.now += 1.0
                submit(made, units[:50])
                if not made.are_running:
                    assert [unit.found for unit in made.take(is_last=False)] == [None] * 50
            rests.append(clock.now - began)
        assert rests == [5, 20, 80, 320]
        while made.are_running:
            inbox.wait(0.1)
            for message in inbox.drain():
                made.receive(message)
            assert not [unit for unit in made.take(is_last=True) if unit.found is None]
        submit(made, units[:50])
        os.killpg(made.process_group, signal.SIGKILL)
        while made.are_running:
            inbox.wait(0.1)
            for message in inbox.drain():
                made.receive(message)
        clock.now += 5
        submit(made, units[:50])
        assert made.are_running, "those that ended in order count: the rest is short again"


def test_a_unit_that_kills_each_worker_keeps_no_scan_from_its_end(root, monkeypatch):
    monkeypatch.setattr(worker_pool, "FIRST_REST_SECONDS", 0.01)
    with workers(root, 100) as (made, inbox):
        tasks, done = {}, 0
        deadline = time.monotonic() + PATIENCE
        while done < 100:
            assert time.monotonic() < deadline
            if made.process_group is not None:
                with suppress(ProcessLookupError):
                    os.killpg(made.process_group, signal.SIGKILL)
            inbox.wait(0.01)
            for message in inbox.drain():
                made.receive(message)
            made.share(-1)
            taken = made.take(is_last=True)
            tasks |= {unit.look.folder.path: unit for unit in taken}
            done += len(taken)
        assert len(tasks) == done == 100


def test_the_death_of_the_thread_that_hears_workers_is_noticed(root, monkeypatch):
    def die(*_):
        raise MemoryError("on purpose")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with workers(root, 100, post=die) as (made, inbox):
        wait(lambda: not any(thread.name == made.thread_name for thread in threading.enumerate()))
        made.share(-1)
        units = made.take(is_last=True)
        assert [unit.found for unit in units] == [None] * 100
        assert made.problem
        assert {type(message) for message in inbox.drain()} == set(), "nothing was watched, so no event is lost"


def test_workers_that_were_stopped_by_a_signal_go_on(root, monkeypatch):
    with workers(root, 100) as (made, inbox):
        os.killpg(made.process_group, signal.SIGSTOP)
        monkeypatch.setattr(worker_pool, "SILENT_SECONDS", 0.3)
        units = take_all(made, inbox, 100)
        assert not [unit for unit in units if unit.found is None]
        assert not made.problem


# Together with the engine.


@pytest.fixture
def box(root, monkeypatch):
    monkeypatch.setattr(worker_pool, "ENOUGH_UNITS", 1)
    box = EngineBox(root, with_workers=True, scan_workers=2)
    yield box
    box.close()


def until_read(box):
    """Step until worker processes have read something that nobody has heard of yet."""
    for _ in range(20):
        box.step()
        if box.read:
            return
    raise AssertionError("nothing was read")


def rewrite(root):
    (root / S1 / "alf/probe00/d.e.f").write_bytes(b"longer than it was")


def remove(root):
    (root / S1 / "alf/probe00/d.e.f").unlink()


def add(root):
    write(root, f"{S1}/alf/new.b.c", f"{S1}/raw/new.b.c", "s/2020-01-01/009/a.b.c")


def move_out(root):
    (root / S1 / "alf/probe00").rename(root / S2 / "probe00")


def replace(root):
    (root / S1 / "alf").rename(root / "away")
    write(root, f"{S1}/alf/x.y.z")


def come_and_go(root):
    (root / S1).rename(root / "away")
    (root / "away").rename(root / S1)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("change", [rewrite, remove, add, move_out, replace, come_and_go])
def test_a_change_after_reading_is_not_lost(box, is_first, change):
    if not is_first:
        box.sync()
        box.indexer.start_scan("test", box.now)
    until_read(box)
    change(box.root)
    box.hear()
    if not is_first:  # the change is looked at before what was read is taken in
        box.holds_read = True
        box.step()
        box.step(2.0)
        box.holds_read = False
    box.sync()
    box.assert_equal()


def test_what_was_read_is_not_used_if_the_watches_mean_nothing_any_more(box):
    until_read(box)
    box.kill_reader()
    box.sync()
    box.assert_equal()


def test_what_was_read_is_forgotten_with_a_root_that_goes(box):
    until_read(box)
    away = box.root.with_name("elsewhere")
    box.root.rename(away)
    box.step()
    assert box.status().state == "offline"
    assert box.paths() == []
    away.rename(box.root)
    box.now += 10
    box.run()
    box.sync()
    box.assert_equal()


def test_all_goes_on_after_the_death_of_the_workers(box):
    until_read(box)
    os.killpg(box.indexer.workers.process_group, signal.SIGKILL)
    assert box.sync().exactness == "exact"
    box.assert_equal()
    assert box.indexer.tree.root.kind is Kind.ROOT


def test_what_is_ignored_is_counted_once_however_often_it_is_read(box):
    write(box.root, "s/2020-01-01/junk.txt", f"{S1}/only junk/x", f"{S2}/alf/notes")
    box.sync()
    for _ in range(2):
        box.indexer.start_scan("test", box.now)
        box.run()
    box.truth()
    assert box.indexer.tree.n_ignored == box.fresh.tree.n_ignored > 3
