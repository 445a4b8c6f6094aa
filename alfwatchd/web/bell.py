"""Wakes all coroutines that wait for a change, from any thread."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Bell:
    """Coroutines of one event loop wait for it. A ring that comes between a look and the wait is not missed."""

    def __init__(self) -> None:
        self.n_rings = 0
        """How often it rang; read it before you look at what may change."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake all that wait. Any thread."""
        self.n_rings += 1
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake)

    async def wait(self, n_rings: int, seconds: float) -> bool:
        """Wait until it has rung more often than that; return whether it has, after this time at most."""
        self._loop = asyncio.get_running_loop()
        if self.n_rings != n_rings:
            return True
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(waiting)
        timer = self._loop.call_later(seconds, _end, waiting)
        try:
            await waiting
        finally:
            timer.cancel()
            self._waiting.discard(waiting)
        return self.n_rings != n_rings

    def _wake(self) -> None:
        for each in self._waiting:
            _end(each)


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
