"""The least that any index in one Python process does: list each folder, lstat each file, and forget it all.

``python benchmarks/walk.py ROOT`` prints the number of files. What `alfwatchd` takes beyond this is its own.
"""

from __future__ import annotations

import os
import sys

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def walk(root: str) -> int:
    """Return the number of files below a folder."""
    n_files, stack = 0, [root]
    while stack:
        path = stack.pop()
        fd = os.open(path, _FLAGS)
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(f"{path}/{entry.name}")
                else:
                    entry.stat(follow_symlinks=False)
                    n_files += 1
        os.close(fd)
    return n_files


if __name__ == "__main__":
    print(walk(sys.argv[1]))
