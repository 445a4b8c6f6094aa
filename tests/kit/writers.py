"""Processes that change a tree as fast as they can, until they are stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TESTS = Path(__file__).parents[1]

# What people and acquisition programs do to recordings, from the seed and the folder that it is given.
_RECORDINGS = r"""
import os, random, shutil, sys
from pathlib import Path

chance, root = random.Random(int(sys.argv[1])), Path(sys.argv[2])
while True:
    sessions = sorted(root.glob("*/Subjects/*/*/*"))
    session = chance.choice(sessions)
    files = sorted(file for file in session.rglob("*.*") if file.is_file())
    new = root / f"lab{chance.randrange(2)}/Subjects/s{chance.randrange(4)}/2020-01-01/{chance.randrange(9):03d}"
    match chance.randrange(6):
        case 0 if not new.exists():
            shutil.copytree(session, new)
        case 1 if len(sessions) > 15:
            shutil.rmtree(session)
        case 2 if not new.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            session.rename(new)
        case 3:
            (session / f"alf/probe{chance.randrange(3):02d}").mkdir(parents=True, exist_ok=True)
            for number in range(5):
                (session / f"alf/spikes.field{number}.npy").write_bytes(bytes(chance.randrange(500)))
        case 4 if files:
            chance.choice(files).unlink()
        case 5 if files:
            file = chance.choice(files)
            file.with_name("new").write_bytes(bytes(chance.randrange(500)))
            file.with_name("new").rename(file)
"""

# What nobody does, but each of it may happen: see ``fuzz_disk.py``.
_COLLISIONS = r"""
import random, sys
from kit.fuzz_disk import NUMBERS, OPERATIONS, Disk

chance, disk = random.Random(int(sys.argv[1])), Disk(sys.argv[2], sys.argv[3], is_new=False)
names = sorted(OPERATIONS)
while True:
    disk.do(chance.choice(names), chance.randrange(NUMBERS), chance.randrange(NUMBERS))
"""


@contextmanager
def recordings(seed: int, root: Path) -> Iterator[None]:
    """Change the recordings of a tree, which must have some."""
    with _running(_RECORDINGS, str(seed), root):
        yield


@contextmanager
def collisions(seed: int, root: Path, outside: Path) -> Iterator[None]:
    """Change what a `fuzz_disk.Disk` has made."""
    with _running(_COLLISIONS, str(seed), root, outside):
        yield


@contextmanager
def _running(code: str, *arguments: str | Path) -> Iterator[None]:
    environment = {**os.environ, "PYTHONPATH": str(_TESTS)}
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)
    try:
        yield
        assert process.poll() is None, "the writer failed"
    finally:
        process.kill()
        process.wait()
