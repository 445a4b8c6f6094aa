"""Full index: alfwatchd, ONE's make_parquet_db and find, side by side.

``python benchmarks/index.py`` makes trees of 10 k and 100 k datasets in a temporary folder; ``--sizes 1000000`` takes
some minutes more. ONE runs up to 100 k unless ``--upstream-up-to`` says otherwise.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import measure

import trees

_UPSTREAM = "import sys; from one.alf.cache import make_parquet_db; make_parquet_db(sys.argv[1], sys.argv[2])"


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--upstream-up-to", type=int, default=100_000)
    parser.add_argument("--work", type=Path, help="folder for the trees, kept (default: a temporary one)")
    arguments = parser.parse_args()
    print(measure.machine())
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for size in arguments.sizes:
            root = work / f"tree_{size}"
            n_sessions = trees.make_tree(root, size)
            print(f"\n### {size} datasets, {n_sessions} sessions\n")
            with_upstream = size <= arguments.upstream_up_to
            print(measure_size(root, arguments.rounds, with_upstream=with_upstream))


def measure_size(root: Path, rounds: int, *, with_upstream: bool) -> str:
    """Measure one tree."""
    with tempfile.TemporaryDirectory() as out:
        tables = Path(out)
        for name in ("ours", "theirs"):
            (tables / name).mkdir()
        ours = [measure.ALFWATCHD, "--root", str(root), "--once", "--out-dir", f"{out}/ours"]
        commands = {
            "find": ["find", str(root), "-printf", "%s %p\n"],
            "alfwatchd": [*ours, "--state-dir", f"{out}/state"],
        }

        def clean(_: str) -> None:
            for path in tables.glob("ours/*"):
                path.unlink()

        results = measure.compare(commands, rounds, clean)
        if with_upstream:
            theirs = [measure.PYTHON, "-c", _UPSTREAM, str(root), f"{out}/theirs"]
            results["ONE-api"] = measure.median([measure.run(theirs) for _ in range(min(rounds, 2))])
        return measure.table(results, "find")


if __name__ == "__main__":
    main()
