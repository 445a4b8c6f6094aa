"""The change feed of a live daemon: ``python benchmarks/feed.py`` (100,000 datasets).

A file is closed, and a client that follows the stream is told: with ``flushed=false`` as soon as the daemon has looked,
else after the next flush. Then what a hundred followers cost while nothing happens, and whether the daemon loses events
in a burst of files while ten clients follow.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import box
import measure
import trees

from alfwatchd import Change

_EARLY_SECONDS, _IDLE_SHARE = 0.150, 0.01
_FLUSH_SECONDS = 10.0
_N_IDLE, _N_IN_BURST = 100, 10
_PAUSE_SECONDS = 0.3
_ATTEMPT_SECONDS = 60.0


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--tries", type=int, default=100, help="how often the early latency is measured")
    parser.add_argument("--late-tries", type=int, default=3, help="how often that behind a flush is; each takes 10 s")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the followers are idle")
    parser.add_argument("--burst", type=int, default=50_000, help="files of the burst")
    parser.add_argument("--work", type=Path, help="folder for the tree, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    print(measure.machine())
    command = f"python benchmarks/feed.py --size {options.size}"
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.work or Path(temporary)) / f"tree_{options.size}"
        trees.make_tree(root, options.size)
        with box.live_box(root, flush_interval_seconds=_FLUSH_SECONDS) as daemon, _own_session(root) as session:
            lines = [
                _latency_line(daemon, session, options.tries, command, flushed=False),
                _latency_line(daemon, session, options.late_tries, command, flushed=True),
                _idle_line(daemon, options.seconds, command),
                _burst_line(daemon, session, options.burst, command),
            ]
    measure.write_lines(options.json, lines)


@contextmanager
def _own_session(root: Path) -> Iterator[Path]:
    """Yield the folder of a session that is taken away again."""
    subject = next(each.parent for each in sorted(root.glob("*/Subjects/*/*")))
    date = subject / "2035-01-01"
    session = date / "001/alf"
    session.mkdir(parents=True)
    try:
        yield session
    finally:
        shutil.rmtree(date)


def _latency_line(daemon: box.Box, session: Path, n_tries: int, command: str, *, flushed: bool) -> measure.Line:
    most = _FLUSH_SECONDS + 1.0 if flushed else _EARLY_SECONDS
    with daemon.client.changes(flushed=flushed) as changes:
        while changes.cursor == "now":
            changes.take(_PAUSE_SECONDS)
        time.sleep(2.0)  # the engine begins to look within a second
        times = []
        for number in range(n_tries):
            name = f"spikes.times.{'late' if flushed else 'early'}{number}.npy"
            began = time.perf_counter()
            (session / name).write_bytes(b"x")
            while (change := changes.take(_ATTEMPT_SECONDS)) is not None:
                is_early = isinstance(change, Change) and change.generation is None
                if isinstance(change, Change) and is_early != flushed and f"alf/{name}" in change.added:
                    break
            times.append(time.perf_counter() - began)
            time.sleep(_PAUSE_SECONDS)
    median = statistics.median(times)
    when = "on disk" if flushed else "in memory, `flushed=false`"
    figure = f"{median * 1000:.0f} ms, at most {max(times) * 1000:.0f}"
    item = f"file closed -> told to a stream client, {when}"
    return measure.Line(item, f"< {most * 1000:.0f} ms, median", figure, median < most, command)


def _idle_line(daemon: box.Box, seconds: float, command: str) -> measure.Line:
    """Measure what followers cost that only read keep-alives."""
    alone = _cpu_share(daemon, seconds)
    with _followers(daemon, _N_IDLE):
        share = _cpu_share(daemon, seconds) - alone
    item = f"{_N_IDLE} idle followers: CPU of the daemon above that without them"
    target = f"< {_IDLE_SHARE:.0%} of a core"
    return measure.Line(item, target, f"{share:.2%}", share < _IDLE_SHARE, command, f"{alone:.2%} without")


def _cpu_share(daemon: box.Box, seconds: float) -> float:
    before = daemon.cpu_seconds()
    time.sleep(seconds)
    return (daemon.cpu_seconds() - before) / seconds


def _burst_line(daemon: box.Box, session: Path, n_files: int, command: str) -> measure.Line:
    lost = daemon.status().events_lost
    with _followers(daemon, _N_IN_BURST) as told:
        for number in range(n_files):
            (session / f"spikes.times.burst{number}.npy").write_bytes(b"x")
        generation = daemon.client.sync().generation
        deadline = time.monotonic() + _ATTEMPT_SECONDS
        while min(told.values()) < generation and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        n_told = sum(each >= generation for each in told.values())
    lost = daemon.status().events_lost - lost
    item = f"burst of {n_files} files with {_N_IN_BURST} followers: overflows"
    figure = f"{lost}, the last generation told to {n_told} of them"
    return measure.Line(item, "0", figure, lost == 0 and n_told == _N_IN_BURST, command)


@contextmanager
def _followers(daemon: box.Box, number: int) -> Iterator[dict[int, int]]:
    """Follow the feed in threads; yield number of the follower -> latest generation that it was told."""
    told = dict.fromkeys(range(number), 0)
    ends = threading.Event()

    def follow(place: int) -> None:
        with daemon.client.changes() as changes:
            while not ends.is_set():
                change = changes.take(_PAUSE_SECONDS)
                told[place] = max(told[place], change.generation or 0) if change is not None else told[place]

    with ExitStack() as stack:
        for place in range(number):
            thread = threading.Thread(target=follow, args=(place,))
            thread.start()
            stack.callback(thread.join)
        stack.callback(ends.set)
        time.sleep(1.0)  # until all are connected
        yield told


if __name__ == "__main__":
    main()
