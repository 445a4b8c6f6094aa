"""More than the kernel's queue, the daemon or the disk can take: it falls behind, says so, and is right in the end."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from alfwatchd.engine import inbox
from kit.engine import EngineBox
from kit.fuzz_disk import Disk
from kit.fuzz_writer import Writer
from kit.program import Program, program
from kit.truth import assert_right

pytestmark = pytest.mark.heavy

QUEUE = 16_384
"""Events that the kernel keeps for one reader, by default."""
SLOW_DISK = Path(__file__).parents[2] / "benchmarks/slow_disk.c"


@pytest.fixture
def daemon(tmp_path):
    """Yield a daemon on a tree of a few sessions."""
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    disk = Disk(tmp_path / "root", tmp_path / "outside")
    for number in range(5):
        disk.do("write_session", number, number)
    with program(tmp_path / "root", out_dir) as made:
        made.start()
        yield made


@pytest.fixture
def writer(daemon, tmp_path):
    with Writer(daemon.root, tmp_path / "outside", 1) as made:
        yield made


def n_scans(daemon: Program) -> int:
    """Return how many scans of everything ended."""
    return daemon.log.count("rescan done")


def make_sessions(root: Path, number: int, n_files: int = 1) -> list[Path]:
    sessions = [root / f"s{index // 1000}/2020-01-01/{index % 1000:03d}" for index in range(number)]
    for session in sessions:
        session.mkdir(parents=True)
        for index in range(n_files):
            (session / f"a.b{index}.npy").write_bytes(b".")
    return sessions


def events(short: int, *long: int) -> pytest.MarkDecorator:
    numbers = [short, *(pytest.param(number, marks=pytest.mark.long) for number in long)]
    return pytest.mark.parametrize("n_events", numbers)


@events(QUEUE + 616, 200_000, 1_000_000)
def test_the_daemon_sleeps_while_events_come(daemon, writer, n_events, tally):
    """Also what changed while the queue was full is found, and by one scan or two."""
    daemon.process.send_signal(signal.SIGSTOP)
    writer.storm(n_events)
    writer.rest()
    writer.go()
    time.sleep(0.3)
    tally["operations"] += n_events + writer.rest()
    before = n_scans(daemon)
    daemon.process.send_signal(signal.SIGCONT)
    assert_right(daemon)
    tally.update(overflows=1, comparisons=1)
    assert daemon.client.status().events_lost >= 1
    assert n_scans(daemon) - before <= 2


@events(QUEUE, 200_000, 1_000_000)
def test_the_engine_is_busy_while_events_come(tmp_path, n_events, tally):
    """The reader goes on reading, but what it keeps for the engine is bounded."""
    disk = Disk(tmp_path / "root", tmp_path / "outside")
    box = EngineBox(tmp_path / "root")
    try:
        box.sync()
        with Writer(tmp_path / "root", tmp_path / "outside", 1) as writer:
            writer.storm(n_events)
            writer.rest()
        disk.do("write_session", 1, 1)
        box.hear()
        assert box.inbox.n_waiting_bytes < inbox.MAX_WAITING_BYTES + (1 << 20)
        assert box.sync().exactness in ("exact", "scanned")
        box.assert_equal()
        tally.update(operations=n_events, comparisons=1)
    finally:
        box.close()


def test_many_files_come_move_and_go(daemon, scale, tally):
    n_sessions, n_files = scale((40, 25), (1000, 100))
    sessions = make_sessions(daemon.root, n_sessions, n_files)
    assert_right(daemon)
    for session in sessions:
        for file in list(session.iterdir()):
            file.rename(file.with_suffix(".tsv"))
    assert_right(daemon)
    for session in sessions:
        for file in session.iterdir():
            file.chmod(0o600)
        session.rename(session.with_name(f"{1000 - int(session.name):04d}"))
    assert_right(daemon)
    for subject in {session.parents[1] for session in sessions}:
        shutil.rmtree(subject)
    assert_right(daemon)
    assert daemon.client.status().n_sessions < n_sessions
    tally.update(operations=4 * n_sessions * n_files, comparisons=4)


def test_more_folders_than_the_queue_has_room(daemon, scale, tally):
    """A library that removes and adds all watches after an overflow would cause the next overflow, for ever."""
    n_sessions = scale(500, QUEUE + 616)
    sessions = make_sessions(daemon.root, n_sessions)
    assert_right(daemon)
    assert daemon.client.status().watches > n_sessions
    daemon.process.send_signal(signal.SIGSTOP)
    n_rounds = 1 + 2 * QUEUE // n_sessions
    for index in range(n_rounds):
        for session in sessions:
            (session / "a.b0.npy").chmod(0o600 + index % 2)
    shutil.rmtree(sessions.pop())
    before = n_scans(daemon)
    daemon.process.send_signal(signal.SIGCONT)
    assert_right(daemon)
    assert daemon.client.status().events_lost >= 1
    assert n_scans(daemon) - before <= 2
    tally.update(operations=n_rounds * n_sessions, overflows=1, comparisons=2)


def test_overflow_without_end(daemon, tmp_path, scale, tally):
    """While it lasts, clients are answered, memory is bounded, and not every second goes into scanning."""
    seconds = scale(2.0, 60.0)
    process = psutil.Process(daemon.pid)
    before, began, largest = n_scans(daemon), time.monotonic(), 0
    with ExitStack() as stack:
        for seed in range(3):
            stack.enter_context(Writer(daemon.root, tmp_path / "outside", seed)).storm(1_000_000_000)
        mover = stack.enter_context(Writer(daemon.root, tmp_path / "outside", 9))
        mover.go(0.01)
        while time.monotonic() < began + seconds:
            largest = max(largest, process.memory_info().rss)
            # Most of its few sessions may go while no event can tell.
            assert daemon.client.status().state in ("live", "catching up", "held")
            tally["requests"] += 1
            time.sleep(0.2)
        tally["operations"] += mover.rest()
    assert_right(daemon)
    lost = daemon.client.status().events_lost
    assert n_scans(daemon) - before <= 2 + (time.monotonic() - began) / 2
    assert largest < 400e6
    tally.update(overflows=lost, comparisons=1)
    if seconds > 10:
        assert lost > 5


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the slow disk needs gcc")
def test_a_slow_disk(tmp_path, scale, tally):
    """50 ms for each file: a scan takes long, changes come in the middle of it, and clients are answered meanwhile."""
    library, root, out_dir = (tmp_path / name for name in ("slow.so", "root", "out"))
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, SLOW_DISK], check=True)
    out_dir.mkdir()
    sessions = make_sessions(root, scale(10, 200), 4)
    slow = ["env", f"LD_PRELOAD={library}", f"SLOW_DISK_ROOT={root}", "SLOW_DISK_US=50000"]
    with program(root, out_dir, ["--scan-workers=1"], slow) as made:
        made.client.timeout = 600
        made.start(wait=False)
        made.wait(lambda: made.socket.exists())
        n_asked = 0
        for moved, changed in zip(sessions[::-2], sessions[-2::-2], strict=True):
            moved.rename(moved.with_name(f"9{moved.name}"))
            (changed / "new.file.npy").write_bytes(b"..")
            assert made.client.status().state in ("starting", "catching up", "live")
            n_asked += 1
        assert_right(made)
        tally.update(operations=2 * n_asked, requests=n_asked, comparisons=1, faults=1)
        made.stop()
