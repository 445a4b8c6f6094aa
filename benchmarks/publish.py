"""What a publication costs: tables to a folder, changed and unchanged, and to a ONE client through `alfwatchd serve`.

``python benchmarks/publish.py`` (1 M datasets). Beside it, ONE's own reading of the same tables and of the published
ones; ONE itself has nothing to publish with. Every command is a process of its own, imports included.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import measure
import trees
from measure import Line, Run

_PUBLISH = """
import sys
from pathlib import Path
from alfwatchd.publish.publication import publish
from alfwatchd.settings import Publish
assert publish(Path(sys.argv[1]), Publish(target=sys.argv[2])).published == (len(sys.argv) < 4)
"""
_IMPORT = "import alfwatchd.publish.publication, alfwatchd.settings"
_READ = "import sys; from one.alf.cache import load_tables; load_tables(sys.argv[1])"
_FETCH = """
import sys
from one.api import ONE
address, folder = sys.argv[1:]
one = ONE(
    base_url=address, username="me", password="any", silent=True, mode="local", cache_dir=folder, tables_dir=folder
)
one.load_cache()
assert len(one.list_datasets())
"""
IMPORT, PUBLISH, UNCHANGED = "python, imports only", "publish", "publish, nothing changed"
READ, READ_PUBLISHED = "ONE-api, reading the tables", "ONE-api, reading the published tables"
FETCH = "ONE-api, fetching and reading them from `alfwatchd serve`"
_WAIT_SECONDS = 60.0


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="folder for the tree, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the lines of the report")
    options = parser.parse_args()
    print(measure.machine())
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.work or Path(temporary)) / f"tree_{options.size}"
        trees.make_tree(root, options.size)
        results, n_bytes = _measure(root, Path(temporary), options.rounds)
    print(f"\n### {options.size} datasets, medians of {options.rounds}\n\n{measure.table(results, READ)}")
    print(f"\nThe archive has {n_bytes / 1e6:.1f} MB.")
    command = f"python benchmarks/publish.py --size {options.size}"
    measure.write_lines(options.json, _lines(results, options.size, command))


def _measure(root: Path, work: Path, rounds: int) -> tuple[Mapping[str, Run], int]:
    out, fresh, same, unpacked, client = (work / name for name in ("out", "fresh", "same", "unpacked", "client"))
    for folder in (out, fresh, same):
        folder.mkdir()
    places = ["--root", str(root), "--out-dir", str(out), "--state-dir", str(work / "state")]
    measure.run([measure.ALFWATCHD, *places, "--once", "--log-level", "error"])
    publish = [measure.PYTHON, "-c", _PUBLISH, str(out)]
    measure.run([*publish, str(same)])
    with zipfile.ZipFile(same / "cache.zip") as zipped:
        zipped.extractall(unpacked)

    def prepare(name: str) -> None:
        for folder in {PUBLISH: [fresh], FETCH: [client]}.get(name, []):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()

    with _served(places, work) as address:
        commands = {
            IMPORT: [measure.PYTHON, "-c", _IMPORT],
            PUBLISH: [*publish, str(fresh)],
            UNCHANGED: [*publish, str(same), "unchanged"],
            READ: [measure.PYTHON, "-c", _READ, str(out)],
            READ_PUBLISHED: [measure.PYTHON, "-c", _READ, str(unpacked)],
            FETCH: ["env", f"HOME={client}", measure.PYTHON, "-W", "ignore", "-c", _FETCH, address, str(client)],
        }
        results = measure.compare(commands, rounds, prepare, warm_up=rounds > 1)
    return results, (same / "cache.zip").stat().st_size


@contextmanager
def _served(places: list[str], work: Path) -> Iterator[str]:
    """Serve the tables, and yield the address once they can be fetched."""
    log = work / "serve.log"
    with log.open("wb") as said:
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        command = [measure.ALFWATCHD, "serve", *places, "--port=0"]
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
    try:
        deadline = time.monotonic() + _WAIT_SECONDS
        while " tables published " not in (text := log.read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"alfwatchd serve did not publish\n{text}")
            time.sleep(0.05)
        found = re.search(r" serving address=http://\S+:(\d+) ", text)
        assert found is not None
        yield f"http://localhost:{found[1]}"
    finally:
        process.terminate()
        process.wait()


def _lines(results: Mapping[str, Run], size: int, command: str) -> list[Line]:
    base, read = results[IMPORT], results[READ]
    lines = []
    for what, name in (("a publication", PUBLISH), ("a look that finds nothing changed", UNCHANGED)):
        run = results[name]
        lines.append(
            Line(
                f"{what} of {size:,} datasets, beyond imports",
                "",
                f"{run.wall - base.wall:.2f} s, {run.cpu - base.cpu:.2f} s CPU, {run.memory - base.memory:.0f} MB",
                None,
                command,
                f"{run.wall / read.wall:.2f} x ONE's reading of the tables ({read.wall:.2f} s), imports included",
            )
        )
    return lines


if __name__ == "__main__":
    main()
