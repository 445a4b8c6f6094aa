"""Check format, lint, types and import layers, then run tests. Ends with pytest's summary line.

``python tools/check.py`` before a commit; ``python tools/check.py --heavy`` runs the tests that start many programs,
and nothing else. ``--coverage`` also measures branch coverage, subprocesses included. Further arguments go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CHECKS = (
    ("format", [BIN / "ruff", "format", "--check", "--quiet", "."]),
    ("lint", [BIN / "ruff", "check", "--quiet", "."]),
    ("types", [BIN / "mypy"]),
    ("imports", [BIN / "lint-imports", "--no-cache"]),
)


# In a new clone, it compiles the tests while mypy works on the other core; else each test process compiles all of them.
COLLECTION = ("collection", [sys.executable, "-m", "pytest", "-n", "0", "--collect-only", "-qq"])


def main(arguments: list[str]) -> int:
    """Run all checks, stop at none but the tests' own, and return 1 if any failed."""
    with_coverage, is_heavy = "--coverage" in arguments, "--heavy" in arguments
    given = [each for each in arguments if each not in ("--coverage", "--heavy")]
    # Tests wait now and then, so a third process finds time on two cores. Heavy ones start enough processes themselves.
    pytest_arguments = given or ["-n", "2" if is_heavy else "3", "--dist", "loadfile"]
    if is_heavy:
        pytest_arguments += ["-m", "heavy and not long"]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process that runs tests compiles all of them, 10 s each
    failed = [] if is_heavy else _failed_checks()
    runner = [sys.executable, "-m", *(["coverage", "run", "-m"] if with_coverage else []), "pytest"]
    tests = subprocess.run([*runner, *pytest_arguments], cwd=ROOT, check=False)
    if with_coverage:
        subprocess.run([sys.executable, "-m", "coverage", "combine", "--quiet"], cwd=ROOT, check=False)
        subprocess.run([sys.executable, "-m", "coverage", "report"], cwd=ROOT, check=False)
    if failed:
        sys.stderr.write(f"failed before the tests: {', '.join(failed)}\n")
    return 1 if failed or tests.returncode else 0


def _failed_checks() -> list[str]:
    """Run the checks beside each other, because each needs one core; return the names of those that failed."""
    environment, failed = {**os.environ, "NO_COLOR": "1"}, []
    checks = CHECKS if (ROOT / "tests/__pycache__").exists() else (*CHECKS, COLLECTION)
    with ThreadPoolExecutor(len(checks)) as beside:
        running = {name: beside.submit(_run, command, environment) for name, command in checks}
        for name, check in running.items():
            done = check.result()
            sys.stdout.write(f"{name}: {'FAILED' if done.returncode else 'ok'}\n")
            if done.returncode:
                failed.append(name)
                sys.stdout.write(done.stdout)
            sys.stdout.flush()
    return failed


def _run(command: list[object], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
