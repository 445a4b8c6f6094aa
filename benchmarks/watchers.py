"""Other watchers on the same tree, each in a process of its own: says ``ready``, counts, and answers at end of input.

``python benchmarks/watchers.py watchdog FOLDER`` is watchdog's recursive Observer, as its documentation shows it;
``bare`` is watchdog's InotifyFD below it, with one watch per folder and nothing done with an event but counting it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.inotify_c import InotifyConstants, InotifyFD, inotify_add_watch

MARK = "burst."
"""What the names of all files of a burst begin with."""
_QUIET_SECONDS = 1.0
_MASK = InotifyConstants.IN_CREATE | InotifyConstants.IN_CLOSE_WRITE


class _Seen:
    """Files that were told of, and when the last one was."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.n_events = 0
        self.n_overflows = 0
        self.last = 0.0


def watch_with_observer(root: str) -> Callable[[], _Seen]:
    """Watch as the documentation of watchdog shows."""
    seen = _Seen()

    class Counter(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            seen.n_events += 1
            if event.event_type == "created" and not event.is_directory and MARK in os.fsdecode(event.src_path):
                seen.names.add(os.fsdecode(event.src_path))
                seen.last = time.perf_counter()

    observer = Observer()
    observer.schedule(Counter(), root, recursive=True)
    observer.start()
    return lambda: seen


def watch_bare(root: str) -> Callable[[], _Seen]:
    """Count what the kernel tells. Folders that are made later are not watched."""
    seen = _Seen()

    class Reader(InotifyFD):  # type: ignore[misc]
        def run(self) -> None:
            while self.should_keep_running():
                for wd, mask, _, name in self._parse_event_buffer(self._read_event_buffer(1 << 18)):
                    seen.n_events += 1
                    if mask & InotifyConstants.IN_Q_OVERFLOW:
                        seen.n_overflows += 1
                    elif mask & InotifyConstants.IN_CREATE:
                        seen.names.add(f"{wd}/{os.fsdecode(name)}")
                        seen.last = time.perf_counter()

    reader = Reader()
    for folder, _, _ in os.walk(root):
        inotify_add_watch(reader._inotify_fd, os.fsencode(folder), _MASK)  # noqa: SLF001
    reader.start()
    return lambda: seen


@contextmanager
def running(kind: str, root: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """Run this file in a process of its own; yield what ends it and returns what it saw."""
    process = subprocess.Popen(
        [sys.executable, __file__, kind, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        armed = float(process.stdout.readline())

        def end() -> dict[str, Any]:
            answer, _ = process.communicate("\n")
            return {**json.loads(answer), "armed": armed}

        yield end
    finally:
        process.kill()
        process.wait()


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Watch until standard input ends."""
    kind, root = sys.argv[1:]
    started = time.perf_counter()
    see = {"watchdog": watch_with_observer, "bare": watch_bare}[kind](root)
    before = _cpu()
    print(time.perf_counter() - started, flush=True)
    sys.stdin.readline()
    seen, n_events = see(), -1
    while n_events != seen.n_events:  # until it has nothing more to tell
        n_events = seen.n_events
        time.sleep(_QUIET_SECONDS)
    print(json.dumps({
        "files": len(seen.names), "events": n_events, "overflows": seen.n_overflows, "cpu": _cpu() - before,
        "last": seen.last,
    }), flush=True)  # fmt: skip
    os._exit(0)  # stopping an Observer of many folders takes seconds


if __name__ == "__main__":
    main()
