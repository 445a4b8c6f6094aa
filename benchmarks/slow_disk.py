"""Full index on a slow disk: one scanning process against eight, where each lstat takes a millisecond.

``python benchmarks/slow_disk.py`` makes a tree of 10 k datasets in a temporary folder, and compiles ``slow_disk.c``,
which makes its disk slow, with gcc.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import measure
import phases
import trees
import walk
from measure import Line

import index
from index import Bench

_SOURCE = Path(__file__).with_suffix(".c")
_LEAST = 6.0


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay-us", type=int, default=1000, help="microseconds that each lstat waits")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--work", type=Path, help="folder for the tree, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the lines of the report")
    arguments = parser.parse_args()
    print(measure.machine())
    with tempfile.TemporaryDirectory() as temporary:
        root = (arguments.work or Path(temporary)) / f"tree_{arguments.size}"
        trees.make_tree(root, arguments.size)
        env = slow_environment(Path(temporary), root, arguments.delay_us)
        bench = Bench(root, Path(temporary) / "out")
        one, many = (measure_workers(bench, env, number, arguments.rounds) for number in (1, arguments.workers))
    _check_slowness(root, one[1], arguments.delay_us)
    ratio = one[0] / many[0], one[1] / many[1]
    print("\n| scanning processes | whole process, s | scan, s |\n|---|---|---|")
    for name, (whole, scan) in {"1": one, str(arguments.workers): many, "ratio": ratio}.items():
        print(f"| {name} | {whole:.2f} | {scan:.2f} |")
    measure.write_lines(arguments.json, [_line(arguments, one[0], many[0])])


def slow_environment(folder: Path, root: Path, delay_us: int) -> Mapping[str, str]:
    """Compile the slow disk and return the environment in which programs find it below a root."""
    if shutil.which("gcc") is None:
        sys.exit("the slow disk needs gcc")
    library = folder / "slow_disk.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    slow = {"LD_PRELOAD": str(library), "SLOW_DISK_ROOT": str(root.resolve()), "SLOW_DISK_US": str(delay_us)}
    return {**os.environ, **slow}


def measure_workers(bench: Bench, env: Mapping[str, str], number: int, rounds: int) -> tuple[float, float]:
    """Return the median seconds with a number of scanning processes: of the whole process, and of its scan."""
    runs = []
    for _ in range(rounds):
        bench.clean()
        runs.append(phases.measure_phases([*bench.flags, "--scan-workers", str(number)], env))
    whole = statistics.median(sum(phase.seconds for phase in run.values()) for run in runs)
    return whole, statistics.median(run["scan"].seconds for run in runs)


def _check_slowness(root: Path, seconds: float, delay_us: int) -> None:
    """Make sure that the disk was slow: a program that asks by a name we do not know would pass it by."""
    least = walk.walk(str(root)) * delay_us / 1e6
    if seconds < 0.9 * least:
        sys.exit(f"one process took {seconds:.1f} s for what must take {least:.1f} s: slow_disk.c misses a call")


def _line(arguments: argparse.Namespace, one: float, many: float) -> Line:
    """Judge whole processes, though it takes most of a second until the first look at the disk."""
    return Line(
        f"Slow disk, {arguments.delay_us / 1000:g} ms per lstat, {index.say(arguments.size)}",
        f"{arguments.workers} workers {_LEAST:g} x as fast as one",
        f"{many:.2f} s, one worker {one:.2f} s",
        one / many >= _LEAST,
        f"slow_disk.py --size {arguments.size}",
        f"{one / many:.1f} x",
    )


if __name__ == "__main__":
    main()
