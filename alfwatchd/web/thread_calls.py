"""Runs a function in a thread of its own while the event loop serves others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

from alfwatchd import threads
from alfwatchd.api import answer, refuse

_T = TypeVar("_T")


def in_thread(name: str, function: Callable[..., _T], *arguments: object) -> Awaitable[_T]:
    """Run a function in a new thread, as `asyncio.to_thread` does; but the process can end before the thread does."""
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
