"""Tells what each phase of a full index costs: the real command line, with a clock around a few of its calls.

``python benchmarks/phases.py --once --root ROOT ...`` takes the arguments of `alfwatchd` and prints JSON: phase ->
seconds, and peak memory so far at its end, in order. The phases add up to the life of the process. Reading the clock
some dozen times costs nothing, but a function that is renamed must be renamed here too.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

# Phase -> functions, as "module:attribute" by which they are called. Inner phases count for themselves only.
_CALLS = {
    "prepare": ["alfwatchd.service.once:prepare"],
    "scan": ["alfwatchd.service.once:index"],
    "write": ["alfwatchd.store.writer:TableWriter.write"],
    "rows": ["alfwatchd.tables.columns:dataset_rows", "alfwatchd.tables.columns:sessions_table"],
}
PHASES = ("start", *_CALLS, "rest", "end")
"""`start` is Python with all imports, `rest` what no other phase has, `end` the end of the process."""

_RESULT = "phases: "


@dataclass(slots=True)
class Phase:
    """What a phase cost: wall time in seconds, and the peak memory of the main process until its end, in MB."""

    seconds: float = 0.0
    memory: float = 0.0


def measure_phases(flags: Sequence[str], env: Mapping[str, str] | None = None) -> dict[str, Phase]:
    """Run `alfwatchd` with these flags, in this environment."""
    # CLOCK_MONOTONIC is the same in all processes.
    command = [sys.executable, __file__, str(time.monotonic()), *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    ended = time.monotonic()
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed\n{done.stderr}")
    result = json.loads(done.stdout.rpartition(_RESULT)[2])
    phases = {name: Phase(**phase) for name, phase in result["phases"].items()}
    phases["end"].seconds = ended - result["ended"]
    return phases


class _Clock:
    """Counts time for one phase at a time: the innermost that was entered."""

    def __init__(self, started: float, phase: str) -> None:
        self.phases = {phase: Phase() for phase in PHASES}
        self._phase, self._since = phase, started

    def switch(self, phase: str) -> str:
        """Count for another phase from now on; return the one so far."""
        now, last = time.monotonic(), self._phase
        self.phases[last].seconds += now - self._since
        self.phases[last].memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self._phase, self._since = phase, now
        return last

    def around(self, function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        """Return a function that counts for a phase while it runs."""

        def run(*arguments: Any, **named: Any) -> Any:
            outer = self.switch(phase)
            try:
                return function(*arguments, **named)
            finally:
                self.switch(outer)

        return run


def _put_clocks(clock: _Clock) -> None:
    for phase, places in _CALLS.items():
        for place in places:
            module, _, path = place.partition(":")
            *owners, name = path.split(".")
            owner: Any = import_module(module)
            for each in owners:
                owner = getattr(owner, each)
            setattr(owner, name, clock.around(getattr(owner, name), phase))


def main(started: float, arguments: list[str]) -> None:
    """Run the command line and print the phases."""
    clock = _Clock(started, "start")
    cli = import_module("alfwatchd.cli.main")
    _put_clocks(clock)
    clock.switch("rest")
    if code := cli.main(arguments):
        sys.exit(code)
    clock.switch("end")
    clock.switch("end")  # notes its memory; its time is what the parent still sees
    phases = {name: asdict(phase) for name, phase in clock.phases.items()}
    print(_RESULT + json.dumps({"phases": phases, "ended": time.monotonic()}), flush=True)


if __name__ == "__main__":
    if sys.argv[1].startswith("-"):  # called by a person
        phases = measure_phases(sys.argv[1:])
        print(json.dumps({name: asdict(phase) for name, phase in phases.items()}, indent=1))
    else:
        main(float(sys.argv[1]), sys.argv[2:])
