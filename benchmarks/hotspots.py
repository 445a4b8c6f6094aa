"""Where the time of a full index goes: a profile by py-spy, which looks at the process from outside.

``python benchmarks/hotspots.py --size 100000`` prints how much of the samples each function takes by itself, and with
all that it calls. One scanning process, unless ``--workers`` says otherwise. ``--native`` tells C functions apart.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import measure
import trees

import index

_PY_SPY = str(Path(measure.PYTHON).with_name("py-spy"))
Profile = Counter[tuple[str, ...]]
"""Call stack, outermost function first -> samples."""


def main() -> None:
    """Profile and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--rate", type=int, default=500, help="samples per second")
    parser.add_argument("--work", type=Path, help="folder for the tree, kept (default: a temporary one)")
    arguments = parser.parse_args()
    print(measure.machine())
    with tempfile.TemporaryDirectory() as temporary:
        root = (arguments.work or Path(temporary)) / f"tree_{arguments.size}"
        trees.make_tree(root, arguments.size)
        bench = index.Bench(root, Path(temporary) / "out")
        bench.clean()
        command = [measure.ALFWATCHD, *bench.flags, "--scan-workers", str(arguments.workers)]
        measure.run(command)  # warms up
        bench.clean()
        options = ["--rate", str(arguments.rate), "--subprocesses", *["--native"] * arguments.native]
        print(f"\n{table(profile(command, options, Path(temporary) / 'profile'), arguments.rows)}")


def profile(command: list[str], options: list[str], file: Path) -> Profile:
    """Run a command under py-spy."""
    record = [_PY_SPY, "record", "--format", "raw", "--output", str(file), *options, "--", *command]
    subprocess.run(record, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    samples: Profile = Counter()
    for line in file.read_text().splitlines():
        stack, _, number = line.rpartition(" ")
        frames = (_function(frame) for frame in stack.split(";") if not frame.startswith("process "))
        samples[tuple(frames) or ("outside of Python",)] += int(number)
    return samples


def _function(frame: str) -> str:
    """Return a frame without its line, so that all samples of a function count together."""
    return frame.rpartition(":")[0] + ")" if frame.endswith(")") and ":" in frame else frame


def table(samples: Profile, n_rows: int) -> str:
    """Return the functions with most samples of their own."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for stack, number in samples.items():
        own[stack[-1]] += number
        whole.update(dict.fromkeys(stack, number))
    total = samples.total()
    rows = [
        f"| `{name}` | {number / total:.1%} | {whole[name] / total:.1%} |" for name, number in own.most_common(n_rows)
    ]
    return "\n".join(["| function | by itself | with all it calls |", "|---|---|---|", *rows])


if __name__ == "__main__":
    main()
