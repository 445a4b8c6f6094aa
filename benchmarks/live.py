"""Live: how soon a file is a row, how many events a second are taken in, what a burst does, what `sync` takes.

``python benchmarks/live.py`` runs a real daemon on a tree of 100 k datasets; ``--size 1000000`` takes some minutes
more. The table in memory is seen through `status`, which waits for no flush: asked again and again, so that each
latency includes one round trip of about a millisecond, and what answering costs the daemon.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import box
import measure
import trees
import watchers

Lines = list[measure.Line]
_RATE = 5_000
_EVENTS_PER_FILE = 2
"""IN_CREATE and IN_CLOSE_WRITE: the files are empty, which is the most files a second and the least to join."""
FILES_PER_VISIT = 50
_SECONDS_WITHOUT_FLUSH = 10.0
_FILES_PER_BURST_VISIT = 3
_COLLECTIONS = ("alf", "alf/probe00", "alf/probe01", "raw_behavior_data", "raw_video_data", "raw_ephys_data")
_OTHERS = {"bare": "watchdog's InotifyFD, only counting", "watchdog": "watchdog's recursive Observer"}
_MEMORY_FOLDER = Path("/dev/shm")
_MEMORY_SIZE = 100_000


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long files are created at 5,000 per second")
    parser.add_argument("--burst", type=int, default=50_000, help="files in a burst")
    parser.add_argument("--tries", type=int, default=200, help="how often each latency is measured")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--work", type=Path, help="folder for the tree, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    print(measure.machine())
    lines: Lines = []
    with tempfile.TemporaryDirectory() as temporary:
        tree = Tree((options.work or Path(temporary)) / f"live_{options.size}", options.size)
        print(f"\n{options.size} datasets in {len(tree.folders)} folders, queue of {_queue_length()} events\n")
        for name in options.only:
            lines += PARTS[name](tree, options)
    command = f"python benchmarks/live.py --size {options.size}"
    measure.write_lines(options.json, [replace(line, command=command) for line in lines])


# The tree, and what is written to it.


class Tree:
    """A tree that files are added to, and taken away from again."""

    def __init__(self, root: Path, size: int) -> None:
        n_sessions = trees.make_tree(root, size)
        self.root = root
        self.folders: list[str] = []
        self.made: list[str] = []
        for number in range(n_sessions):
            for folder, _, names in os.walk(root / trees.session_path(number)):
                self.folders.append(folder)
                self.made += [f"{folder}/{name}" for name in names if name.startswith(watchers.MARK)]
        self.clean()  # a run that was broken off leaves its files
        self._numbers = itertools.count()

    def names(self, folders: Sequence[str], number: int, visit: int) -> Iterator[str]:
        """Yield paths of new datasets: `visit` files in a folder, then in the next."""
        chosen = random.Random(number).choices(folders, k=-(-number // visit))
        for position in range(number):
            yield f"{chosen[position // visit]}/{watchers.MARK}f{next(self._numbers)}.npy"

    def create(self, path: str) -> None:
        """Create a file as a program does that writes it: open, close."""
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644))
        self.made.append(path)

    def new_folders(self, n_files: int) -> list[str]:
        """Return paths of folders of new sessions, still to be made, for this many files."""
        n_sessions = -(-n_files // trees.DATASETS_PER_SESSION)
        return [
            f"{self.root}/lab0/Subjects/NEW{number // 20:04d}/2030-01-01/{1 + number % 20:03d}/{collection}"
            for number in range(n_sessions)
            for collection in _COLLECTIONS
        ]

    def clean(self, daemon: box.Box | None = None) -> None:
        """Take away what was added."""
        for path in self.made:
            Path(path).unlink()
        self.made.clear()
        for top in self.root.glob("lab0/Subjects/NEW*"):
            shutil.rmtree(top)
        if daemon is not None:
            daemon.client.sync()


# The parts.


def measure_latency(tree: Tree, options: argparse.Namespace) -> Lines:
    """File closed -> row in the table in memory."""
    lines = []
    for settle, target, title in ((0.1, 0.150, "default settings"), (1e-6, 0.020, "no settle time: the engine itself")):
        with box.live_box(tree.root, settle_seconds=settle) as daemon:
            times = [_time_to_row(tree, daemon, path) for path in tree.names(tree.folders, options.tries, 1)]
            tree.clean(daemon)
        lines.append(_latency_line(f"file closed -> row in memory, {title}", target, times))
    return lines


def _time_to_row(tree: Tree, daemon: box.Box, path: str) -> float:
    _fall_out_of_step()
    before = daemon.status().n_datasets
    tree.create(path)
    closed = time.perf_counter()
    return daemon.wait_for_datasets(before + 1) - closed


def measure_sync(tree: Tree, options: argparse.Namespace) -> Lines:
    """`sync`, the flush of the tables to the disk included."""
    with box.live_box(tree.root) as daemon:
        idle = [_time_to_sync(daemon) for _ in range(options.tries)]
        written = []
        for path in tree.names(tree.folders, options.tries, 1):
            _fall_out_of_step()
            tree.create(path)
            written.append(_time_to_sync(daemon))
        tree.clean(daemon)
    return [
        _latency_line("`sync` of an idle daemon", 0.010, idle),
        _latency_line("`sync` after a write, until it is on disk", 0.150, written),
    ]


def _time_to_sync(daemon: box.Box) -> float:
    started = time.perf_counter()
    daemon.client.sync()
    return time.perf_counter() - started


def measure_sustained(tree: Tree, options: argparse.Namespace) -> Lines:
    """5,000 file creations a second for a minute."""
    lines = []
    for visit, title in ((FILES_PER_VISIT, f"{FILES_PER_VISIT} files a folder"), (1, "each in another folder")):
        load = _sustain(tree, options.seconds, visit)
        alone = _sustain(tree, min(options.seconds, _SECONDS_WITHOUT_FLUSH), visit, flush_interval_seconds=3600)
        item = f"{load.rate:.0f} new files per second for {options.seconds:.0f} s, {title}"
        lines += [
            _overflow_line(item, load),
            measure.Line(f"{item}: CPU per event", "< 20 us",
                         f"{load.per_event:.1f} us, flushes included; {alone.per_event:.1f} us without",
                         load.per_event < 20, ""),
            measure.Line(f"{item}: last write -> all rows", "", f"{load.lag * 1e3:.0f} ms", None, ""),
        ]  # fmt: skip
    return lines


def _sustain(tree: Tree, seconds: float, visit: int, **settings: object) -> Load:
    with box.live_box(tree.root, **settings) as daemon:
        paths = tree.names(tree.folders, int(_RATE * seconds), visit)
        return _measure_load(tree, daemon, lambda: _create_at_rate(tree, paths))


def measure_burst(tree: Tree, options: argparse.Namespace) -> Lines:
    """50,000 files at full speed: on the disk, and in memory, where nothing holds up who writes."""
    lines = _measure_bursts(tree, options, "disk")
    with _tree_in_memory(tree, options) as other:
        return lines + (_measure_bursts(other, options, "tmpfs") if other is not tree else [])


@contextmanager
def _tree_in_memory(tree: Tree, options: argparse.Namespace) -> Iterator[Tree]:
    if not _MEMORY_FOLDER.is_dir():
        yield tree
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY_FOLDER) as folder:
        yield Tree(Path(folder) / "tree", min(options.size, _MEMORY_SIZE))


def _measure_bursts(tree: Tree, options: argparse.Namespace, where: str) -> Lines:
    lines = []
    with box.live_box(tree.root) as daemon:
        for title, folders in (("watched folders", tree.folders), ("new folders", tree.new_folders(options.burst))):
            load = _measure_load(tree, daemon, lambda folders=folders: _burst(tree, folders, options.burst))
            item = f"burst of {options.burst} files into {title}, {where}, {load.rate / 1e3:.0f} k/s"
            figure = f"{load.cpu / load.n_files * 1e6:.0f} us"
            lines += [
                _overflow_line(item, load),
                measure.Line(f"{item}: last write -> all rows", "< 1.5 s", f"{load.lag:.2f} s", load.lag < 1.5, ""),
                measure.Line(f"{item}: CPU per file", "", figure, None, ""),
            ]
    return lines


def measure_others(tree: Tree, options: argparse.Namespace) -> Lines:
    """What other watchers make of a burst into watched folders, in memory."""
    lines = []
    with _tree_in_memory(tree, options) as other:
        for kind, title in _OTHERS.items():
            with watchers.running(kind, other.root) as end:
                took, ended = _burst(other, other.folders, options.burst)
                seen = end()
            other.clean()
            figure = (
                f"{seen['files']} of {options.burst} files told, last after {max(0.0, seen['last'] - ended):.2f} s, "
                f"{seen['cpu'] / options.burst * 1e6:.0f} us of CPU per file, armed in {seen['armed']:.1f} s"
            )
            item = f"the same burst, {options.burst / took / 1e3:.0f} k/s: {title}"
            lines.append(measure.Line(item, "", figure, None, ""))
    return lines


PARTS = {
    "latency": measure_latency,
    "sync": measure_sync,
    "burst": measure_burst,
    "sustained": measure_sustained,
    "others": measure_others,
}


# Loads.


@dataclass(frozen=True, slots=True)
class Load:
    """What many new files did: seconds from the last write to all rows, CPU seconds, overflows."""

    n_files: int
    rate: float
    lag: float
    cpu: float
    n_overflows: int

    @property
    def per_event(self) -> float:
        """CPU time of the daemon, in microseconds."""
        return self.cpu / self.n_files / _EVENTS_PER_FILE * 1e6


def _measure_load(tree: Tree, daemon: box.Box, write: Callable[[], tuple[float, float]]) -> Load:
    """Write, wait until the table in memory has all rows, and take the files away again."""
    before, cpu = daemon.status(), daemon.cpu_seconds()
    took, ended = write()
    number = len(tree.made)
    lag = daemon.wait_for_datasets(before.n_datasets + number, interval=0.01) - ended
    cpu = daemon.cpu_seconds() - cpu
    n_overflows = daemon.status().events_lost - before.events_lost
    tree.clean(daemon)
    return Load(number, number / took, lag, cpu, n_overflows)


def _create_at_rate(tree: Tree, paths: Iterable[str]) -> tuple[float, float]:
    """Create files at the rate; return how long that took, and when the last one was closed."""
    started = time.perf_counter()
    for number, path in enumerate(paths):
        wait = started + number / _RATE - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        tree.create(path)
    ended = time.perf_counter()
    return ended - started, ended


def _burst(tree: Tree, folders: Sequence[str], number: int) -> tuple[float, float]:
    """Create files as fast as one process can; return as above."""
    paths = list(tree.names(folders, number, _FILES_PER_BURST_VISIT))
    started = time.perf_counter()
    last = ""
    for path in paths:
        folder = os.path.dirname(path)
        if folder != last:
            last = folder
            Path(folder).mkdir(parents=True, exist_ok=True)
        tree.create(path)
    ended = time.perf_counter()
    return ended - started, ended


def _fall_out_of_step() -> None:
    """Let the next write come at any moment of what the daemon does now and then."""
    time.sleep(random.uniform(0.0, 0.02))


def _latency_line(item: str, target: float, times: list[float]) -> measure.Line:
    median, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
    figure = f"median {median * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
    return measure.Line(item, f"median < {target * 1e3:.0f} ms", figure, median < target, "")


def _overflow_line(item: str, load: Load) -> measure.Line:
    return measure.Line(f"{item}: overflows", "0", str(load.n_overflows), not load.n_overflows, "")


def _queue_length() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


if __name__ == "__main__":
    main()
