"""What it costs to adopt a database: a full index with and without, and the database changed entirely.

``python benchmarks/adopt.py`` (1 M datasets). The database's tables are made from those of the tree: other ids, a hash
and a qc for every dataset. ONE, which has nothing to adopt with, is timed at reading these tables.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import measure
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import trees
from measure import Line, Run

_MOST = 1 / 3
_READ = "import sys; from one.alf.cache import load_tables; load_tables(sys.argv[1])"
FIND, PLAIN, ADOPTED = "find", "alfwatchd", "alfwatchd, adopting"
CHANGED, UPSTREAM = "alfwatchd, then another state of it", "ONE-api, reading the database's tables"


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="folder for the tree, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the lines of the report")
    parser.add_argument("--database", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.database:
        tables, folder, seed = options.database
        make_database(Path(tables), Path(folder), int(seed))
        return
    print(measure.machine())
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.work or Path(temporary)) / f"tree_{options.size}"
        trees.make_tree(root, options.size)
        results = _measure(root, Path(temporary), options.rounds)
    print(f"\n### {options.size} datasets, medians of {options.rounds}\n\n{measure.table(results, FIND)}")
    measure.write_lines(options.json, _lines(results, f"python benchmarks/adopt.py --size {options.size}"))


def _measure(root: Path, work: Path, rounds: int) -> Mapping[str, Run]:
    out, source = work / "out", work / "source"
    ours = [measure.ALFWATCHD, "--root", str(root), "--out-dir", str(out), "--state-dir", str(work / "state")]
    ours += ["--once", "--log-level", "error"]
    adopting = ["env", f"ALFWATCHD_ADOPT__SOURCE={source}", *ours]
    states = [work / "database", work / "other"]
    _forget(work)
    measure.run(ours)
    for seed, folder in enumerate(states):  # in processes of their own: what they need is no part of the others' peak
        measure.run([measure.PYTHON, __file__, "--database", str(out), str(folder), str(seed)])

    def prepare(name: str) -> None:
        _forget(work)
        _put(states[0], source)
        if name == CHANGED:
            measure.run(adopting)
            _put(states[1], source)

    commands = {
        FIND: ["find", str(root), "-printf", "%s %p\n"],
        PLAIN: ours,
        ADOPTED: adopting,
        CHANGED: adopting,
        UPSTREAM: [measure.PYTHON, "-c", _READ, str(source)],
    }
    return measure.compare(commands, rounds, prepare)


def _put(state: Path, source: Path) -> None:
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(state, source, copy_function=os.link)


def _forget(work: Path) -> None:
    for name in ("out", "state"):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "out").mkdir()


def make_database(tables: Path, folder: Path, seed: int) -> None:
    """Write tables as a database would, which knows all sessions and datasets of ours by other ids."""
    rng = np.random.default_rng(seed)
    sessions, datasets = (pq.read_table(tables / f"{name}.pqt") for name in ("sessions", "datasets"))
    eids = dict(zip(sessions["id"].to_pylist(), _random_ids(rng, len(sessions)), strict=True))
    categories = pa.array(["NOT_SET", "PASS", "WARNING", "FAIL", "CRITICAL"])
    columns = {
        "eid": pa.array([eids[eid] for eid in datasets["eid"].to_pylist()]),
        "id": pa.array(_random_ids(rng, len(datasets))),
        "rel_path": datasets["rel_path"],
        "file_size": datasets["file_size"],
        "hash": pa.array([rng.bytes(16).hex() for _ in range(len(datasets))]),
        "exists": datasets["exists"],
        "qc": pa.DictionaryArray.from_arrays(
            rng.integers(0, 5, len(datasets)).astype(np.int8), categories, ordered=True
        ),
        "default_revision": datasets["default_revision"],
    }
    known = sessions.set_column(sessions.column_names.index("id"), "id", pa.array([*eids.values()]))
    folder.mkdir(exist_ok=True)
    made = {"date_created": "2026-01-01 12:00", "origin": "database", "min_api_version": "1.13.0"}
    for name, table, index in (("sessions", known, ["id"]), ("datasets", pa.table(columns), ["eid", "id"])):
        frame = pa.Table.from_pandas(table.to_pandas(ignore_metadata=True).set_index(index).sort_index())
        metadata = {**(frame.schema.metadata or {}), "one_metadata": json.dumps(made)}
        pq.write_table(frame.replace_schema_metadata(metadata), folder / f"{name}.pqt")


def _random_ids(rng: np.random.Generator, number: int) -> list[str]:
    raw = rng.integers(0, 256, (number, 16), dtype=np.uint8)
    raw[:, 6], raw[:, 8] = raw[:, 6] & 0x0F | 0x40, raw[:, 8] & 0x3F | 0x80
    texts = (each.tobytes().hex() for each in raw)
    return ["-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])) for text in texts]


def _lines(results: Mapping[str, Run], command: str) -> list[Line]:
    plain, adopted, changed = (results[name] for name in (PLAIN, ADOPTED, CHANGED))
    n_cores = len(os.sched_getaffinity(0))
    lines = []
    for what, run, most in (
        ("adopting", adopted, _MOST),
        ("adopting another state, in which all ids differ", changed, None),
    ):
        ratio = (run.wall - plain.wall) / plain.wall
        lines.append(
            Line(
                f"{what}: added to a full index of {plain.wall:.2f} s on {n_cores} cores",
                "< 1/3 of it" if most else "",
                f"{run.wall - plain.wall:.2f} s, {run.cpu - plain.cpu:.2f} s CPU, {run.memory - plain.memory:.0f} MB",
                ratio < most if most else None,
                command,
                f"{ratio:.2f} x",
            )
        )
    return lines


if __name__ == "__main__":
    main()
