"""Ctrl-C and SIGTERM while something is done that must be put away."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: `timeout`, systemd and job schedulers send it to a command that runs too long."""


@contextmanager
def put_away() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise in this block, so that locks and half-written files are put away.

    They raise `KeyboardInterrupt` and `Terminated`. Outside such a block they end the process at once; see `launch`.
    A signal that is ignored stays so.
    """
    raising = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _raise_terminated}
    heard = [number for number in raising if signal.getsignal(number) is signal.SIG_DFL]
    if not heard or threading.current_thread() is not threading.main_thread():
        yield
        return
    sys.unraisablehook = _end_if_interrupted
    for number in heard:
        signal.signal(number, raising[number])
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)


def end(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code after Ctrl-C. After SIGTERM, end by this signal, as the sender expects."""
    if isinstance(interrupt, Terminated):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return INTERRUPTED


def _raise_terminated(*_: object) -> NoReturn:
    raise Terminated


def _end_if_interrupted(about: sys.UnraisableHookArgs) -> None:
    """End the process if a signal came where Python can raise nothing: it would print a traceback, and go on."""
    if isinstance(about.exc_value, KeyboardInterrupt):
        os._exit(end(about.exc_value))
    sys.__unraisablehook__(about)
