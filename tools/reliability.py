"""Try the daemon under faults, load and attack, at full size; say what was tried and what was found.

``python tools/reliability.py`` takes about an hour and writes the figures into ``docs/evidence/reliability.md``, unless
it is interrupted. Further arguments go to pytest: ``python tools/reliability.py -k prune`` tries some things only, and
writes nothing.
``python tools/check.py --heavy`` runs the same trials in their short form.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
TRIALS = ("tests/trials",)
REPORT = ROOT / "docs/evidence/reliability.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
_LONGEST_TRIAL_SECONDS = 3600
_ENDED = (0, 1)
"""What pytest ends with after all trials. Figures of a part of them would look like those of a whole run."""


@dataclass(frozen=True)
class Trial:
    """One test, and what it counted."""

    name: str
    seconds: float
    outcome: str
    counts: Counter[str]


def main(arguments: list[str]) -> int:
    """Run all trials, print what they did, and return 1 if anything was found."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        started = time.monotonic()
        command = [
            # Each process takes one trial after the other. Three of them keep two cores less than half busy.
            sys.executable, "-m", "pytest", *TRIALS, "--long", "-m", "long or not long", "-p", "no:randomly",
            "-n", "5", "--dist", "load", "--maxschedchunk=1",
            f"--timeout={_LONGEST_TRIAL_SECONDS}", f"--junitxml={results}", *arguments,
        ]  # fmt: skip
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if not results.exists():
            return code
        lines = list(_describe(sorted(_read(results), key=lambda trial: trial.name), time.monotonic() - started))
    sys.stdout.write("\n".join(["", *lines, ""]))
    if not arguments and code in _ENDED:
        _write(lines)
    return code


def _read(results: Path) -> Iterator[Trial]:
    for case in ElementTree.parse(results).iterfind(".//testcase[@name!='']"):  # nameless: what was cut short
        properties = {each.get("name", ""): int(each.get("value", "0")) for each in case.iter("property")}
        kinds = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
        name = f"{case.get('classname', '').removeprefix('tests.')}: {case.get('name', '')}"
        yield Trial(name, float(case.get("time", 0)), kinds[0] if kinds else "right", Counter(properties))


def _describe(trials: list[Trial], seconds: float) -> Iterator[str]:
    total: Counter[str] = Counter()
    for trial in trials:
        total.update(trial.counts)
    n_wrong = sum(trial.outcome in ("failure", "error") for trial in trials)
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    yield f"{time.strftime('%Y-%m-%d')}, {system}: {len(trials)} trials in {seconds / 60:.0f} minutes."
    yield ""
    yield "| tried | times |"
    yield "|---|---:|"
    yield from (f"| {kind} | {number:,} |" for kind, number in sorted(total.items()))
    yield f"| **wrong results** | **{n_wrong}** |"
    yield ""
    yield "| trial | did | seconds | result |"
    yield "|---|---|---:|---|"
    for trial in trials:
        did = ", ".join(f"{number:,} {kind}" for kind, number in sorted(trial.counts.items()))
        yield f"| {trial.name} | {did} | {trial.seconds:.0f} | {trial.outcome} |"


def _write(lines: list[str]) -> None:
    before, found, rest = REPORT.read_text().partition(BEGIN)
    if not found:
        raise SystemExit(f"{REPORT}: the mark {BEGIN} is missing; put it where the figures should stand")
    REPORT.write_text("\n".join([before + BEGIN, *lines, END + rest.partition(END)[2]]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
