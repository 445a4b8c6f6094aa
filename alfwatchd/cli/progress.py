"""A progress bar on a terminal; nothing elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm


class ScanProgress:
    """A bar that shows how many datasets a scan has found; a context manager."""

    def __init__(self) -> None:
        self._bar = tqdm(unit=" datasets", desc="scanning", disable=not sys.stderr.isatty(), leave=False)

    def __enter__(self) -> ScanProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.close()

    def update(self, n_sessions: int, n_datasets: int) -> None:
        """Show how many sessions and datasets the scan has found so far."""
        if not self._bar.disable:
            self._bar.set_postfix(sessions=n_sessions, refresh=False)
            self._bar.update(n_datasets - self._bar.n)
