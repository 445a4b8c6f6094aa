"""Full index: alfwatchd, ONE's make_parquet_db and find, side by side.

``python benchmarks/index.py`` makes trees of 10 k and 100 k datasets in a temporary folder; ``--sizes 1000000`` takes
some minutes more. ONE runs up to 100 k unless ``--upstream-up-to`` says otherwise. ``--cold`` (only root may) measures
once more, the tree in no cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import measure
import phases
import trees
from measure import Line, Run

_UPSTREAM = "import sys; from one.alf.cache import make_parquet_db; make_parquet_db(sys.argv[1], sys.argv[2])"
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_COLD_ROUNDS = 3
_COLD_UPSTREAM_UP_TO = 100_000

FIND, WALK, ONE_PROCESS, OURS, UPSTREAM = "find", "Python walk", "alfwatchd, one process", "alfwatchd", "ONE-api"
ALONE = ["--scan-workers", "1"]
Results = Mapping[str, Run]


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--upstream-up-to", type=int, default=100_000)
    parser.add_argument("--cold", action="store_true", help="also with a cold cache: drops the caches of the machine")
    parser.add_argument("--work", type=Path, help="folder for the trees, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the lines of the report")
    parser.add_argument("--costs", type=Path, help="file for the costs by size, which the plot shows")
    arguments = parser.parse_args()
    print(measure.machine())
    warm: dict[int, Results] = {}
    cold: dict[int, Results] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for size in sorted(arguments.sizes):
            bench = _make_bench((arguments.work or Path(temporary)) / f"tree_{size}", size)
            with_upstream = size <= arguments.upstream_up_to
            warm[size] = measure_warm(bench, arguments.rounds, with_upstream=with_upstream)
            if arguments.cold and _can_drop_caches():
                with_upstream &= size <= _COLD_UPSTREAM_UP_TO  # minutes each, and no other than warm
                cold[size] = measure_cold(bench, min(_COLD_ROUNDS, arguments.rounds), with_upstream=with_upstream)
    measure.write_lines(arguments.json, make_lines(warm, cold))
    if arguments.costs:
        costs = {size: {name: asdict(each) for name, each in results.items()} for size, results in warm.items()}
        arguments.costs.write_text(json.dumps(costs, indent=1))


@dataclass(frozen=True, slots=True)
class Bench:
    """One tree, and the folder that the tables of all programs go to."""

    root: Path
    out: Path

    @property
    def flags(self) -> list[str]:
        """What alfwatchd is called with."""
        return ["--root", str(self.root), "--once", "--out-dir", f"{self.out}/ours", "--state-dir", f"{self.out}/state"]

    @property
    def commands(self) -> dict[str, list[str]]:
        """The commands that are compared, but ONE."""
        ours = [measure.ALFWATCHD, *self.flags]
        return {
            FIND: ["find", str(self.root), "-printf", "%s %p\n"],
            WALK: [measure.PYTHON, "-S", str(Path(__file__).with_name("walk.py")), str(self.root)],
            ONE_PROCESS: [*ours, *ALONE],
            OURS: ours,
        }

    @property
    def upstream(self) -> list[str]:
        """ONE's command."""
        return [measure.PYTHON, "-c", _UPSTREAM, str(self.root), f"{self.out}/theirs"]

    def clean(self) -> None:
        """Forget what earlier runs left."""
        shutil.rmtree(self.out, ignore_errors=True)
        for name in ("ours", "theirs"):
            (self.out / name).mkdir(parents=True)


def _make_bench(root: Path, size: int) -> Bench:
    n_sessions = trees.make_tree(root, size)
    print(f"\n### {size} datasets, {n_sessions} sessions")
    return Bench(root, root.with_name(f"{root.name}.out"))


def measure_warm(bench: Bench, rounds: int, *, with_upstream: bool) -> Results:
    """Measure one tree that lies in the page cache, and print what each phase costs."""
    try:
        results = measure.compare(bench.commands, rounds, lambda _: bench.clean())
        if with_upstream:  # in rounds of its own: its minutes would leave the others alone with the noise
            runs = [measure.run(bench.upstream) for _ in range(1 if results[FIND].wall > 2 else min(rounds, 2))]
            results[UPSTREAM] = measure.median(runs)
        print(f"\nWarm cache:\n\n{measure.table(results, FIND)}\n")
        print(_phases_table(bench, rounds))
    finally:
        shutil.rmtree(bench.out, ignore_errors=True)
    return results


def _phases_table(bench: Bench, rounds: int) -> str:
    lines = [f"| phase | {' | '.join(phases.PHASES)} |", "|---" * (len(phases.PHASES) + 1) + "|"]
    for name, flags in ((ONE_PROCESS, ALONE), (OURS, [])):
        runs = []
        for _ in range(rounds):
            bench.clean()
            runs.append(phases.measure_phases([*bench.flags, *flags]))
        seconds = [statistics.median(each[phase].seconds for each in runs) for phase in phases.PHASES]
        memory = [statistics.median(each[phase].memory for each in runs) for phase in phases.PHASES]
        lines.append(f"| {name}: seconds | " + " | ".join(f"{each:.3f}" for each in seconds) + " |")
        lines.append("| peak MB until its end, main process | " + " | ".join(f"{each:.0f}" for each in memory) + " |")
    return "\n".join(lines)


# Cold cache.


def _can_drop_caches() -> bool:
    allowed = os.access(_DROP_CACHES, os.W_OK)
    if not allowed:
        print("\nCold cache: not measured, only root may drop the caches")
    return allowed


def measure_cold(bench: Bench, rounds: int, *, with_upstream: bool) -> Results:
    """Measure one tree that lies in no cache; the programs themselves are in the cache, as they would be in use."""
    commands = bench.commands | ({UPSTREAM: bench.upstream} if with_upstream else {})
    nothing = Bench(bench.root.with_name("tree_0"), bench.out)
    nothing.root.mkdir(exist_ok=True)
    warm_up = nothing.commands | {UPSTREAM: nothing.upstream}

    def cool(name: str) -> None:
        bench.clean()
        os.sync()
        _DROP_CACHES.write_text("3")
        measure.run(warm_up[name])
        bench.clean()

    try:
        results = measure.compare(commands, rounds, cool, warm_up=False)
    finally:
        shutil.rmtree(bench.out, ignore_errors=True)
        nothing.root.rmdir()
    print(f"\nCold cache:\n\n{measure.table(results, FIND)}")
    return results


# The lines of the report.


def make_lines(warm: Mapping[int, Results], cold: Mapping[int, Results]) -> list[Line]:
    """Return what the issue asked for and what came out."""
    lines = []
    if 1_000_000 in warm:
        lines += [
            _against_find(warm, 1_000_000, OURS, 1.6),
            _against_find(warm, 1_000_000, ONE_PROCESS, 2.0),
            _memory(warm[1_000_000]),
        ]
    lines += [_against_upstream(warm, size, least) for size, least in ((100_000, 25), (1_000_000, 50)) if size in warm]
    lines += [_growth(warm, name) for name in (OURS, ONE_PROCESS, FIND) if len(warm) > 2]
    lines += [_cold_line(results, size) for size, results in cold.items()]
    return lines


def say(size: int) -> str:
    """Return a number of datasets as people write it."""
    for unit, word in ((1_000_000, " M"), (1000, " k")):
        if size % unit == 0:
            return f"{size // unit}{word}"
    return str(size)


def _command(size: int, *more: str) -> str:
    return " ".join([f"index.py --sizes {size}", *more])


def _against_find(warm: Mapping[int, Results], size: int, name: str, most: float) -> Line:
    ours, find = warm[size][name], warm[size][FIND]
    ratio = ours.wall / find.wall
    figure = f"{ours.wall:.2f} s (find {find.wall:.2f} s)"
    target = f"at most {most} x `find -printf`"
    return Line(
        f"Full index, {say(size)}: {name}", target, figure, ratio <= most, _command(size), f"{ratio:.2f} x find"
    )


def _memory(results: Results) -> Line:
    most = max(results[name].memory for name in (OURS, ONE_PROCESS))
    figure = f"{results[OURS].memory:.0f} MB, one process {results[ONE_PROCESS].memory:.0f} MB"
    ratio = f"{results[UPSTREAM].memory / most:.1f} x less than ONE" if UPSTREAM in results else ""
    return Line("Full index, 1 M: peak memory", "under 350 MB", figure, most < 350, _command(1_000_000), ratio)


def _against_upstream(warm: Mapping[int, Results], size: int, least: int) -> Line:
    item, target = f"Full index, {say(size)}: against ONE", f"{least} x faster than ONE"
    command = _command(size, f"--upstream-up-to {size}")
    if UPSTREAM not in warm[size]:
        return Line(item, target, "not measured", None, command)
    ours, theirs = warm[size][OURS].wall, warm[size][UPSTREAM].wall
    figure = f"{ours:.2f} s (ONE {theirs:.1f} s)"
    return Line(item, target, figure, theirs / ours >= least, command, f"{theirs / ours:.0f} x faster")


def _growth(warm: Mapping[int, Results], name: str) -> Line:
    """Compare what each further dataset costs between neighbouring sizes: the same, if the cost is linear."""
    steps = list(pairwise(sorted(warm)))
    costs = [(warm[larger][name].wall - warm[size][name].wall) / (larger - size) * 1e6 for size, larger in steps]
    figure = ", ".join(
        f"{cost:.1f} us ({say(size)} to {say(larger)})" for cost, (size, larger) in zip(costs, steps, strict=True)
    )
    growth = costs[-1] / costs[0]
    target, met = ("at most 1.2 x from step to step", growth <= 1.2) if name != FIND else ("-", None)
    command = f"index.py --sizes {' '.join(map(str, sorted(warm)))}"
    return Line(f"Cost linear, each further dataset: {name}", target, figure, met, command, f"{growth:.2f} x")


def _cold_line(results: Results, size: int) -> Line:
    ours, find = results[OURS].wall, results[FIND].wall
    figure = f"{ours:.2f} s, one process {results[ONE_PROCESS].wall:.2f} s (find {find:.2f} s)"
    item = f"Cold cache, {say(size)}"
    return Line(item, "-", figure, None, _command(size, "--cold"), f"{ours / find:.2f} x find")


if __name__ == "__main__":
    main()
