"""Hashing: `alfwatchd --once --hash-files` against md5sum on the same files, and against ONE's own hashing.

``python benchmarks/hashing.py`` writes 2 GB of large files and 5,000 tiny ones into a temporary folder; ``--work``
names the folder for that. Files are read from the page cache, so it is the processor that is compared. What a run takes
without ``--hash-files`` (imports, the index, the tables) is taken off, as md5sum does nothing of the kind. Differences
are noisy, so of wall time and CPU time per thread it is the longer that counts.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import measure

_FASTEST_SHARE = 0.9
_ONE = "import sys; from one.alf.cache import make_parquet_db; make_parquet_db(*sys.argv[1:3], hash_files=True)"
_N_FILES_OF_ONE = 100
_MB = 1 << 20


def make_files(root: Path, sizes: Sequence[int]) -> None:
    """Write files of random content, 50 in a session."""
    rng = random.Random(0)
    for number, size in enumerate(sizes):
        folder = root / f"lab/Subjects/s{number // 50:03d}/2020-01-01/001/alf"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"object{number}.attribute.npy").open("wb") as file:
            for start in range(0, size, _MB):
                file.write(rng.randbytes(min(_MB, size - start)))


def measure_files(root: Path, n_bytes: int, n_threads: int, rounds: int) -> dict[str, measure.Run]:
    """Measure one tree: md5sum, ours with all it does, and ours again when nothing changed."""
    with tempfile.TemporaryDirectory(dir=root.parent) as home:
        ours = [measure.ALFWATCHD, "--root", str(root), "--once", "--out-dir", home]
        threads = ["env", f"ALFWATCHD_HASH_THREADS={n_threads}"]
        find = f"find {root} -type f -print0 | xargs -0 -n {64 if n_bytes < _MB * 100 else 1} -P {n_threads} md5sum"
        commands = {
            "md5sum": ["sh", "-c", find],
            "alfwatchd without hashes": [*ours, "--state-dir", f"{home}/state"],
            "alfwatchd": [*threads, *ours, "--hash-files", "--state-dir", f"{home}/state"],
            "alfwatchd again, nothing changed": [*threads, *ours, "--hash-files", "--state-dir", f"{home}/state"],
        }

        def forget(name: str) -> None:
            if name in ("alfwatchd without hashes", "alfwatchd"):
                for path in [*Path(home).glob("*.pqt"), *Path(home).glob("state/*.*")]:
                    path.unlink()

        return measure.compare(commands, rounds, forget)


def report(title: str, n_bytes: int, n_files: int, n_threads: int, results: dict[str, measure.Run]) -> measure.Line:
    """Print one table and return its line of the report."""
    bare, ours = results["alfwatchd without hashes"], results["alfwatchd"]
    alone = replace(ours, wall=ours.wall - bare.wall, cpu=ours.cpu - bare.cpu)
    print(f"\n### {title}, {n_threads} thread{'s' if n_threads > 1 else ''}\n")
    print(measure.table({**results, "alfwatchd, hashing alone": alone}, "md5sum"))
    seconds, target = max(alone.wall, alone.cpu / n_threads, 1e-3), results["md5sum"].wall
    again = results["alfwatchd again, nothing changed"].cpu - bare.cpu
    return measure.Line(
        f"hashing {title}, {n_threads} thread(s)",
        f">= {_FASTEST_SHARE:.0%} of md5sum; unchanged files never again",
        f"{n_bytes / seconds / 1e6:.0f} MB/s, {n_files / seconds:.0f} files/s; "
        f"again: {max(again, 0):.2f} s of CPU more than without hashes",
        seconds * _FASTEST_SHARE <= target,
        "benchmarks/hashing.py",
        f"{target / seconds:.2f}x as fast as md5sum",
    )


def measure_one(work: Path) -> measure.Line:
    """Measure a small tree with ONE, whose hash function clears 256 MB of memory for each file."""
    sizes = [1000] * _N_FILES_OF_ONE
    with tempfile.TemporaryDirectory(dir=work) as folder:
        root, home = Path(folder) / "tree", Path(folder) / "home"
        make_files(root, sizes)
        home.mkdir()
        ours = measure_files(root, sum(sizes), 1, 1)["alfwatchd"]
        theirs = measure.run([measure.PYTHON, "-c", _ONE, str(root), str(home)])
    return measure.Line(
        f"index and hashes of {_N_FILES_OF_ONE} tiny files, whole process",
        "",
        f"{ours.wall:.2f} s, ONE-api {theirs.wall:.2f} s",
        None,
        "benchmarks/hashing.py",
        f"{theirs.wall / ours.wall:.0f}x as fast as ONE-api",
    )


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large-mb", type=int, default=2048, help="size of all large files together")
    parser.add_argument("--tiny", type=int, default=5000, help="number of tiny files")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder for the files (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    arguments = parser.parse_args()
    print(measure.machine())
    rng, lines = random.Random(1), []
    sets = {
        f"{arguments.large_mb} MB in 8 files": [arguments.large_mb * _MB // 8] * 8,
        f"{arguments.tiny} tiny files": [rng.randrange(100, 10_000) for _ in range(arguments.tiny)],
    }
    for title, sizes in sets.items():
        with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
            root = Path(folder) / "tree"
            make_files(root, sizes)
            for n_threads in arguments.threads:
                results = measure_files(root, sum(sizes), n_threads, arguments.rounds)
                lines.append(report(title, sum(sizes), len(sizes), n_threads, results))
    lines.append(measure_one(arguments.work))
    measure.write_lines(arguments.json, lines)


if __name__ == "__main__":
    main()
