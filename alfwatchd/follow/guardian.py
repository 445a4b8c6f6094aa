"""Ends the commands of a follower that was killed. A process of its own, which imports nothing of this package.

It reads lines ``+N`` and ``-N`` for process groups that run and have ended. At the end of the file the follower is
gone: the groups that still run get SIGTERM, and SIGKILL after ten seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import time

_GRACE_SECONDS = 10.0
_LOOK_SECONDS = 0.05


def main() -> None:
    """Read until the follower is gone, then end what it has left."""
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    groups = {group for group in groups if _send(group, signal.SIGTERM)}
    deadline = time.monotonic() + _GRACE_SECONDS
    while groups and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        groups = {group for group in groups if _send(group, 0)}
    for group in groups:
        _send(group, signal.SIGKILL)


def _send(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
