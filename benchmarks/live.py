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
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import box
import measure
import watchers

import trees

Rows = list[dict[str, Any]]
_RATE = 5_000
_BURST = 50_000
_EVENTS_PER_FILE = 2
"""IN_CREATE and IN_CLOSE_WRITE: the files are empty, which is the most files a second and the least to join."""
_FILES_PER_VISIT = 50
_NEW = 9_000_000
"""Number of the first session that the benchmark makes; years later than those of the tree."""


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long files are created at 5,000 per second")
    parser.add_argument("--tries", type=int, default=200, help="how often each latency is measured")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--work", type=Path, help="folder for the tree, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    print(measure.machine())
    rows: Rows = []
    with tempfile.TemporaryDirectory() as temporary:
        tree = Tree((options.work or Path(temporary)) / f"live_{options.size}", options.size)
        print(f"\n{options.size} datasets in {len(tree.folders)} folders, queue of {_queue_length()} events\n")
        for name in options.only:
            rows += PARTS[name](tree, options)
    for row in rows:
        row["command"] = f"python benchmarks/live.py --size {options.size}"
    box.report(rows, options.json)


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

    def add_folders(self, number: int) -> list[str]:
        """Return paths of folders of new sessions, still to be made, eight to a session."""
        session = self.root / "lab0/Subjects/NEW"
        names = ("", "alf", "alf/probe00", "alf/probe01", "raw_behavior_data", "raw_video_data", "raw_ephys_data",
                 "raw_ephys_data/probe00")  # fmt: skip
        return [f"{session}{n // 800:03d}/2030-01-{1 + n // 8 % 28:02d}/{1 + n // 224 % 4:03d}/{names[n % 8]}"
                for n in range(number)]  # fmt: skip

    def clean(self, daemon: box.Box | None = None) -> None:
        """Take away what was added."""
        for path in self.made:
            Path(path).unlink()
        for top in self.root.glob("lab0/Subjects/NEW*"):
            for folder, _, _ in os.walk(top, topdown=False):
                Path(folder).rmdir()
        self.made.clear()
        if daemon is not None:
            daemon.client.sync()


# The parts.


def measure_latency(tree: Tree, options: argparse.Namespace) -> Rows:
    """File closed -> row in the table in memory."""
    rows = []
    for settle, target, title in (
        (0.1, 0.150, "default settle time"),
        (1e-6, 0.020, "the engine itself, no settle time"),
    ):
        with box.live_box(tree.root, settle_seconds=settle) as daemon:
            times = [_time_to_row(tree, daemon, path) for path in tree.names(tree.folders, options.tries, 1)]
            tree.clean(daemon)
        rows.append(_latency_row(f"file closed -> row in memory, {title}", target, times))
    return rows


def _time_to_row(tree: Tree, daemon: box.Box, path: str) -> float:
    time.sleep(random.uniform(0.0, 0.02))  # not in step with anything the daemon does
    before = daemon.status().n_datasets
    tree.create(path)
    closed = time.perf_counter()
    return daemon.wait_for_datasets(before + 1) - closed


def measure_sustained(tree: Tree, options: argparse.Namespace) -> Rows:
    """5,000 file creations a second for a minute."""
    rows = []
    for visit, title in ((_FILES_PER_VISIT, f"{_FILES_PER_VISIT} files a folder"), (1, "each in another folder")):
        with box.live_box(tree.root) as daemon:
            before, lost, cpu = daemon.status().n_datasets, daemon.status().events_lost, daemon.cpu_seconds()
            number = int(_RATE * options.seconds)
            took = _create_at_rate(tree, tree.names(tree.folders, number, visit))
            lag = daemon.wait_for_datasets(before + number) - time.perf_counter() + _since(took)
            per_event = (daemon.cpu_seconds() - cpu) / number / _EVENTS_PER_FILE * 1e6
            lost = daemon.status().events_lost - lost
            tree.clean(daemon)
        item = f"{number / took[0]:.0f} file creations per second for {took[0]:.0f} s, {title}"
        rows.append(box.result(item + ": overflows", "0", str(lost), met=not lost, command=""))
        rows.append(box.result(item + ": CPU per event, flushes included", "< 20 us", f"{per_event:.1f} us",
                               met=per_event < 20, command=""))  # fmt: skip
        rows.append(box.result(item + ": last write -> all rows", "", f"{lag * 1e3:.0f} ms", met=True, command=""))
    return rows


def _create_at_rate(tree: Tree, paths: Iterator[str]) -> tuple[float, float]:
    """Create files at the rate; return how long that took, and when the last one was closed."""
    started = time.perf_counter()
    for number, path in enumerate(paths):
        wait = started + number / _RATE - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        tree.create(path)
    ended = time.perf_counter()
    return ended - started, ended


def _since(took: tuple[float, float]) -> float:
    return time.perf_counter() - took[1]


def measure_burst(tree: Tree, options: argparse.Namespace) -> Rows:  # noqa: ARG001
    """50,000 files at full speed."""
    rows = []
    with box.live_box(tree.root) as daemon:
        for title in ("watched folders", "new folders"):
            status, cpu = daemon.status(), daemon.cpu_seconds()
            took, ended = _burst(tree, is_new=title == "new folders")
            lag = daemon.wait_for_datasets(status.n_datasets + _BURST) - ended
            per_file = (daemon.cpu_seconds() - cpu) / _BURST * 1e6
            lost = daemon.status().events_lost - status.events_lost
            item = f"burst of {_BURST} files into {title} ({_BURST / took / 1e3:.0f} k/s)"
            rows.append(box.result(item + ": overflows", "0", str(lost), met=not lost, command=""))
            rows.append(
                box.result(item + ": last write -> all rows", "< 1.5 s", f"{lag:.2f} s", met=lag < 1.5, command="")
            )
            rows.append(box.result(item + ": CPU per file", "", f"{per_file:.0f} us", met=True, command=""))
            tree.clean(daemon)
    return rows


def _burst(tree: Tree, *, is_new: bool) -> tuple[float, float]:
    """Create files as fast as one process can; return how long that took, and when the last one was closed."""
    folders = tree.add_folders(_BURST // 7) if is_new else tree.folders
    if is_new:
        paths = [f"{folders[number // 7 % len(folders)]}/{watchers.MARK}f{number}.npy" for number in range(_BURST)]
    else:
        paths = list(tree.names(folders, _BURST, 3))
    started = time.perf_counter()
    for number, path in enumerate(paths):
        if is_new and not number % 7:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        tree.create(path)
    ended = time.perf_counter()
    return ended - started, ended


def measure_sync(tree: Tree, options: argparse.Namespace) -> Rows:
    """`sync`, the flush of the tables to the disk included."""
    with box.live_box(tree.root) as daemon:
        idle = [_time_to_sync(daemon) for _ in range(options.tries)]
        written = []
        for path in tree.names(tree.folders, options.tries, 1):
            time.sleep(random.uniform(0.0, 0.02))
            tree.create(path)
            written.append(_time_to_sync(daemon))
        tree.clean(daemon)
    return [_latency_row("sync, idle", 0.010, idle), _latency_row("sync after a write, tables on disk", 0.150, written)]


def _time_to_sync(daemon: box.Box) -> float:
    started = time.perf_counter()
    daemon.client.sync()
    return time.perf_counter() - started


def measure_others(tree: Tree, options: argparse.Namespace) -> Rows:  # noqa: ARG001
    """What other watchers make of the same burst."""
    rows = []
    for kind, title in (("bare", "watchdog's InotifyFD, only counting"), ("watchdog", "watchdog's recursive Observer")):
        with watchers.running(kind, tree.root) as end:
            took, ended = _burst(tree, is_new=False)
            seen = end()
        tree.clean()
        figure = (
            f"{seen['files']} of {_BURST} files told ({_BURST / took / 1e3:.0f} k/s), last after "
            f"{max(0.0, seen['last'] - ended):.2f} s, {seen['cpu'] / _BURST * 1e6:.0f} us of CPU per file, "
            f"armed in {seen['armed']:.1f} s"
        )
        rows.append(box.result(f"the same burst: {title}", "", figure, met=True, command=""))
    return rows


PARTS = {
    "latency": measure_latency,
    "sync": measure_sync,
    "burst": measure_burst,
    "sustained": measure_sustained,
    "others": measure_others,
}


def _latency_row(item: str, target: float, times: list[float]) -> dict[str, Any]:
    median, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
    figure = f"median {median * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
    return box.result(item, f"< {target * 1e3:.0f} ms", figure, met=median < target, command="")


def _queue_length() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


if __name__ == "__main__":
    main()
