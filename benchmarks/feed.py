"""Feed: how soon a change is told, what followers cost, and what the journal costs a flush and the disk.

``python benchmarks/feed.py`` runs a real daemon on a tree of 100 k datasets, with real clients. The journal is compared
with flushes of the same rows without one, in turn.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import box
import flush
import live
import measure

from alfwatchd.changes import Change
from alfwatchd.journal.journal import Bounds, Journal
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.session_changes import SessionChange

Lines = list[measure.Line]
_PATIENCE_SECONDS = 60.0
_NAMES = ("alf/probe00/spikes.times.npy", "alf/probe00/spikes.clusters.npy", "alf/_ibl_trials.table.pqt")
_FOLLOW = """
import sys
from alfwatchd import Client
print("ready", flush=True)
for change in Client(sys.argv[1]).changes("now"):
    pass
"""


def measure_latency(tree: live.Tree, options: argparse.Namespace) -> Lines:
    """File closed -> told to a client that follows a stream."""
    lines = []
    for flushed, target, title in ((False, 0.150, "not on disk yet"), (True, None, "on disk, flushed each second")):
        times = []
        with box.live_box(tree.root, flush_interval_seconds=1.0) as daemon:
            changes = daemon.client.changes("now", flushed=flushed)
            told: list[tuple[float, Change]] = []
            reader = threading.Thread(target=_note, args=(changes, told), daemon=True)
            reader.start()
            time.sleep(2.0)  # it compares sessions from the first request on
            for path in tree.names(tree.folders, options.tries, 1):
                time.sleep(random.uniform(0.0, 0.3))
                session = str(Path(path).relative_to(tree.root)).split("/")[:5]
                n_before = len(told)
                tree.create(path)
                closed = time.perf_counter()
                times.append(_wait_for(told, n_before, "/".join(session)) - closed)
            tree.clean(daemon)
        middle, last = statistics.median(times), statistics.quantiles(times, n=20)[-1]
        goal = f"< {target * 1e3:.0f} ms" if target else "one flush"
        lines.append(
            measure.Line(
                f"file closed -> told to a stream, {title}",
                goal,
                f"median {middle * 1e3:.0f} ms, 95 % {last * 1e3:.0f} ms",
                middle < target if target else middle < 1.5,
                "",
            )
        )
    return lines


def _note(changes: Iterator[object], told: list[tuple[float, Change]]) -> None:
    for change in changes:
        if isinstance(change, Change):
            told.append((time.perf_counter(), change))  # noqa: PERF401 - others read it meanwhile


def _wait_for(told: list[tuple[float, Change]], n_before: int, path: str) -> float:
    deadline = time.perf_counter() + _PATIENCE_SECONDS
    while time.perf_counter() < deadline:
        for when, change in told[n_before:]:
            if change.path == path:
                return when
        time.sleep(0.001)
    raise SystemExit(f"{path} was never told")


@contextmanager
def _followers(daemon: box.Box, number: int) -> Iterator[None]:
    """Let some processes follow all changes."""
    with ExitStack() as stack:
        processes = []
        for _ in range(number):
            process = subprocess.Popen(
                [sys.executable, "-c", _FOLLOW, str(daemon.home / "s")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        time.sleep(2.0)
        yield


def measure_idle(tree: live.Tree, options: argparse.Namespace) -> Lines:
    """What clients that wait cost an idle daemon."""
    shares = {}
    for number in (0, options.followers):
        with box.live_box(tree.root) as daemon, _followers(daemon, number):
            before = daemon.cpu_seconds()
            time.sleep(options.seconds)
            shares[number] = (daemon.cpu_seconds() - before) / options.seconds
    more = shares[options.followers] - shares[0]
    return [
        measure.Line(
            f"an idle daemon with {options.followers} followers",
            "< 1 % of a core more",
            f"{100 * more:.2f} % more than the {100 * shares[0]:.2f} % without",
            more < 0.01,
            "",
        )
    ]


def measure_burst(tree: live.Tree, options: argparse.Namespace) -> Lines:
    """A burst of files while clients follow."""
    lines = []
    for number in (0, 10):
        with box.live_box(tree.root) as daemon, _followers(daemon, number):
            before = daemon.status().n_datasets
            cpu = daemon.cpu_seconds()
            paths = list(tree.names(tree.folders, options.burst, 3))
            for path in paths:
                tree.create(path)
            ended = time.perf_counter()
            lag = daemon.wait_for_datasets(before + len(paths), 0.02) - ended
            daemon.client.sync()
            per_file = (daemon.cpu_seconds() - cpu) / len(paths) * 1e6
            lost = daemon.status().events_lost
            tree.clean(daemon)
        item = f"burst of {options.burst} files with {number} followers"
        figure = f"{lost} overflows, all rows after {lag:.2f} s, {per_file:.0f} us of CPU per file"
        lines.append(measure.Line(item, "no overflow", figure, lost == 0, ""))
    return lines


def measure_flush(_tree: live.Tree, options: argparse.Namespace) -> Lines:
    """What the journal costs a flush of one session."""
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        rows, writers = flush.Rows(options.rows), {}
        for name in ("without a journal", "with one"):
            place = Path(folder) / name.replace(" ", "_")
            place.mkdir()
            journal = Journal(place / "state", Bounds()) if name == "with one" else None
            writers[name] = TableWriter(place, "/data", place / "layout", journal=journal)
            writers[name].write(rows.snapshot(), TableRules())
        times: dict[str, list[flush.Flush]] = {name: [] for name in writers}
        for number in range(options.rounds):
            (rows.change, rows.add)[number % 2]()
            for name, writer in writers.items():
                times[name].append(flush.flush(writer, rows))
        for writer in writers.values():
            writer.close()
    plain, kept = (flush.median(times[name]) for name in ("without a journal", "with one"))
    ratio = kept.cpu / plain.cpu
    return [
        measure.Line(
            f"flush of one session in {options.rows:,} rows, with the journal",
            "< 100 ms; <= 1.05x of the CPU without",
            f"{kept.wall * 1e3:.0f} ms, {kept.cpu * 1e3:.1f} ms of CPU; without {plain.cpu * 1e3:.1f} ms",
            kept.wall < 0.1 and ratio <= 1.05,
            "",
            f"{ratio:.2f}x",
        )
    ]


def measure_size(_tree: live.Tree, options: argparse.Namespace) -> Lines:
    """How large the journal becomes, and how long reading takes."""
    chance, now = random.Random(1), datetime(2026, 1, 1, tzinfo=UTC)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        journal = Journal(Path(folder), Bounds(n_bytes=1 << 40))
        journal.record(1, now, None)
        for generation in range(2, options.changes // 10 + 2):
            now += timedelta(seconds=10)
            journal.follow(journal.id, generation - 1)
            journal.record(generation, now, [_change(chance) for _ in range(10)])
        n_bytes = sum(each.stat().st_size for each in journal.folder.iterdir())
        started = time.perf_counter()
        Journal(Path(folder), Bounds(n_bytes=1 << 40))
        opened = time.perf_counter() - started
    return [
        measure.Line(
            f"journal of {options.changes:,} changes of sessions",
            "< 100 MB for a million",
            f"{n_bytes / 1e6:.1f} MB; opened in {opened:.1f} s",
            n_bytes / options.changes < 100,
            "",
        )
    ]


def _change(chance: random.Random) -> SessionChange:
    names = tuple(f"+{name}" for name in chance.sample(_NAMES, chance.randrange(4)))
    path = f"lab{chance.randrange(9)}/Subjects/mouse{chance.randrange(999):03d}/2026-01-{chance.randrange(9) + 10}/001"
    size, eid = chance.randrange(10**10), str(uuid.UUID(int=chance.getrandbits(128)))
    return SessionChange(path, added=len(names), n_bytes=size, bytes_after=size, names=names, eid=eid)


PARTS = {
    "latency": measure_latency,
    "idle": measure_idle,
    "burst": measure_burst,
    "flush": measure_flush,
    "size": measure_size,
}


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000, help="datasets in the tree")
    parser.add_argument("--tries", type=int, default=50, help="how often each latency is measured")
    parser.add_argument("--followers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the followers are idle")
    parser.add_argument("--burst", type=int, default=50_000, help="files in a burst")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows for the flushes")
    parser.add_argument("--rounds", type=int, default=30, help="flushes with and without a journal")
    parser.add_argument("--changes", type=int, default=1_000_000, help="changes of sessions in the journal")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--work", type=Path, help="folder for the tree, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    sys.setswitchinterval(0.005)
    print(measure.machine())
    lines: Lines = []
    with tempfile.TemporaryDirectory() as temporary:
        tree = live.Tree((options.work or Path(temporary)) / f"live_{options.size}", options.size)
        for name in options.only:
            lines += PARTS[name](tree, options)
    command = f"python benchmarks/feed.py --size {options.size}"
    measure.write_lines(options.json, [replace(line, command=command) for line in lines])


if __name__ == "__main__":
    main()
