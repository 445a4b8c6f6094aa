"""Queries: `alfwatchd ls` and `report` as whole processes, beside scripts that ask DuckDB and pyarrow the same.

``python benchmarks/query.py`` makes tables of 1 M datasets (``--work`` names a folder in which they are kept). The
question of all: which sessions have one dataset and lack another one, and how many datasets and bytes has each?
Commands run in turn, so that noise hits all alike; compare the ratios. DuckDB is left out if it is not installed
(``pip install '.[recipes]'``).
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

import measure
from flush import Rows

from alfwatchd.alf.file_names import SESSIONS
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.rules import TableRules

_TARGET_SECONDS, _TARGET_SIZE = 0.6, 1_000_000
_HAVING, _LACKING = "object3.attribute", "probes.description.0*"

_PYARROW = """
import sys
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile
datasets = ParquetFile(sys.argv[1] + "/datasets.pqt").read(["eid", "rel_path", "file_size", "exists"])
sessions = ParquetFile(sys.argv[1] + "/sessions.pqt").read()
datasets = datasets.filter(datasets["exists"])
eid = datasets["eid"].cast("string")
def having(name):
    return pc.unique(eid.filter(pc.match_substring_regex(datasets["rel_path"], name)))
is_in = pc.is_in(sessions["id"], having(r"(^|/)(_[a-zA-Z0-9]+_)?object3\\.attribute[_.]"))
is_out = pc.is_in(sessions["id"], having(r"(^|/)probes\\.description\\.0[^/]*$"))
counted = datasets.set_column(0, "eid", eid).group_by("eid").aggregate([("file_size", "sum"), ("file_size", "count")])
found = sessions.filter(pc.and_(is_in, pc.invert(is_out))).join(counted, "id", "eid")
print("\\n".join(found["id"].to_pylist()))
"""
_DUCKDB = r"""
import sys
import duckdb
found = duckdb.sql('''
    with counted as (
        select eid, sum(file_size) as n_bytes, count(*) as n_datasets,
            bool_or(regexp_matches(rel_path, '(^|/)(_[a-zA-Z0-9]+_)?object3\.attribute[_.]')) as has_first,
            bool_or(regexp_matches(rel_path, '(^|/)probes\.description\.0[^/]*$')) as has_second
        from read_parquet('%s/datasets.pqt') where "exists" group by eid
    )
    select id, n_datasets, n_bytes from read_parquet('%s/sessions.pqt') join counted on eid = id
    where has_first and not has_second order by lab, subject, date, number
''' % (sys.argv[1], sys.argv[1])).fetchall()
print("\n".join(row[0] for row in found))
"""
OURS, REPORT, PYARROW, DUCKDB = "alfwatchd ls", "alfwatchd report", "script with pyarrow", "script with DuckDB"


def make_tables(folder: Path, size: int) -> None:
    """Write tables, unless they are there."""
    if (folder / SESSIONS).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    TableWriter(folder, "/data").write(Rows(size).snapshot(), TableRules())


def commands_for(folder: Path) -> dict[str, list[str]]:
    """Return what is compared, by name."""
    commands = {
        OURS: [measure.ALFWATCHD, "ls", "--out-dir", str(folder), "--having", _HAVING, "--lacking", _LACKING, "--eids"],
        REPORT: [measure.ALFWATCHD, "report", "--out-dir", str(folder), "--require", _HAVING],
        PYARROW: [measure.PYTHON, "-c", _PYARROW, str(folder)],
    }
    if find_spec("duckdb"):
        commands[DUCKDB] = [measure.PYTHON, "-c", _DUCKDB, str(folder)]
    return commands


def check_answers(commands: dict[str, list[str]]) -> int:
    """Make sure that all give the same answer; return the number of sessions in it."""
    answers = {}
    for name, command in commands.items():
        if name != REPORT:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            answers[name] = sorted(done.stdout.split())
    assert all(answer == answers[OURS] for answer in answers.values()), "the answers differ"
    return len(answers[OURS])


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=_TARGET_SIZE)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--work", type=Path, help="folder for the tables, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    arguments = parser.parse_args()
    print(measure.machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.work or Path(temporary)).resolve() / f"query_{arguments.size}"
        make_tables(folder, arguments.size)
        commands = commands_for(folder)
        n_found = check_answers(commands)
        results = measure.compare(commands, arguments.rounds)
    print(f"\n{arguments.size:,} datasets; {n_found:,} sessions are the answer\n\n{measure.table(results, PYARROW)}")
    others = [name for name in results if name not in (OURS, REPORT)]
    lines = [
        measure.Line(
            f"{name}, {arguments.size:,} datasets, whole process",
            f"< {_TARGET_SECONDS} s" if arguments.size == _TARGET_SIZE else "",
            f"{results[name].wall:.2f} s",
            results[name].wall < _TARGET_SECONDS if arguments.size == _TARGET_SIZE else None,
            "benchmarks/query.py",
            ", ".join(f"{results[name].wall / results[other].wall:.2f} x {other}" for other in others),
        )
        for name in (OURS, REPORT)
    ]
    measure.write_lines(arguments.json, lines)


if __name__ == "__main__":
    main()
