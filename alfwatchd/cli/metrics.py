"""`alfwatchd metrics`: prints the metrics of the daemon, or writes them to a file for node_exporter."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import BinaryIO

from alfwatchd.atomic import replace_file
from alfwatchd.cli import addressing, output, settings_flags
from alfwatchd.cli.parser import Command
from alfwatchd.errors import AlfwatchdError, UsageError

_ENDING = ".prom"
_MODE = 0o644
"""node_exporter is another user. What is in the file, the tables tell as well, except targets of `[[publish]]`."""

_EXAMPLES = """\
examples:
  alfwatchd metrics                      print them
  alfwatchd metrics --textfile /var/lib/prometheus/node-exporter/alfwatchd.prom
                                         write them where node_exporter finds
                                         them; run this every minute

While no daemon answers, the only metric is alfwatchd_up 0: it replaces what the
file had, and the command fails. docs/reference/metrics.md lists all metrics.

exit codes: 0 done, 1 failed, 2 usage, 3 no daemon
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where to write")
    group.add_argument(
        "--textfile",
        metavar="PATH",
        help="replace this file as a whole instead of printing; its name must end in .prom, else node_exporter does "
        "not read it",
    )
    settings_flags.add_address(parser)
    settings_flags.add_output(parser)


def _run(arguments: argparse.Namespace) -> int:
    path = Path(arguments.textfile) if arguments.textfile is not None else None
    if path is not None and path.suffix != _ENDING:
        raise UsageError(
            f"--textfile {arguments.textfile!r}: its name must end in {_ENDING}, else node_exporter does not read it"
        )
    try:
        client = addressing.find_daemon(settings_flags.read_flags(arguments), addressing.MONITOR_SECONDS)
        text = client.metrics()
    except AlfwatchdError:
        _tell_down(path)
        raise
    if path is not None:
        _write(path, text)
    if arguments.json:
        from alfwatchd.web.metrics import list_samples

        output.show_json(list_samples(text))
    elif path is None:
        output.show(text.decode().rstrip("\n"))
    return 0


COMMAND = Command(
    "metrics",
    summary="print the metrics, or write them for node_exporter",
    description="Print the metrics of the daemon in the text format of Prometheus, or write them\n"
    "to a file for the textfile collector of node_exporter.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)


def _tell_down(path: Path | None) -> None:
    """Replace the file: what it has would look like the metrics of a daemon that runs."""
    if path is not None:
        from alfwatchd.web.metrics import TEXT, show_down

        _write(path, show_down(TEXT))


def _write(path: Path, text: bytes) -> None:
    def write(file: BinaryIO) -> None:
        file.write(text)
        os.fchmod(file.fileno(), _MODE)  # whatever the umask is

    try:
        replace_file(path, write, mode=_MODE, is_durable=False)
    except OSError as error:
        raise AlfwatchdError(
            f"{path}: the metrics cannot be written: {error.strerror}; name a file in a folder that this user may "
            "write to, and that node_exporter reads (--collector.textfile.directory)"
        ) from error
