"""`alfwatchd metrics`: prints the metrics of the daemon, or writes them to a file for node_exporter."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from alfwatchd.atomic import replace_file
from alfwatchd.cli import addressing, output, settings_flags
from alfwatchd.cli.parser import Command
from alfwatchd.errors import AlfwatchdError, UsageError

_NAME = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*")
"""https://prometheus.io/docs/concepts/data_model; two underscores at the start are Prometheus' own."""
_OWN_LABELS = ("kind", "lab", "le", "reason", "state", "tag", "target", "version")

_ENDING = ".prom"
_MODE = 0o644
"""node_exporter is another user. What is in the file, the tables tell as well, except targets of `[[publish]]`."""

_EXAMPLES = """\
examples:
  alfwatchd metrics                      print them
  alfwatchd metrics --textfile /var/lib/prometheus/node-exporter/alfwatchd.prom
                                         write them where node_exporter finds
                                         them; run this every minute
  alfwatchd metrics --root /srv/north --label daemon=north --textfile ...
                                         with several daemons: their metrics need
                                         different labels, and other files

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
    group.add_argument(
        "--label",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=_label,
        help="add a label to every metric; give the flag once for each label",
    )
    settings_flags.add_address(parser)
    settings_flags.add_output(parser)


def _label(text: str) -> str:
    """Return a label as it stands in the text format."""
    name, equals, value = text.partition("=")
    if not equals or not _NAME.fullmatch(name) or name in _OWN_LABELS or not value.isprintable():
        raise argparse.ArgumentTypeError(
            f"{text!r} should be NAME=VALUE. A name has letters, digits and '_', and is none of "
            f"{', '.join(_OWN_LABELS)}; a value has no control characters"
        )
    return '{}="{}"'.format(name, value.replace("\\", r"\\").replace('"', r"\""))


def _with_labels(text: bytes, labels: Sequence[str]) -> bytes:
    """Add labels to each sample of a text; lines with ``#`` stay as they are."""
    if not labels:
        return text

    def add(found: re.Match[str]) -> str:
        return found[1] + "{" + ",".join(labels) + ("," if found[2] else "} ")

    return re.sub(r"(?m)^(\w+)(?:(\{)| )", add, text.decode()).encode()


def _run(arguments: argparse.Namespace) -> int:
    path = Path(arguments.textfile) if arguments.textfile is not None else None
    if path is not None and path.suffix != _ENDING:
        raise UsageError(
            f"--textfile {arguments.textfile!r}: its name must end in {_ENDING}, else node_exporter does not read it"
        )
    if len({each.partition("=")[0] for each in arguments.label}) < len(arguments.label):
        raise UsageError("--label: a name is given twice; Prometheus would refuse the metrics")
    try:
        client = addressing.find_daemon(settings_flags.read_flags(arguments), addressing.MONITOR_SECONDS)
        text = _with_labels(client.metrics(), arguments.label)
    except AlfwatchdError:
        _tell_down(path, arguments.label)
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


def _tell_down(path: Path | None, labels: Sequence[str]) -> None:
    """Replace the file: what it has would look like the metrics of a daemon that runs."""
    if path is not None:
        from alfwatchd.web.metrics import TEXT, show_down

        _write(path, _with_labels(show_down(TEXT), labels))


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
