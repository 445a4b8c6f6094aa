"""Prove the lower bounds in pyproject.toml: install the lowest versions of what the program needs, and run some tests.

``python tools/lowest.py``; further arguments go to pytest. Two minutes. Everything happens in a temporary folder, with
Python 3.11. Only what the program itself needs, its extras included, is at its lowest: test tools have lower bounds,
too, but these only say which options we use, and their own needs would raise or forbid the versions in question.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = "s3,alyx"
PYTHON = "3.11"
TOOLS = (
    "flask", "flask-cors", "httpx", "hypothesis", "moto[s3]", "packaging", "psutil", "pytest", "pytest-randomly",
    "pytest-timeout", "pytest-xdist",
)  # fmt: skip
TESTS = (
    "test_libraries.py",  # what we rely on
    "service/test_configuration.py",
    "watch/test_watcher.py",
    "web/test_metrics.py",
    "store/test_parquet_file.py", "store/test_writer.py", "store/test_reader.py",  # tables written and opened
    "database/test_alyx.py",
    "publish/test_s3.py", "publish/test_s3_server.py",
    "tables/test_database_columns.py", "tables/test_columns.py", "publish/test_selection.py",
    "system/test_live.py",  # the daemon, its socket, and what it watches
    "system/test_adopt.py", "system/test_publish.py", "system/test_serve.py", "system/test_with_one.py",
)  # fmt: skip


def main(arguments: list[str]) -> int:
    """Install, run, say in one line how it went; all that the tests said where they failed."""
    with tempfile.TemporaryDirectory(prefix="alfwatchd-lowest-") as folder:
        try:
            python = _install(Path(folder))
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"lowest versions: cannot be installed\n{error.stdout}{error.stderr}")
            return 1
        tests = [f"tests/{each}" for each in TESTS]
        command = [python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-m", "not long", *tests, *arguments]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.stdout.write(done.stdout + done.stderr)
    summary = done.stdout.rstrip().rpartition("\n")[2]
    sys.stdout.write(f"lowest versions: {'FAILED' if done.returncode else 'ok'} ({summary})\n")
    return done.returncode


def _install(folder: Path) -> Path:
    """Install the program and the tests' tools; return the interpreter that has them."""
    uv, python, versions = _find_uv(folder), folder / "lowest/bin/python", folder / "versions.txt"
    lowest = [
        "--resolution=lowest-direct",
        f"--python-version={PYTHON}",
        *(f"--extra={each}" for each in EXTRAS.split(",")),
    ]
    _run(uv, "pip", "compile", "--quiet", *lowest, f"--output-file={versions}", "pyproject.toml")
    _run(uv, "venv", "--quiet", f"--python={PYTHON}", folder / "lowest")
    _run(uv, "pip", "install", "--quiet", f"--python={python}", "--editable", f".[{EXTRAS}]", *TOOLS, "-c", versions)
    return python


def _find_uv(folder: Path) -> str | Path:
    """Return uv, which pip installs where there is none."""
    if found := shutil.which("uv"):
        return found
    venv.create(folder / "uv", with_pip=True)
    _run(folder / "uv/bin/pip", "install", "--quiet", "uv")
    return folder / "uv/bin/uv"


def _run(*command: str | Path) -> None:
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
