"""Runs whole processes and measures them; medians over rounds, commands in turn, so that noise hits all alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

PYTHON = sys.executable
ALFWATCHD = str(Path(sys.executable).with_name("alfwatchd"))

_SAMPLING_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Run:
    """One finished process with all its children: wall and CPU time in seconds, peak memory in MB.

    The memory is that of the largest single process; `compare` makes it that of all processes together.
    """

    wall: float
    cpu: float
    memory: float


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report: what was to be reached, and what was. `met` is None where nothing was promised."""

    item: str
    target: str
    figure: str
    met: bool | None
    command: str
    ratio: str = ""


def write_lines(file: Path | None, lines: Sequence[Line]) -> None:
    """Print lines of the report as Markdown, and keep them for `report.py` if a file is given."""
    print("\n| what | target | figure | ratio | met |\n|---|---|---|---|---|")
    for line in lines:
        met = {True: "yes", False: "**no**", None: "-"}[line.met]
        print(f"| {line.item} | {line.target} | {line.figure} | {line.ratio} | {met} |")
    if file is not None:
        file.write_text(json.dumps([asdict(line) for line in lines], indent=1))


def run(command: Sequence[str], log: Path | None = None, env: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end and measure it; a failing one ends the benchmark."""
    with (log or Path(os.devnull)).open("wb") as out, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=errors if log is None else out, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace")
            sys.exit(f"{' '.join(command)} failed with exit code {process.returncode}\n{said}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def peak_memory(command: Sequence[str]) -> float:
    """Run a command and return the peak memory of all its processes together, in MB.

    Pages that processes share are counted once (PSS). Sampling costs time, so this run is for nothing else.
    """
    samples, ended = [0.0], threading.Event()
    here = os.getpid()
    others = set(_children(here))

    def sample() -> None:
        while not ended.wait(_SAMPLING_SECONDS):
            started = [pid for pid in _children(here) if pid not in others]
            samples.append(sum(map(_proportional_size, _with_descendants(started))))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        largest = run(command).memory
    finally:
        ended.set()
        sampler.join()
    return max(largest, *samples)


def _with_descendants(pids: list[int]) -> list[int]:
    return pids + [each for pid in pids for each in _with_descendants(_children(pid))]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):  # it may end at any moment
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _proportional_size(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def compare(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    before: Callable[[str], None] = lambda _: None,
    *,
    warm_up: bool = True,
) -> dict[str, Run]:
    """Run commands in turn for several rounds and return their medians.

    One more round before the others warms up and tells the memory; its time is not counted.
    """
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    memory = dict.fromkeys(commands, 0.0)
    for name, command in commands.items() if warm_up else ():
        before(name)
        memory[name] = peak_memory(command)
    for _ in range(rounds):
        for name, command in commands.items():
            before(name)
            runs[name].append(run(command))
    medians = {name: median(each) for name, each in runs.items()}
    return {name: Run(each.wall, each.cpu, max(each.memory, memory[name])) for name, each in medians.items()}


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
