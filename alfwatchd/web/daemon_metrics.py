"""The metrics of the daemon, for those who ask the site instead: it asks the control socket, and not too often."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from fastapi import Request, Response

from alfwatchd.errors import AlfwatchdError
from alfwatchd.web.metrics import show_down, wanted_type

_log = logging.getLogger(__name__)

KEEP_SECONDS = 1.0
"""How long an answer is given again: however many clients ask, the daemon answers once in this time."""
_SELDOM_SECONDS = 600.0


class DaemonMetrics:
    """Asks the daemon for its metrics. Used by one event loop.

    Parameters
    ----------
    ask : callable
        Returns the metrics in the format of a content type, and raises `AlfwatchdError` if it gets none. Runs in a
        thread; Prometheus waits for 10 s.
    """

    def __init__(self, ask: Callable[[str], bytes]) -> None:
        self._ask = ask
        self._asking: dict[str, asyncio.Future[bytes]] = {}
        self._made_at: dict[str, float] = {}
        self._trouble, self._told_at = "", 0.0

    async def answer(self, request: Request) -> Response:
        """Answer with the metrics of the daemon; if it gives none, with what says that it is down."""
        content_type = wanted_type(request.headers.get("accept", ""))
        headers = {"cache-control": "no-store", "vary": "Accept, Authorization", "content-type": content_type}
        return Response(await self._get(content_type), headers=headers)

    async def _get(self, content_type: str) -> bytes:
        last = self._asking.get(content_type)
        if last is None or (last.done() and time.monotonic() - self._made_at[content_type] >= KEEP_SECONDS):
            last = self._asking[content_type] = asyncio.ensure_future(self._make(content_type))
        return await asyncio.shield(last)  # the client that asked first may disconnect

    async def _make(self, content_type: str) -> bytes:
        try:
            return await asyncio.to_thread(self._ask, content_type)
        except AlfwatchdError as error:
            self._tell(str(error))
            return show_down(content_type)
        finally:
            self._made_at[content_type] = time.monotonic()

    def _tell(self, trouble: str) -> None:
        """Log why there are no metrics; the same reason every ten minutes, as the monitoring system tells it, too."""
        now = time.monotonic()
        if trouble != self._trouble or now - self._told_at >= _SELDOM_SECONDS:
            self._trouble, self._told_at = trouble, now
            _log.warning("the daemon gives no metrics error=%s", trouble)
