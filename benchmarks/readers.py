"""Readers: how fast One opens our tables, and those that ONE itself made of the same tree.

``python benchmarks/readers.py`` indexes a tree of 1 M datasets with alfwatchd and with ONE's make_parquet_db, which
takes minutes; ``--work`` names a folder in which tree and tables are kept for the next time. Each round opens either in
a new process, in turn; only the opening is timed, not the imports.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from pathlib import Path

import measure
import trees

_MAKE = "import sys; from one.alf.cache import make_parquet_db; make_parquet_db(*sys.argv[1:])"
_TIMER = """
import sys, time, warnings
warnings.simplefilter("ignore")
from one.alf.cache import load_tables
from one.api import One
wall, cpu = time.perf_counter(), time.process_time()
{call}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""
_CALLS = {
    "load_tables": "load_tables(sys.argv[1])",
    "One(cache_dir)": "One(cache_dir=sys.argv[1], mode='local')",
    "One(cache_dir), first search and list": (
        "one = One(cache_dir=sys.argv[1], mode='local')\n"
        "one.list_datasets(one.search(subject='SUB_0001', datasets='spikes.times.npy')[0])"
    ),
}


def make_tables(work: Path, size: int) -> tuple[Path, Path]:
    """Index a tree with both programs, unless ONE's tables are there; return the folders of the tables."""
    root, ours, theirs = work / f"tree_{size}", work / f"ours_{size}", work / f"upstream_{size}"
    trees.make_tree(root, size)
    if not theirs.exists():
        unfinished = theirs.with_suffix(".part")
        unfinished.mkdir(exist_ok=True)
        measure.run([measure.PYTHON, "-c", _MAKE, str(root), str(unfinished)])
        unfinished.rename(theirs)
    ours.mkdir(exist_ok=True)
    for path in ours.glob("*.pqt"):  # another version may have made them
        path.unlink()
    with tempfile.TemporaryDirectory() as state:
        measure.run([measure.ALFWATCHD, "--once", "--root", str(root), "--out-dir", str(ours), "--state-dir", state])
    return ours, theirs


def open_tables(call: str, folder: Path) -> tuple[float, float]:
    """Open tables in a new process; return wall and CPU seconds."""
    command = [measure.PYTHON, "-c", _TIMER.format(call=call), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall, cpu = map(float, done.stdout.split()[-2:])
    return wall, cpu


def compare(name: str, ours: Path, theirs: Path, size: int, rounds: int) -> measure.Line:
    """Time one call with either tables, in turn."""
    runs: dict[Path, list[tuple[float, float]]] = {ours: [], theirs: []}
    for number in range(rounds + 1):
        for folder, found in runs.items():
            opened = open_tables(_CALLS[name], folder)
            if number:  # the first round warms up
                found.append(opened)
    wall, cpu = ({folder: statistics.median(each[at] for each in runs[folder]) for folder in runs} for at in (0, 1))
    print(f"| {name} | {wall[ours]:.2f} | {cpu[ours]:.2f} | {wall[theirs]:.2f} | {cpu[theirs]:.2f} |")
    return measure.Line(
        f"{name}, {size:,} datasets",
        "at least as fast as with ONE's own tables",
        f"{wall[ours]:.2f} s, ONE's own {wall[theirs]:.2f} s",
        wall[ours] <= wall[theirs],
        "benchmarks/readers.py",
        f"{wall[theirs] / wall[ours]:.2f}x as fast",
    )


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="folder for tree and tables, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    arguments = parser.parse_args()
    print(measure.machine())
    with tempfile.TemporaryDirectory() as temporary:
        ours, theirs = make_tables((arguments.work or Path(temporary)).resolve(), arguments.size)
        megabytes = [(folder / "datasets.pqt").stat().st_size / 1e6 for folder in (ours, theirs)]
        print(f"\ndatasets.pqt: ours {megabytes[0]:.1f} MB, unique ids; ONE's {megabytes[1]:.1f} MB, shared ids\n")
        print("| call | ours, s | CPU s | ONE's own, s | CPU s |\n|---|---|---|---|---|")
        lines = [compare(name, ours, theirs, arguments.size, arguments.rounds) for name in _CALLS]
    measure.write_lines(arguments.json, lines)


if __name__ == "__main__":
    main()
