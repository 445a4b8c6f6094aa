"""The entry point of the command line: finds the command, runs it, and turns errors into messages and exit codes."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import NoReturn

from alfwatchd import threads
from alfwatchd.cli import (
    config,
    daemon,
    demo,
    flush,
    follow,
    ids,
    ls,
    metrics,
    output,
    prune,
    report,
    rescan,
    serve,
    status,
    sync,
)
from alfwatchd.cli import set as set_command
from alfwatchd.cli.interrupts import end
from alfwatchd.cli.parser import CommandLine
from alfwatchd.errors import AlfwatchdError
from alfwatchd.service import logs

COMMANDS = (
    status.COMMAND,
    sync.COMMAND,
    flush.COMMAND,
    rescan.COMMAND,
    ls.COMMAND,
    report.COMMAND,
    metrics.COMMAND,
    follow.COMMAND,
    ids.COMMAND,
    set_command.COMMAND,
    prune.COMMAND,
    serve.COMMAND,
    config.COMMAND,
    demo.COMMAND,
)
"""All commands that have a name, in the order of the help."""


def run() -> NoReturn:
    """Run the command line of this process, and end the process."""
    _make_streams_usable()
    try:
        code = main()
    except SystemExit as ended:  # argparse has printed a help text or the version
        code = int(ended.code or 0)
    code = output.flush(code)
    # `sys.exit` would let Python free a million rows one by one, which takes a second.
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    argv : sequence of str or None
        The words of the command line without the name of the program; None for those of this process.

    Returns
    -------
    int
        The exit code: 0 if all was done as asked.

    Raises
    ------
    SystemExit
        Help or the version was asked for, and printed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    output.show_errors_as_json(wanted=_wants_json(words))
    try:
        arguments = parse(words)
        logs.set_up(getattr(arguments, "log_level", None) or "warning")
        return int(arguments.run(arguments))
    except AlfwatchdError as error:
        output.complain(error, error.exit_code)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        return end(interrupt)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (RuntimeError, OSError, MemoryError) as error:
        if (trouble := _trouble_with_the_machine(error)) is None:
            raise
        output.complain(trouble)
        return 1


def _wants_json(words: Sequence[str]) -> bool:
    """Tell whether errors are to be JSON: also those of a command line that cannot be parsed."""
    return "--json" in words[: words.index("--") if "--" in words else None]


def _trouble_with_the_machine(error: RuntimeError | OSError | MemoryError) -> str | None:
    """Return what to say of an error that no fault of the program caused; None if it may be one."""
    match error:
        case MemoryError():
            return "the memory of this machine, or the limit of this process, is used up"
        case OSError(strerror=str(reason), filename=str(path)):
            return f"{path}: {reason}"
        case OSError(strerror=str(reason)):
            return reason
        case RuntimeError() if threads.is_limit(error):
            return threads.LIMIT
    return None


def parse(words: Sequence[str]) -> Namespace:
    """Parse a command line; see `CommandLine.parse`."""
    return CommandLine(daemon.COMMAND, COMMANDS).parse(words)


def _make_streams_usable() -> None:
    """Let a stream that the caller has closed lead to /dev/null: Python has None in its place.

    Letters that the encoding of an open one does not have are written as escapes: ``PYTHONIOENCODING`` may name any.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - stays open until the process ends
        getattr(sys, name).reconfigure(errors="backslashreplace")
