"""Memory and idle CPU of a live daemon: ``python benchmarks/memory.py`` takes three minutes with 1 M datasets."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import box
import live
import measure

_CHANGES = 5_000
_FLAT = 1.02
_MEMORY_MB = 500
_IDLE_PERCENT = 0.1


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it idles")
    parser.add_argument("--rounds", type=int, default=20, help="how often 5,000 files come and go")
    parser.add_argument("--work", type=Path, help="folder for the tree, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    print(measure.machine())
    with tempfile.TemporaryDirectory() as temporary:
        tree = live.Tree((options.work or Path(temporary)) / f"live_{options.size}", options.size)
        with box.live_box(tree.root) as daemon:
            lines = measure_memory(tree, daemon, options)
    measure.write_lines(options.json, lines)


def measure_memory(tree: live.Tree, daemon: box.Box, options: argparse.Namespace) -> list[measure.Line]:
    """Measure one daemon: at rest, over idle time, and after changes."""
    status = daemon.status()
    what = f"{status.n_datasets} datasets in {status.n_sessions} sessions, {status.watches} folders watched"
    resting = daemon.memory()
    percent = _idle_percent(daemon, options.seconds)
    sizes = [resting["Rss"]]
    for _ in range(options.rounds):
        _change(tree, daemon)
        sizes.append(daemon.memory()["Rss"])
    print(f"\n### {what}\n\nResident MB, after each round of {_CHANGES} files that came and went:")
    print(", ".join(f"{size:.0f}" for size in sizes))
    half = max(sizes[: len(sizes) // 2 + 1])
    command = f"python benchmarks/memory.py --size {options.size}"
    return [
        measure.Line(f"memory of the live daemon: {what}", f"< {_MEMORY_MB} MB resident",
                     f"{resting['Rss']:.0f} MB (PSS {resting['Pss']:.0f} MB)", resting["Rss"] < _MEMORY_MB, command),
        measure.Line(f"memory after {options.rounds} times {_CHANGES} files came and went",
                     f"flat, < {_MEMORY_MB} MB", f"{half:.0f} MB in the first half, {max(sizes):.0f} MB in the end",
                     max(sizes) < min(half * _FLAT, _MEMORY_MB), command, f"{max(sizes) / half:.3f} x"),
        measure.Line(f"idle CPU over {options.seconds:.0f} s", f"< {_IDLE_PERCENT} % of a core", f"{percent:.3f} %",
                     percent < _IDLE_PERCENT, command),
    ]  # fmt: skip


def _idle_percent(daemon: box.Box, seconds: float) -> float:
    """Return the CPU time of a while without changes and questions, in percent of one core."""
    time.sleep(2.0)
    before, started = daemon.cpu_seconds(), time.perf_counter()
    time.sleep(seconds)
    return 100 * (daemon.cpu_seconds() - before) / (time.perf_counter() - started)


def _change(tree: live.Tree, daemon: box.Box) -> None:
    """Let files come, be written to disk as rows, and go."""
    for path in tree.names(tree.folders, _CHANGES, live.FILES_PER_VISIT):
        tree.create(path)
    daemon.client.sync()
    tree.clean(daemon)


if __name__ == "__main__":
    main()
