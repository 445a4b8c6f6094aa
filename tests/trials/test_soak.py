"""Half an hour of mixed work leaves no descriptor, thread, watch or memory behind; and an idle daemon is idle."""

from __future__ import annotations

import random
import signal
import statistics
import time
from dataclasses import astuple, dataclass

import psutil
import pytest

from alfwatchd.errors import AlfwatchdError
from kit.fuzz_disk import Disk
from kit.fuzz_writer import Writer
from kit.program import Program, program, read_tables
from kit.truth import assert_right

pytestmark = pytest.mark.heavy

QUEUE = 16_384
CONFIG = """
flush_interval_seconds = 0.5
hash_files = true
scan_workers = 2
reconcile_interval_seconds = 20
[prune]
enabled = true
"""


@dataclass(frozen=True)
class Sample:
    """What the daemon holds while nothing happens."""

    n_fds: int
    n_threads: int
    n_watches_too_many: int
    megabytes: float


def test_soak(tmp_path, scale, tally):
    seconds, round_seconds = scale((2.0, 1.0), (1800.0, 30.0))
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    disk = Disk(tmp_path / "root", tmp_path / "outside")
    for number in range(8):
        disk.do("write_session", number, number)
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    draw, samples = random.Random(1), []
    with (
        program(tmp_path / "root", out_dir, [f"--config={config}"]) as made,
        Writer(tmp_path / "root", tmp_path / "outside", 1) as writer,
    ):
        made.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            work(made, writer, draw, tally, time.monotonic() + round_seconds)
            assert_right(made, digests=False)
            writer.note_synced()
            samples.append(take_sample(made))
            tally["comparisons"] += 1
        assert_idle(made, scale(1.0, 60.0))
        made.stop()
    assert_flat(samples[len(samples) // 4 :] or samples)


def work(made: Program, writer: Writer, draw: random.Random, tally, end: float) -> None:
    """Change the tree and ask for things."""
    writer.go(draw.choice((0.0, 0.005, 0.05)))
    while time.monotonic() < end:
        tally["requests"] += 1
        match draw.randrange(8):
            case 0:
                made.client.status()
            case 1 | 2:
                made.client.sync()
            case 3:
                made.client.rescan()
            case 4:
                try:
                    made.client.plan_prune(str(made.out_dir))
                except AlfwatchdError:
                    tally["faults"] += 1  # the tables in use are no reference: refused, and nothing must be left of it
            case 5:
                made.process.send_signal(signal.SIGHUP)
            case 6:
                read_tables(made.out_dir)
                tally["reads"] += 1
            case 7 if draw.random() < 0.1:
                tally["operations"] += writer.rest()
                made.process.send_signal(signal.SIGSTOP)
                writer.storm(QUEUE + 100)
                tally["operations"] += writer.rest()
                tally["overflows"] += 1
                made.process.send_signal(signal.SIGCONT)
                writer.go(0.01)
        time.sleep(draw.uniform(0, 0.1))
    tally["operations"] += writer.rest()


def take_sample(made: Program) -> Sample:
    """Look at the daemon once its worker processes and the threads of its requests are gone."""
    process = psutil.Process(made.pid)
    made.wait(lambda: not process.children())
    n_folders = sum(1 for folder in (made.root, *made.root.rglob("*")) if folder.is_dir() and not folder.is_symlink())
    return Sample(
        process.num_fds(),
        process.num_threads(),
        max(0, made.client.status().watches - n_folders),
        process.memory_info().rss / 1e6,
    )


def assert_flat(samples: list[Sample]) -> None:
    half = len(samples) // 2
    early, late = samples[: half or 1], samples[half:]
    print(*samples, sep="\n")  # noqa: T201 - pytest shows it if the test fails
    fds, threads, watches, megabytes = (
        (statistics.median(column[0]), statistics.median(column[1]))
        for column in zip(zip(*map(astuple, early), strict=True), zip(*map(astuple, late), strict=True), strict=True)
    )
    assert fds[1] <= fds[0] + 1
    assert threads[1] <= threads[0] + (2 if len(samples) > 10 else 8)  # a pool grows to its size in the first minutes
    assert watches == (0, 0)
    assert megabytes[1] <= 1.1 * megabytes[0] + 5


def assert_idle(made: Program, seconds: float) -> None:
    """A busy loop would take all of a core; the limit is far above what an idle daemon takes, and far below that."""
    process = psutil.Process(made.pid)
    made.wait(lambda: not made.client.status().hashes_pending)
    for _ in range(10):  # on a busy machine the last of the work takes its time
        before = sum(process.cpu_times()[:2])
        time.sleep(seconds)
        if sum(process.cpu_times()[:2]) - before < 0.1 * seconds:
            return
    raise AssertionError("it is never idle")
