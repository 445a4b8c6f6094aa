"""Warm restart of an unchanged tree against a first start: ``python benchmarks/restart.py`` (1 M datasets).

A daemon has come up when every file is verified and the tables on disk are right: its state is `live`, and `sync` is
answered. Cold is a start without tables and state, warm is the next one of the same tree.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import box
import measure
import trees

_RATIO = 0.7
_ANSWER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds until the first answer, until every file is verified, until the tables are known to be right on disk."""

    answered: float
    live: float
    written: float


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder for the tree, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    print(measure.machine())
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.work or Path(temporary)) / f"tree_{options.size}"
        trees.make_tree(root, options.size)
        _start_twice(root)  # warms up
        rounds = [_start_twice(root) for _ in range(options.rounds)]
    cold, warm = (_median([each[number] for each in rounds]) for number in (0, 1))
    print(f"\n### {options.size} datasets, medians of {options.rounds}, seconds\n")
    print("| start | first answer | every file verified | tables right |\n|---|---|---|---|")
    for name, start in (("cold", cold), ("warm", warm)):
        print(f"| {name} | {start.answered:.2f} | {start.live:.2f} | {start.written:.2f} |")
    measure.write_lines(options.json, _lines(cold, warm, f"python benchmarks/restart.py --size {options.size}"))


def _lines(cold: Start, warm: Start, command: str) -> list[measure.Line]:
    ratio = warm.written / cold.written
    return [
        measure.Line("warm restart: every file verified, tables right", f"<= {_RATIO} x a first start",
                     f"{warm.written:.2f} s against {cold.written:.2f} s", ratio <= _RATIO, command, f"{ratio:.2f} x"),
        measure.Line("warm restart: first answer, the old tables are served", f"< {_ANSWER_SECONDS:.0f} s",
                     f"{warm.answered:.2f} s", warm.answered < _ANSWER_SECONDS, command),
    ]  # fmt: skip


def _start_twice(root: Path) -> tuple[Start, Start]:
    """Start a daemon on nothing, end it in order, and start it again on what it left."""
    with box.box(root) as daemon:
        cold = _start(daemon)
        daemon.stop()
        return cold, _start(daemon)


def _start(daemon: box.Box) -> Start:
    started = time.perf_counter()
    answered = daemon.start()
    daemon.wait_until_live()
    live = time.perf_counter() - started
    daemon.client.sync()
    return Start(answered, live, time.perf_counter() - started)


def _median(starts: list[Start]) -> Start:
    return Start(*(statistics.median(getattr(each, key) for each in starts) for key in ("answered", "live", "written")))


if __name__ == "__main__":
    main()
