"""Runs all benchmarks and writes ``docs/evidence/benchmarks.md`` and its plot: the one command.

``python benchmarks/report.py`` takes most of an hour. ``--only index flush`` runs some again and takes the others
from the work folder, where all results are kept; ``--only`` alone writes the report from what is there. Needs
``pip install '.[test,bench]'``, gcc for the slow disk, and root for the cold cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import measure

_HERE = Path(__file__).parent
_DOCUMENT = _HERE.parent / "docs/evidence/benchmarks.md"
_TITLES = {
    "index": "Full index",
    "slow_disk": "Slow disk",
    "flush": "Flush",
    "live": "Live",
    "restart": "Warm restart",
    "memory": "Memory",
    "readers": "Readers",
    "hashing": "Hashing",
    "adopt": "Adopting a database",
    "publish": "Publishing",
    "query": "Queries",
    "feed": "Change feed",
}
_BEGIN, _END = "<!-- results: written by benchmarks/report.py -->", "<!-- end of results -->"
_MET = {True: "yes", False: "**no**", None: ""}


@dataclass(frozen=True, slots=True)
class Results:
    """Where the results of the benchmarks are kept: lines, printed details, costs by size."""

    work: Path

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return what a benchmark kept for the table; nothing if it never ran."""
        file = self._file(name, "json")
        return json.loads(file.read_text()) if file.exists() else []

    def details(self, name: str) -> str:
        """Return what a benchmark printed."""
        file = self._file(name, "md")
        return file.read_text() if file.exists() else "Not measured.\n"

    def costs(self) -> dict[int, dict[str, float]]:
        """Return the wall times of a full index by size and program."""
        file = self._file("index", "costs.json")
        rows = json.loads(file.read_text()) if file.exists() else {}
        return {int(size): {name: run["wall"] for name, run in runs.items()} for size, runs in rows.items()}

    def measure(self, name: str, arguments: Sequence[str]) -> bool:
        """Run one benchmark, showing what it prints; tell whether it came to its end."""
        file = self._file(name, "json")
        file.parent.mkdir(parents=True, exist_ok=True)
        command = [measure.PYTHON, "-u", str(_HERE / f"{name}.py"), "--work", str(self.work), "--json", str(file)]
        if name == "index":
            command += ["--costs", str(self._file("index", "costs.json"))]
        printed = []
        with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                sys.stdout.write(line)
                printed.append(line)
        if process.returncode == 0:
            self._file(name, "md").write_text("".join(printed))
        return process.returncode == 0

    def _file(self, name: str, suffix: str) -> Path:
        return self.work / "results" / f"{name}.{suffix}"


def main() -> None:
    """Run what is asked for, then write the report from all results that are kept."""
    arguments = _parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    results, failed = Results(arguments.work.resolve()), []
    sizes = ["--sizes", *map(str, arguments.sizes), "--upstream-up-to", str(arguments.upstream_up_to)]
    more = {"index": [*sizes, *([] if arguments.warm_only else ["--cold"])]}
    for name in arguments.only:
        print(f"\n## {_TITLES[name]}\n", flush=True)
        if not results.measure(name, more.get(name, [])):
            failed.append(name)
    write_report(results, arguments.out)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the report has their earlier results, if there are any")


def _parse() -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(_TITLES), default=list(_TITLES), metavar="NAME")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="of a full index")
    parser.add_argument("--upstream-up-to", type=int, default=100_000, help="ONE takes 7 minutes for 1 M datasets")
    parser.add_argument("--warm-only", action="store_true", help="leave the caches of this machine alone")
    parser.add_argument("--work", type=Path, default=cache / "alfwatchd-benchmarks", help="trees and results; kept")
    parser.add_argument("--out", type=Path, default=_DOCUMENT, help="the document; its plot is put beside it")
    return parser.parse_args()


def write_report(results: Results, document: Path) -> None:
    """Replace the results in a document, which may say more before and behind them, and draw the plot."""
    old = document.read_text() if document.exists() else f"# Benchmarks\n\n{_BEGIN}\n{_END}\n"
    before, _, rest = old.partition(_BEGIN)
    _, _, behind = rest.partition(_END)
    parts = [_machine(results.work), _table(results)]
    if costs := results.costs():
        import plot

        picture = document.with_suffix(".svg")
        plot.draw(costs, picture)
        parts.append(f"![Wall time of a full index against the number of datasets]({picture.name})")
    parts += [_details(results, name) for name in _TITLES]
    text = "\n\n".join(part.strip() for part in parts).replace(str(results.work), "WORK")
    document.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{behind}")


def _machine(work: Path) -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    told = subprocess.run(["df", "--output=fstype", str(work)], capture_output=True, text=True, check=True).stdout
    queue = Path("/proc/sys/fs/inotify/max_queued_events").read_text().strip()
    return (
        f"{date.today():%d %B %Y}: {measure.machine()}; {memory:.0f} GB of memory, {told.split()[-1]}, "
        f"inotify queue of {queue} events."
    )


def _table(results: Results) -> str:
    rows = ["| what | target | figure | ratio | met | `python benchmarks/` |", "|---|---|---|---|---|---|"]
    for name, title in _TITLES.items():
        lines = results.lines(name)
        rows += map(_row, lines) if lines else [f"| {title} | | not measured | | | `{name}.py` |"]
    return "\n".join(rows)


def _row(line: Mapping[str, Any]) -> str:
    has_target = line["target"].strip("- ") != ""
    command = line["command"].removeprefix("python ").removeprefix("benchmarks/")
    cells = [
        line["item"],
        line["target"] if has_target else "",
        line["figure"],
        line.get("ratio", ""),
        _MET[line["met"]] if has_target else "",
        f"`{command}`" if command else "",
    ]
    return f"| {' | '.join(cells)} |"


def _details(results: Results, name: str) -> str:
    """Return what a benchmark printed, without what the report has already: the machine, and the lines at the end."""
    text = results.details(name).replace(measure.machine(), "")
    text = text.partition("\n| what | target |")[0].partition("\n| item | target |")[0]
    deeper = [f"#{line}" if line.startswith("#") else line for line in text.strip().splitlines()]
    return f"### {_TITLES[name]}\n\n" + "\n".join(deeper)


if __name__ == "__main__":
    main()
