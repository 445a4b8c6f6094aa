"""A disk that fails: programs that are started here get errors from their calls below a root, when a test says so."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

_SOURCE = Path(__file__).parents[1] / "data/faults.c"
CODES = (errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOTCONN, errno.ETIMEDOUT)
"""What says nothing about whether a file is there."""
_PER_MILLION = 1_000_000


class _Orders(ctypes.Structure):
    """The same as in ``faults.c``."""

    _fields_ = (
        ("count", ctypes.c_uint64),
        ("per_million", ctypes.c_uint32),
        ("by_folder", ctypes.c_uint32),
        ("seed", ctypes.c_uint32),
        ("n_codes", ctypes.c_uint32),
        ("codes", ctypes.c_int32 * 16),
        ("root", ctypes.c_char * 4096),
    )


class Faults:
    """What fails now.

    Parameters
    ----------
    prefix : list of str
        Command in front of a program whose calls are to fail; it execs.
    """

    def __init__(self, prefix: list[str], orders: _Orders) -> None:
        self.prefix = prefix
        self._orders = orders

    @property
    def n_made(self) -> int:
        """Number of calls that were made to fail."""
        return int(self._orders.count)

    def begin(self, fraction: float, *, by_folder: bool = False, codes: Sequence[int] = CODES, seed: int = 0) -> None:
        """Let a fraction of all calls fail, at random; or all calls about a fraction of all paths."""
        self.end()
        self._orders.codes[: len(codes)] = codes
        self._orders.n_codes, self._orders.by_folder, self._orders.seed = len(codes), by_folder, seed
        self._orders.per_million = int(fraction * _PER_MILLION)

    def end(self) -> None:
        """Let nothing fail."""
        self._orders.per_million = 0

    def close(self) -> None:
        """Let nothing fail, and drop the memory that is shared with the programs, so that it can be unmapped."""
        self.end()
        del self._orders

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let nothing fail for a while."""
        before = self._orders.per_million
        self.end()
        try:
            yield
        finally:
            self._orders.per_million = before


@contextmanager
def failing_disk(folder: Path, root: Path) -> Iterator[Faults]:
    """Yield the faults of a root; what they need is made in a folder. Skips where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("a failing disk needs a C compiler")
    library, file = folder / "faults.so", folder / "faults"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, _SOURCE, "-ldl"], check=True)
    file.write_bytes(bytes(ctypes.sizeof(_Orders)))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as memory:
        orders = _Orders.from_buffer(memory)
        orders.root = os.fsencode(root.resolve())
        faults = Faults(["env", f"LD_PRELOAD={library}", f"FAULTS_FILE={file}"], orders)
        try:
            yield faults
        finally:
            faults.close()
            del orders
