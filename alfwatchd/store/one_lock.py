"""ONE's lock file, ``.ONE.lock``, in the folder of the tables: `One.save_cache` holds it while it writes them.

ONE takes it with ``iblutil.io.params.FileLock``: the lock is held as long as the file is there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alfwatchd.files import file_version, remove

NAME = ".ONE.lock"
STALE_SECONDS = 5.0
"""A lock that has not changed for this long was left behind by a process that was killed."""
_POLL_SECONDS = 0.05


@contextmanager
def one_lock(folder: Path) -> Iterator[None]:
    """Hold ONE's lock in a folder; one that is older than five seconds was left behind and is taken over.

    Raises
    ------
    OSError
        The lock file cannot be made or removed.
    """
    lock = folder / NAME
    fd = _make(lock)
    try:
        with os.fdopen(fd, "w") as file:
            json.dump({"pid": os.getpid(), "program": "alfwatchd"}, file)
        yield
    finally:
        lock.unlink(missing_ok=True)


def _make(lock: Path) -> int:
    """Return a descriptor of the lock file, made as soon as no other process holds it."""
    seen, since = None, time.monotonic()
    while True:
        try:
            return os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            version = file_version(lock, follow_links=False)  # a link that leads nowhere holds as well
        if version != seen:
            seen, since = version, time.monotonic()
        # An old time tells at once. Where clocks differ, as the folder may be on a server, waiting tells.
        is_old = seen is not None and time.time() - seen[2] / 1e9 > STALE_SECONDS
        if seen is not None and (is_old or time.monotonic() - since > STALE_SECONDS):
            remove(lock)
        else:
            time.sleep(_POLL_SECONDS)
