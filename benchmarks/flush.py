"""Flush: what it costs to bring the tables on disk up to date, with fsync, at 1 M and 5 M rows.

``python benchmarks/flush.py`` makes the rows in memory and writes real files into a temporary folder below the current
one (``--work`` names another: its disk is what is measured). Next to it: pyarrow writing the same tables whole.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import measure
import pyarrow.parquet as pq
import trees

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import PackedFiles, pack_signature
from alfwatchd.tree.rows import FolderRows, Session
from alfwatchd.tree.sessions import Snapshot

_TARGET_MS = {1_000_000: 100, 5_000_000: 250}
_MOST_GROWTH = 1.3
_FOLDERS = {
    "alf": 12, "alf/probe00": 10, "alf/probe01": 10, "alf/probe00/#2021-07-06#": 3, "alf/probe01/#2021-07-06#": 3,
    "raw_behavior_data": 5, "raw_video_data": 5, "raw_ephys_data": 2, "raw_ephys_data/probe00": 6,
}  # fmt: skip
_TICK_SECONDS = 0.001


class Rows:
    """A table in memory that changes as a data tree does."""

    def __init__(self, n_rows: int) -> None:
        self._sessions: dict[str, Session] = {}
        self._generation = 0
        self._rng = random.Random(0)
        self._n_made = 0
        while n_rows > 0:
            n_rows -= self.add().n_datasets

    def add(self) -> Session:
        """Add a session."""
        session = self._make(trees.session_path(self._n_made))
        self._n_made += 1
        self._sessions[session.path] = session
        return session

    def change(self) -> None:
        """Let the files of some session have other sizes."""
        path = self._rng.choice(list(self._sessions))
        self._sessions[path] = self._make(path)

    def remove(self) -> None:
        """Remove some session."""
        del self._sessions[self._rng.choice(list(self._sessions))]

    def snapshot(self) -> Snapshot:
        """Freeze the rows as they are, as `Tables.snapshot` does."""
        self._generation += 1
        return Snapshot(self._generation, self._sessions.copy())

    def _make(self, path: str) -> Session:
        folders, is_link = [], False
        for folder, n_files in _FOLDERS.items():
            names = [f"_ibl_object{number}.attribute.npy" for number in range(n_files - (folder == "alf"))]
            if folder == "alf":  # One name a session is unique, as the names of files with a UUID are.
                names.append(f"probes.description.{self._rng.getrandbits(32):08x}.json")
            sizes = [int(self._rng.lognormvariate(12, 3)) for _ in names]
            files = {name: pack_signature(size, 0, 1, is_link) for name, size in zip(names, sizes, strict=True)}
            folders.append(FolderRows(folder, PackedFiles.pack(files)))
        return Session(path, tuple(folders))


@dataclass(frozen=True, slots=True)
class Flush:
    """One flush: seconds on the clock and of CPU, and the longest time for which it held up another thread."""

    wall: float
    cpu: float
    held_up: float


def flush(writer: TableWriter, rows: Rows) -> Flush:
    """Flush in a thread of its own, as the daemon does, while this one notes when it is kept from running."""
    started, cpu = time.perf_counter(), time.process_time()
    snapshot = rows.snapshot()
    longest = last = time.perf_counter() - started
    thread = threading.Thread(target=writer.write, args=(snapshot, TableRules()))
    thread.start()
    while thread.is_alive():
        last = time.perf_counter()
        time.sleep(_TICK_SECONDS)
        longest = max(longest, time.perf_counter() - last - _TICK_SECONDS)
    return Flush(time.perf_counter() - started, time.process_time() - cpu, longest)


def median(flushes: list[Flush]) -> Flush:
    """Return the median of each figure."""
    return Flush(*(statistics.median(getattr(each, key) for each in flushes) for key in ("wall", "cpu", "held_up")))


def write_whole(out_dir: Path) -> Flush:
    """Write the tables whole with pyarrow, from memory, as a program does that knows no row groups."""
    tables = {name: pq.read_table(out_dir / name) for name in (SESSIONS, DATASETS)}
    started, cpu = time.perf_counter(), time.process_time()
    for name, table in tables.items():
        with (out_dir / f"{name}.tmp").open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
    seconds = Flush(time.perf_counter() - started, time.process_time() - cpu, 0.0)
    for name in tables:
        (out_dir / f"{name}.tmp").unlink()
    return seconds


def measure_size(n_rows: int, out_dir: Path, rounds: int) -> list[measure.Line]:
    """Measure one table."""
    rows, writer = Rows(n_rows), TableWriter(out_dir, "/data", out_dir / "layout")
    results = {"everything, by pyarrow, from Arrow tables in memory": Flush(0.0, 0.0, 0.0)}
    results["everything, first write"] = flush(writer, rows)
    results["everything, by pyarrow, from Arrow tables in memory"] = write_whole(out_dir)
    changes: dict[str, Callable[[], object]] = {
        "1 session changed": rows.change,
        "1 session new": rows.add,
        "1 session removed": rows.remove,
        "100 sessions changed": lambda: [rows.change() for _ in range(100)],
    }
    for name, change in changes.items():
        flushes = []
        for _ in range(rounds):
            change()
            flushes.append(flush(writer, rows))
        results[name] = median(flushes)
    print(f"\n### {n_rows:,} rows, {(out_dir / DATASETS).stat().st_size / 1e6:.1f} MB\n")
    print("| written | ms | CPU ms | other threads held up, ms |\n|---|---|---|---|")
    for name, each in results.items():
        print(f"| {name} | {each.wall * 1e3:.0f} | {each.cpu * 1e3:.0f} | {each.held_up * 1e3:.0f} |")
    target, whole = _TARGET_MS.get(n_rows, 0), results["everything, by pyarrow, from Arrow tables in memory"].wall
    worst = max((results[name] for name in changes if name.startswith("1 ")), key=lambda each: each.wall)
    return [
        measure.Line(
            f"flush, {n_rows:,} rows, one session changed, new or removed (the slowest)",
            f"< {target} ms with fsync" if target else "",
            f"{worst.wall * 1e3:.0f} ms",
            worst.wall * 1e3 < target if target else None,
            f"benchmarks/flush.py --sizes {n_rows}",
            f"{whole / worst.wall:.1f}x faster than pyarrow writing all",
        )
    ]


def measure_growth(n_rows: int, n_flushes: int, work: Path) -> measure.Line:
    """Compare the file after many flushes with one that holds the same rows and was written at once."""
    rows = Rows(n_rows)
    with tempfile.TemporaryDirectory(dir=work) as old, tempfile.TemporaryDirectory(dir=work) as new:
        writer, largest = TableWriter(Path(old), "/data", Path(old) / "layout"), 0
        rng = random.Random(1)
        for _ in range(n_flushes):
            rng.choice([rows.change, rows.change, rows.add, rows.remove])()
            writer.write(rows.snapshot(), TableRules())
            largest = max(largest, (Path(old) / DATASETS).stat().st_size)
        TableWriter(Path(new), "/data").write(rows.snapshot(), TableRules())
        fresh = (Path(new) / DATASETS).stat().st_size
    return measure.Line(
        f"size of the file, the largest in {n_flushes:,} flushes ({n_rows:,} rows)",
        f"<= {_MOST_GROWTH}x a freshly written one",
        f"{largest / 1e6:.1f} MB, fresh {fresh / 1e6:.1f} MB",
        largest <= _MOST_GROWTH * fresh,
        "benchmarks/flush.py",
        f"{largest / fresh:.2f}x",
    )


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(_TARGET_MS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--flushes", type=int, default=1000, help="how many flushes for the size of the file")
    parser.add_argument("--growth-size", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, default=Path(), help="folder in which the tables are written and removed")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    arguments = parser.parse_args()
    sys.setswitchinterval(0.005)
    print(measure.machine())
    lines = []
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(dir=arguments.work) as out_dir:
            lines += measure_size(size, Path(out_dir), arguments.rounds)
    if arguments.flushes:
        lines.append(measure_growth(arguments.growth_size, arguments.flushes, arguments.work))
    measure.write_lines(arguments.json, lines)


if __name__ == "__main__":
    main()
