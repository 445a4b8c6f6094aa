"""What a crawl reads, here and in worker processes, against a look at each folder by itself."""

import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest

from alfwatchd.alf.exclude import compile_exclude
from alfwatchd.alf.grammar import Kind
from alfwatchd.engine.inbox import Inbox
from alfwatchd.errors import WatchError
from alfwatchd.index import worker_pool
from alfwatchd.index.look_queue import Look
from alfwatchd.index.scan_worker import flatten, restore
from alfwatchd.index.worker_pool import WorkerPool
from alfwatchd.scan.scanner import Scanner, open_folder
from alfwatchd.scan.subtree import Found, crawl, not_watched
from alfwatchd.tree.folder import Folder, Listing
from alfwatchd.tree.packed import NO_FILES, PackedFiles, pack_signature
from alfwatchd.tree.rows import Problem
from kit.children import as_nobody, needs_root
from kit.control import wait
from kit.engine import EngineBox
from kit.trees import fast_folder, write

S1, S2 = "s/2020-01-01/001", "s/2020-01-01/002"
ODD = (
    f"{S1}/alf/a.b.c",
    f"{S1}/alf/probe00/d.e.f",
    f"{S1}/notes.txt",
    f"{S1}/bad (1)/g.h.i",
    f"{S2}/#2021-01-01#/a.b.c",
)
PATIENCE = 120.0


def looked(root, exclude=()):
    """Return path -> listing of all folders, each opened by its whole path."""
    scanner, found = Scanner(str(root), compile_exclude(exclude)), {}

    def look(folder):
        fd = open_folder(str(root), folder)
        try:
            listing = found[folder.path] = scanner.list_folder(fd, folder)
        finally:
            os.close(fd)
        for name in listing.folders.keys() - listing.links:
            look(folder.make_child(name, 0))

    look(Folder.at(""))
    return found


def paths(found):
    """Return path -> listing of what was crawled."""
    by_path, order = {}, []
    for parent, name, _, listing in found:
        order.append(f"{order[parent]}/{name}".lstrip("/") if parent >= 0 else name)
        by_path[order[-1]] = listing
    return by_path


@pytest.fixture
def root():
    with fast_folder() as folder:
        root = folder / "root"
        write(root, *ODD)
        os.link(root / S1 / "alf/a.b.c", root / S2 / "a.b.c")
        (root / S2 / "d.e.f").symlink_to("a.b.c")
        (root / "s/2020-01-01/003").symlink_to("001")
        yield root


@pytest.mark.parametrize("exclude", [(), ("probe00/",), ("*.c",)])
def test_a_crawl_reads_what_looks_at_each_folder_see(root, exclude):
    scanner = Scanner(str(root), compile_exclude(exclude))
    assert paths(crawl(scanner, Folder.at(""))) == looked(root, exclude)


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
    found = Found(3, "alf", 5, listing)
    assert restore(flatten(found)) == found
    assert type(flatten(found)) is tuple  # what a worker calls Found, nobody else knows


def test_each_folder_is_watched_before_it_is_listed_and_no_descriptor_is_left(root):
    before = set(os.listdir("/proc/self/fd"))
    seen = []

    def arm(fd):
        seen.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), root))
        (root / seen[-1] / "new.in.time").touch()
        return len(seen)

    found = list(crawl(Scanner(str(root)), Folder.at("s/2020-01-01"), arm))
    assert [each.wd for each in found] == list(range(1, len(seen) + 1))
    sessions = [each for each in found[1:] if each.listing.packed.names]
    assert len(sessions) == len(found) - 1
    assert all("new.in.time" in each.listing.packed.names for each in sessions)
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_cannot_be_watched_is_left_out_with_all_below_it(root):
    def arm(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/alf"):
            raise WatchError("no")
        return 1

    found = paths(crawl(Scanner(str(root)), Folder.at(S1), arm))
    assert set(found) == {"001"}
    assert set(found["001"].folders) == {"alf"}


@needs_root
def test_what_cannot_be_read_is_left_out(root):
    (root / S1 / "alf").chmod(0o700)
    found = as_nobody(lambda: list(paths(crawl(Scanner(str(root)), Folder.at("s/2020-01-01")))))
    assert f"2020-01-01/{S1[-3:]}" in found
    assert not [path for path in found if "alf" in path]


# Worker processes.


@contextmanager
def workers(root, n_units, n_workers=2):
    """Yield crawlers at work on as many units, and their inbox."""
    inbox = Inbox()
    made = WorkerPool(str(root), (), n_workers, inbox.post)
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
    with workers(root, worker_pool._ENOUGH_UNITS - 1) as (made, _):
        assert not made.are_running
        assert made.take(is_last=False) == []
        assert {unit.found for unit in made.take(is_last=True)} == {None}


def test_what_a_dead_worker_was_to_read_is_given_back(root):
    with workers(root, 100) as (made, inbox):
        os.killpg(made._process.pid, signal.SIGKILL)
        units = take_all(made, inbox, 100)
        assert {unit.found is None for unit in units} >= {True}
        assert made.problem == "a worker process ended, or the thread that hears them"
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
            os.killpg(made._process.pid, signal.SIGKILL)
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
        os.killpg(made._process.pid, signal.SIGKILL)
        while made.are_running:
            inbox.wait(0.1)
            for message in inbox.drain():
                made.receive(message)
        clock.now += 5
        submit(made, units[:50])
        assert made.are_running, "those that ended in order count: the rest is short again"


def test_a_unit_that_kills_each_worker_keeps_no_scan_from_its_end(root, monkeypatch):
    monkeypatch.setattr(worker_pool, "_FIRST_REST_SECONDS", 0.01)
    with workers(root, 100) as (made, inbox):
        tasks, done = {}, 0
        deadline = time.monotonic() + PATIENCE
        while done < 100:
            assert time.monotonic() < deadline
            if made._process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(made._process.pid, signal.SIGKILL)
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
    monkeypatch.setattr(WorkerPool, "_receive", die)
    with workers(root, 100) as (made, inbox):
        wait(lambda: not made._hearer.is_alive())
        made.share(-1)
        units = made.take(is_last=True)
        assert [unit.found for unit in units] == [None] * 100
        assert made.problem
        assert {type(message) for message in inbox.drain()} == set(), "nothing was watched, so no event is lost"


def test_workers_that_somebody_has_stopped_go_on(root, monkeypatch):
    with workers(root, 100) as (made, inbox):
        os.killpg(made._process.pid, signal.SIGSTOP)
        monkeypatch.setattr(worker_pool, "_SILENT_SECONDS", 0.3)
        units = take_all(made, inbox, 100)
        assert not [unit for unit in units if unit.found is None]
        assert not made.problem


# Together with the engine.


@pytest.fixture
def box(root, monkeypatch):
    monkeypatch.setattr(worker_pool, "_ENOUGH_UNITS", 1)
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
    os.killpg(box.indexer.workers._process.pid, signal.SIGKILL)
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
