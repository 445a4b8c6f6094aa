"""Programs that open the tables in a tight loop while these are written: no error, no row that is wrong, no orphan."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager

import pytest

from alfwatchd.store.writer import TableWriter
from alfwatchd.tables import row_groups
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.program import make_ibl_tree, program
from kit.rows import folder_rows
from kit.writers import recordings

pytestmark = pytest.mark.heavy

PATIENCE = 60.0
N_DATASETS = 6
RULES = TableRules()

# Reads the tables again and again until it is told to end; the way to read is its first argument.
READER = r"""
import json, signal, sys, traceback
from pathlib import Path
import pandas as pd
import pyarrow.parquet as pq
from one.alf.cache import load_tables
from one.api import One

kind, folder, n_datasets = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))

def both(read, *names):
    found = {name: read(folder / f"{name}.pqt") for name in names}
    return found["sessions"].reset_index(), found["datasets"].reset_index()

def by_one():
    cache = One(cache_dir=folder, mode="local")._cache
    return cache.sessions.reset_index(), cache.datasets.reset_index()

def by_load_tables():
    cache = load_tables(folder)
    return cache.sessions.reset_index(), cache.datasets.reset_index()

def by_pyarrow(path):
    return pq.read_table(path).to_pandas()

ways = {
    "load_tables": by_load_tables,
    "One": by_one,
    "pandas": lambda: both(pd.read_parquet, "datasets", "sessions"),
    "pandas, sessions first": lambda: both(pd.read_parquet, "sessions", "datasets"),
    "pyarrow": lambda: both(by_pyarrow, "datasets", "sessions"),
}

def check(sessions, datasets):
    orphans = set(datasets["eid"]) - set(sessions["id"])
    assert not orphans, f"{len(orphans)} sessions are missing"
    assert sessions["id"].is_unique and datasets["id"].is_unique, "rows are there twice"
    if n_datasets:  # all of a session are of one size, which tells its version
        per_session = datasets.groupby("eid")["file_size"].agg(["count", "nunique"])
        assert (per_session["count"] == n_datasets).all(), "rows are missing"
        assert (per_session["nunique"] == 1).all(), "rows are of several versions"

n_reads, wrong = 0, []
print("ready", flush=True)
while not ended:
    try:
        check(*ways[kind]())
    except Exception:
        wrong.append(traceback.format_exc())
    n_reads += 1
print(json.dumps([n_reads, wrong]))
"""


class Reader:
    """One such program."""

    def __init__(self, kind, folder, n_datasets=N_DATASETS):
        command = [sys.executable, "-W", "ignore", "-c", READER, kind, folder, str(n_datasets)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def wait_until_ready(self):
        assert self.process.stdout.readline() == "ready\n"

    def rest(self, seconds):
        """Be stopped wherever it is."""
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        """Return how often it has read, and what was wrong."""
        self.process.terminate()
        n_reads, wrong = json.loads(self.process.communicate(timeout=PATIENCE)[0])
        return n_reads, Counter(wrong)


@contextmanager
def reading(folder, *kinds, tally, n_datasets=N_DATASETS):
    """Let readers read until the block ends; then see what they found."""
    with ExitStack() as stack:
        readers = []
        for kind in kinds:
            readers.append(Reader(kind, folder, n_datasets))
            stack.callback(readers[-1].process.wait)
            stack.callback(readers[-1].process.kill)
        for reader in readers:
            reader.wait_until_ready()
        yield readers
        for reader in readers:
            n_reads, wrong = reader.end()
            tally["reads"] += n_reads
            assert not wrong, f"of {n_reads} reads:\n" + "\n".join(f"{n} times {text}" for text, n in wrong.items())
            assert n_reads > 5


class Table:
    """Rows that change as chance has it, and the writer of their tables."""

    def __init__(self, folder, seed, n_sessions, *, restarts=True):
        self.chance = random.Random(seed)
        self.folder = folder
        self.layout = folder / "layout"
        self.sessions = {}
        self.n_made = self.version = 0
        self.n_usual = n_sessions
        self.restarts = restarts
        self.writer = self.new_writer()
        self.add(n_sessions)
        self.write()

    def new_writer(self):
        return TableWriter(self.folder, "/data", self.layout)

    def session(self, path):
        self.version += 1
        names = [f"object{number}.attribute.npy" for number in range(N_DATASETS)]
        files = {name: pack_signature(self.version, 1, 2, False) for name in names}
        return Session(path, (folder_rows("alf", files),))

    def add(self, number):
        for _ in range(number):
            self.n_made += 1
            path = f"subject{self.n_made}/2020-01-01/001"
            self.sessions[path] = self.session(path)

    def remove(self, number):
        for path in self.chance.sample(sorted(self.sessions), min(number, len(self.sessions))):
            del self.sessions[path]

    def change(self, number):
        for path in self.chance.sample(sorted(self.sessions), min(number, len(self.sessions))):
            self.sessions[path] = self.session(path)

    def restart(self, *, known):
        """Go on as a new process does; after a kill, it may not know what it finds."""
        if not known:
            self.layout.unlink(missing_ok=True)
        self.writer = self.new_writer()

    def step(self):
        match self.chance.randrange(20):
            case 0 if self.restarts:
                self.restart(known=self.chance.random() < 0.5)
            case 1:
                self.change(len(self.sessions))
            case 2 if len(self.sessions) < 4 * self.n_usual:
                self.add(len(self.sessions))
            case 3:
                self.remove(len(self.sessions) // 2)
            case 4 | 5 | 6:
                self.change(1)
            case 7 | 8 | 9 | 10:
                self.add(self.chance.randrange(1, 4))
            case 11 | 12 | 13 | 14:
                self.remove(self.chance.randrange(1, 4))
            case _:
                self.remove(self.chance.randrange(1, 4))
                self.add(self.chance.randrange(1, 4))
        self.write()

    def write(self):
        self.writer.write(Snapshot(self.version, self.sessions.copy()), RULES)


@contextmanager
def groups_of(n_rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_groups, "ROWS_PER_GROUP", n_rows)
        yield


MANY, ONE_GROUP = 64, 1 << 14
# how it is read, rows in a row group, only at full size
WAYS = [
    ("load_tables", MANY, False),
    ("load_tables", ONE_GROUP, True),
    ("One", MANY, True),
    ("pandas", MANY, True),
    ("pandas, sessions first", MANY, True),
    ("pyarrow", MANY, True),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "n_rows"),
    [pytest.param(kind, n_rows, marks=pytest.mark.long if is_long else ()) for kind, n_rows, is_long in WAYS],
)
def test_a_reader_in_a_loop_finds_nothing_wrong(tmp_path, kind, n_rows, scale, tally):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it if the test fails
    with groups_of(n_rows):
        table = Table(tmp_path, seed, 60)
        with reading(tmp_path, kind, tally=tally):
            for _ in range(scale(12, 1000)):
                table.step()
                tally["flushes"] += 1


@pytest.mark.long
@pytest.mark.timeout(900)
def test_several_readers_that_are_stopped_now_and_then_find_nothing_wrong(tmp_path, tally):
    chance = random.Random()
    with groups_of(MANY):
        table = Table(tmp_path, chance.randrange(1 << 32), 60, restarts=False)  # they would take no time here
        with reading(tmp_path, "load_tables", "One", "pyarrow", tally=tally) as readers:
            for number in range(120):
                table.step()
                tally["flushes"] += 1
                if number % 4 == 0:
                    resting = threading.Thread(target=chance.choice(readers).rest, args=(chance.uniform(0, 0.3),))
                    resting.start()
                    table.step()
                    resting.join()
                    tally["faults"] += 1


def count_flushes(made):
    return made.log.count("flush done")


def accept_if_held(made):
    """Do what a person does; tell whether that was needed.

    What goes while no daemon runs, or what others saved then, looks like a disk that is gone.
    """
    is_held = made.state == "held"
    if is_held:
        made.client.rescan(accept_root=True)
    return is_held


@pytest.fixture
def made(tmp_path):
    """Yield a program that flushes as often as it can, with the tables of a tree but without a daemon."""
    (tmp_path / "tables").mkdir()
    with program(make_ibl_tree(tmp_path / "root"), tmp_path / "tables") as made:
        config = made.home / "config.toml"
        config.write_text("flush_interval_seconds = 0.02\nsettle_seconds = 0.01\n")
        made.flags = [f"--config={config}"]
        made.run_once()
        yield made


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_reader_finds_nothing_wrong_while_the_daemon_is_killed_and_started(made, scale, tally):
    chance = random.Random()
    with (
        reading(made.out_dir, "load_tables", tally=tally, n_datasets=0),
        recordings(chance.randrange(1 << 32), made.root),
    ):
        while count_flushes(made) < scale(3, 300):
            made.start(wait=False)
            at = count_flushes(made) + chance.randrange(5, scale(8, 60))
            made.wait(lambda at=at: count_flushes(made) >= at)
            if chance.random() < 0.3:
                made.stop()
            else:
                made.kill()
                tally["kills"] += 1
            tally["restarts"] += 1
    tally["flushes"] += count_flushes(made)
    made.start()
    tally["held"] += accept_if_held(made)
    made.assert_equals_fresh_index()
    made.stop()


# Saves what it read before, as fast as it can, but for rests of up to 50 ms.
STALE_CLIENT = r"""
import random, sys, time
from one.api import One

one = One(cache_dir=sys.argv[1], mode="local")
print("ready", flush=True)
while True:
    one.save_cache(clobber=True)
    print("saved", flush=True)
    time.sleep(random.uniform(0, 0.05))
"""


@contextmanager
def stale_client(folder):
    command = [sys.executable, "-W", "ignore", "-c", STALE_CLIENT, folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@pytest.mark.timeout(900)
def test_what_a_client_saves_that_knows_old_rows_is_undone(made, scale, tally):
    """Between flushes, while they run, and while there is no daemon."""
    chance = random.Random()
    for number in range(1, 1 + scale(1, 15)):
        with stale_client(made.out_dir) as client:
            for _ in range(number % 2):
                assert client.stdout.readline() == "saved\n"
            made.start(wait=False)
            with recordings(chance.randrange(1 << 32), made.root):
                for _ in range(scale(5, 20)):
                    assert client.stdout.readline() == "saved\n"
                    tally["operations"] += 1
                time.sleep(chance.uniform(0, 0.3))
                if number % 3 == 2:
                    made.kill()
                    tally["kills"] += 1
        if number % 3 == 2:
            made.start()
        made.wait(lambda: made.state not in ("starting", "offline"))
        tally["held"] += accept_if_held(made)
        made.assert_equals_fresh_index()
        tally["comparisons"] += 1
        tally["restarts"] += 1
        made.stop()
    tally["flushes"] += count_flushes(made)
