"""The first code of the program: makes the process fit for all that follows, then imports the command line.

While modules are imported, Ctrl-C ends the process at once and prints nothing: Python would print a traceback of many
lines. This module imports only what Python has loaded
before the program begins.
"""

from __future__ import annotations

import os
import sys

_INTERRUPTED = 130
_AS_UTF8 = "PYTHONUTF8"


def run() -> None:
    """Run the program, and end the process."""
    try:
        _let_interrupts_end()
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)
    _fill_closed_descriptors()
    _read_names_as_utf8()
    # Nothing here computes with BLAS, which would start a thread for each core as soon as NumPy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from alfwatchd.cli.main import run

    run()


def _let_interrupts_end() -> None:
    """Let Ctrl-C end the process, unless its parent had it ignored, as a shell does for jobs in the background."""
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _fill_closed_descriptors() -> None:
    """Open /dev/null in place of each standard stream that the caller has closed.

    Otherwise the next file that is opened gets its number: what a library prints would go into a table or a lock.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, so this one


def _read_names_as_utf8() -> None:
    """Begin again in Python's UTF-8 mode if the locale has another encoding.

    Ids are made from the names of files. They must not depend on the locale of the user who starts the program.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get(_AS_UTF8) == "1" or not sys.executable:
        return  # in the second case it would not help: `service.surroundings` refuses what depends on names
    os.environ[_AS_UTF8] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same program again
