"""Check format, lint, types and import layers, then run tests. Ends with pytest's summary line.

``python tools/check.py`` before a commit; ``python tools/check.py --heavy`` runs the tests that start many programs,
and nothing else. ``--coverage`` also measures branch coverage, subprocesses included. Further arguments go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CHECKS = (
    ("format", [BIN / "ruff", "format", "--check", "--quiet", "."]),
    ("lint", [BIN / "ruff", "check", "--quiet", "."]),
    ("types", [BIN / "mypy"]),
    ("imports", [BIN / "lint-imports", "--no-cache"]),
)


def main(arguments: list[str]) -> int:
    """Run all checks, stop at none but the tests' own, and return 1 if any failed."""
    with_coverage, is_heavy = "--coverage" in arguments, "--heavy" in arguments
    given = [each for each in arguments if each not in ("--coverage", "--heavy")]
    # Tests wait now and then, so a third process finds time on two cores. Heavy ones start enough processes themselves.
    pytest_arguments = given or ["-n", "2" if is_heavy else "3", "--dist", "loadfile"]
    if is_heavy:
        pytest_arguments += ["-m", "heavy and not long"]
    failed = [name for name, command in CHECKS if not is_heavy and not _passes(name, command)]
    runner = [sys.executable, "-m", *(["coverage", "run", "-m"] if with_coverage else []), "pytest"]
    tests = subprocess.run([*runner, *pytest_arguments], cwd=ROOT, check=False)
    if with_coverage:
        subprocess.run([sys.executable, "-m", "coverage", "combine", "--quiet"], cwd=ROOT, check=False)
        subprocess.run([sys.executable, "-m", "coverage", "report"], cwd=ROOT, check=False)
    if failed:
        sys.stderr.write(f"failed before the tests: {', '.join(failed)}\n")
    return 1 if failed or tests.returncode else 0


def _passes(name: str, command: list[object]) -> bool:
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    sys.stdout.write(f"{name}: {'ok' if done.returncode == 0 else 'FAILED'}\n")
    if done.returncode:
        sys.stdout.write(done.stdout + done.stderr)
    sys.stdout.flush()
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
