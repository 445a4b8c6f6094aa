"""Runs whole processes and measures them; medians over rounds, commands in turn, so that noise hits all alike."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PYTHON = sys.executable
ALFWATCHD = str(Path(sys.executable).with_name("alfwatchd"))


@dataclass(frozen=True, slots=True)
class Run:
    """One finished process: wall and CPU time in seconds, peak memory in MB (the largest single process)."""

    wall: float
    cpu: float
    memory: float


def run(command: Sequence[str], log: Path | None = None) -> Run:
    """Run a command to its end and measure it; a failing one ends the benchmark."""
    with (log or Path(os.devnull)).open("wb") as out:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {process.returncode}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def compare(
    commands: Mapping[str, Sequence[str]], rounds: int, before: Callable[[str], None] = lambda _: None
) -> dict[str, Run]:
    """Run commands in turn for several rounds and return their medians; the first round warms up and is not counted."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            before(name)
            one = run(command)
            if number:
                runs[name].append(one)
    return {name: median(each) for name, each in runs.items()}


def median(runs: Sequence[Run]) -> Run:
    """Return the median of each figure."""
    return Run(*(statistics.median(getattr(each, key) for each in runs) for key in ("wall", "cpu", "memory")))


def table(results: Mapping[str, Run], unit: str) -> str:
    """Return the results as a Markdown table; the last column is the wall time against that of `unit`."""
    base = results[unit].wall
    rows = [f"| {name} | {each.wall:.3f} | {each.cpu:.3f} | {each.memory:.0f} | {each.wall / base:.2f} |"
            for name, each in results.items()]  # fmt: skip
    return "\n".join([f"| command | wall s | CPU s | peak MB | x {unit} |", "|---|---|---|---|---|", *rows])


def machine() -> str:
    """Say what the figures were measured on."""
    import platform
    from importlib.metadata import version

    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("alfwatchd", "ONE-api", "pyarrow", "pandas", "watchdog")
    )
    return (
        f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, {packages}"
    )
