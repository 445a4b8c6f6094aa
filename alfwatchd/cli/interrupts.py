"""Ctrl-C while something is done that must be put away."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


@contextmanager
def put_away() -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt` in this block, so that locks and half-written files are put away.

    Outside such a block Ctrl-C ends the process at once; see `launch`. Where Ctrl-C is ignored, it stays so.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    sys.unraisablehook = _end_if_interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_if_interrupted(about: sys.UnraisableHookArgs) -> None:
    """End the process if Ctrl-C came where Python can raise nothing: it would print a traceback, and go on."""
    if isinstance(about.exc_value, KeyboardInterrupt):
        os._exit(INTERRUPTED)
    sys.__unraisablehook__(about)
