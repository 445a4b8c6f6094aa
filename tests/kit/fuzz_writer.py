"""A process of its own that changes a tree, told by `Writer` what to do and when to rest.

It reads one command per line: ``go PAUSE`` does operations of `fuzz_disk`, with so many seconds after each, until the
next line comes; ``storm NUMBER`` changes two files in turn so many times, which makes as many events and no news;
``note`` takes notice of what is known to a daemon that has just synced. The answer is the number of changes.
"""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from kit.fuzz_disk import NUMBERS, OPERATIONS, Disk, walk_files

_PATIENCE = 600.0
_TESTS = Path(__file__).parents[1]


class Writer:
    """The process, from outside. Ends with the block.

    Parameters
    ----------
    root, outside : Path
        As for `Disk`, which must have made them.
    seed : int
    """

    def __init__(self, root: Path, outside: Path, seed: int) -> None:
        command = [sys.executable, "-m", "kit.fuzz_writer", str(root), str(outside), str(seed)]
        self._process = subprocess.Popen(command, cwd=_TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def go(self, pause_seconds: float = 0.0) -> None:
        """Begin to change the tree."""
        self._tell(f"go {pause_seconds}")

    def rest(self) -> int:
        """Change it no more, and return how many operations were done since `go`."""
        return self._ask("rest")

    def storm(self, n_events: int) -> None:
        """Begin a storm of events; `rest` waits for its end."""
        self._tell(f"storm {n_events}")

    def note_synced(self) -> None:
        """Note that a daemon knows all that there is now; see `Disk.note_synced`."""
        self._ask("note")

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def _ask(self, command: str) -> int:
        self._tell(command)
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _PATIENCE)
        assert ready, "the writer does not answer"
        answer = self._process.stdout.readline()
        assert answer, "the writer failed"
        return int(answer)


def main(root: str, outside: str, seed: str) -> None:
    """Do what is told until the input ends."""
    disk, chance = Disk(Path(root), Path(outside), is_new=False), random.Random(int(seed))
    names = list(OPERATIONS)
    before = 0
    commands = os.fdopen(0, "rb", buffering=0)  # whether one more has come, only the descriptor can tell
    while command := commands.readline().decode().split():
        match command:
            case "go", pause:
                _change(disk, chance, names, float(pause))
            case "storm", number:
                _storm(root, int(number))
            case "note":
                disk.note_synced(walk_files(disk.root))
                print(0, flush=True)  # noqa: T201 - read by `Writer`
            case _:
                print(disk.n_done - before, flush=True)  # noqa: T201 - read by `Writer`
                before = disk.n_done


def _change(disk: Disk, chance: random.Random, names: Sequence[str], pause: float) -> None:
    while not select.select([0], [], [], 0)[0]:
        disk.do(chance.choice(names), chance.randrange(NUMBERS), chance.randrange(NUMBERS))
        if pause:
            time.sleep(chance.uniform(0, pause))


def _storm(root: str, number: int) -> None:
    """Equal events in a row are joined by the kernel, so two files take turns."""
    fds = [os.open(f"{root}/anchor/2020-01-01/001/{name}", os.O_RDONLY | os.O_CREAT) for name in ("a.b.c", "d.e.f")]
    for turn in range(number):
        os.fchmod(fds[turn % 2], 0o600 + turn % 2)
    for fd in fds:
        os.close(fd)


if __name__ == "__main__":
    main(*sys.argv[1:])
