"""Starts threads, and says what to raise where the kernel allows no more of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from alfwatchd.errors import NoThreads

T = TypeVar("T")

LIMIT = (
    "no more threads can be started: raise TasksMax= or LimitNPROC= in the unit, `ulimit -u` in a shell, or the limit "
    "of processes (pids) of the container"
)
"""What is wrong where no thread can be started, and what to do."""


def start(run: Callable[[], object], name: str) -> threading.Thread:
    """Run a function in a new thread, which does not keep the process from ending.

    Raises
    ------
    NoThreads
        The kernel allows no more threads: of the user, of the unit, or of the container.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    begin(thread)
    return thread


def begin(thread: threading.Thread) -> None:
    """Start a thread that was made elsewhere; raises as `start`."""
    try:
        thread.start()
    except RuntimeError as error:
        if not is_limit(error):
            raise
        raise NoThreads(f"{LIMIT}; the thread that is missing is {thread.name!r}") from error


def is_limit(error: RuntimeError) -> bool:
    """Tell whether an error of Python says that no thread can be started."""
    return "start new thread" in str(error)


def ahead(makers: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Yield what is made, and make the next one in a thread meanwhile.

    pyarrow writes without the GIL: this saves 0.6 s in 1 M rows. Where no thread can be started, it works without.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[T]] = deque()
        for make in makers:
            waiting.append(_submit(pool, make))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _submit(pool: ThreadPoolExecutor, make: Callable[[], T]) -> Future[T]:
    """Have something made by the pool; at once and here where no thread can be started."""
    try:
        return pool.submit(make)
    except RuntimeError as error:
        if not is_limit(error):
            raise
    made: Future[T] = Future()
    made.set_result(make())
    return made
