"""Runs functions that may block, each in a thread of its own, for the server's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

from alfwatchd import threads
from alfwatchd.api import answer, refuse

_T = TypeVar("_T")


def in_thread(function: Callable[..., _T], *arguments: object, name: str = "request") -> Awaitable[_T]:
    """Run a function in a new thread, as `asyncio.to_thread` does; but the process can end before the thread does.

    Raises
    ------
    NoThreads
        The kernel allows no more threads.
    """
    done: Future[_T] = Future()

    def run() -> None:
        try:
            result = function(*arguments)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            refuse(done, error)
        else:
            answer(done, result)

    threads.start(run, name)
    return asyncio.wrap_future(done)
