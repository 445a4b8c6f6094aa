"""How long a file that grows must be left alone before it is read again, so that it is not read all the time."""

from __future__ import annotations

import time
from dataclasses import dataclass

from alfwatchd.scan.file_digest import HashJob
from alfwatchd.tree.packed import unpack_signature

_BYTES_PER_SECOND = 20_000_000
"""The longest wait is what a file takes at this speed, a fraction of that of a disk: 5 s for 100 MB, 83 min for 100 GB.
"""
_CALM = 10.0
"""A file that was left alone for this many longest waits after it was read is not one that grows."""
_MOST_FILES = 10_000
"""That grow at the same time. Of any more, those that were read first are forgotten."""


@dataclass(slots=True)
class _Reading:
    signature: bytes
    wait_ns: int
    read_ns: int


class BackOff:
    """Doubles the wait of a file each time it has changed after it was read. The caller holds a lock.

    Parameters
    ----------
    settle_ns : int
        The wait of a file that was not read before.
    """

    def __init__(self, settle_ns: int) -> None:
        self._settle_ns = settle_ns
        self._readings: dict[tuple[str, str], _Reading] = {}

    def wait_ns(self, job: HashJob) -> int:
        """Return for how long after its last change the file of a job must be left alone, in nanoseconds."""
        reading = self._readings.get((job.folder, job.name))
        if reading is None or reading.signature == job.signature:
            return self._settle_ns if reading is None else reading.wait_ns
        longest = _longest_wait_ns(job)
        if unpack_signature(job.signature).ctime_ns - reading.read_ns > _CALM * longest:
            return self._settle_ns
        return max(self._settle_ns, min(2 * reading.wait_ns, longest))

    def note_read(self, job: HashJob) -> None:
        """Note that the file of a job is read now."""
        wait_ns = self.wait_ns(job)
        self._readings.pop((job.folder, job.name), None)
        if _longest_wait_ns(job) > self._settle_ns > 0:  # else each wait would be the same
            self._readings[job.folder, job.name] = _Reading(job.signature, wait_ns, time.time_ns())
            if len(self._readings) > _MOST_FILES:
                del self._readings[next(iter(self._readings))]


def _longest_wait_ns(job: HashJob) -> int:
    return unpack_signature(job.signature).file_size * 1_000_000_000 // _BYTES_PER_SECOND
