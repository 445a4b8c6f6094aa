"""What commands print. The only module that writes to the standard output."""

from __future__ import annotations

import csv
import io
import json
import sys
from argparse import Namespace
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from alfwatchd import errors
from alfwatchd.addresses import redact
from alfwatchd.alf.printable import printable
from alfwatchd.errors import AlfwatchdError
from alfwatchd.service import logs

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_CANNOT_WRITE = "cannot write to the standard output: {}"


def show(text: str) -> None:
    """Print lines that the user asked for.

    Raises
    ------
    AlfwatchdError
        The lines cannot be written, for example because the disk is full.
    BrokenPipeError
        The reader has closed its end.
    """
    try:
        print(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AlfwatchdError(_CANNOT_WRITE.format(error.strerror)) from error


def show_at_once(text: str) -> None:
    """Print a line that the reader is to see now, also through a pipe; raises as `show`."""
    show(text)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AlfwatchdError(_CANNOT_WRITE.format(error.strerror)) from error


def show_json(value: object) -> None:
    """Print a value as JSON; what JSON does not know, such as a path, is printed as text."""
    show(json.dumps(value, default=str, indent=2))


def show_json_line(value: object) -> None:
    """Print a value as JSON in one line, for a program that reads one value after the other."""
    show(json.dumps(value, default=str))


def show_reply(reply: DataclassInstance, arguments: Namespace, text: str) -> None:
    """Print an answer: as `text` for people, or whole, as JSON, if the user asked for that.

    Parameters
    ----------
    reply : dataclass
        The answer.
    arguments : Namespace
        Those of the command; ``json`` says how to print.
    text : str
        The answer as people read it.
    """
    if arguments.json:
        show_json(asdict(reply))
    else:
        show(text)


def show_json_lines(about: Mapping[str, object], name: str, rows: Iterable[object]) -> None:
    """Print one JSON document in which each row has a line of its own.

    Parameters
    ----------
    about : mapping of str to object
        What stands before the rows.
    name : str
        Key of the list of rows.
    rows : iterable of object
    """
    head = json.dumps(dict(about), default=str)[1:-1]
    lines = ",\n".join(json.dumps(row, default=str) for row in rows)
    show(f"{{{head}, {json.dumps(name)}: [\n{lines}\n]}}")


def show_csv(names: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Print rows as comma-separated values, with a head; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    show(text.getvalue().rstrip("\n"))


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int]) -> None:
    """Print a table for people.

    Parameters
    ----------
    head : sequence of str
    rows : sequence of sequence of str
        A row may have fewer cells than the head.
    numbers : collection of int
        Places of the columns that are aligned on the right.
    """
    cells = [head, *([printable(cell) for cell in row] for row in rows)]
    widths = [max((len(row[place]) for row in cells if place < len(row)), default=0) for place in range(len(head))]
    show(
        "\n".join(
            "  ".join(
                cell.rjust(width) if place in numbers else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=False))
            ).rstrip()
            for row in cells
        )
    )


_errors_are_json = False


def show_errors_as_json(*, wanted: bool) -> None:
    """Say in which form `complain` tells errors from now on: JSON for a program, else words."""
    global _errors_are_json
    _errors_are_json = wanted


def complain(error: AlfwatchdError | str, code: int = 1) -> None:
    """Say on the standard error why a command fails, in the form that `show_errors_as_json` has set.

    The JSON is that of the control API, ``{"error": NAME, "message": TEXT}``, with the ``exit_code`` of the process.
    """
    if not _errors_are_json:
        logs.complain(str(error))
        return
    kinds = type(error).__mro__ if isinstance(error, AlfwatchdError) else (AlfwatchdError,)
    name = next(kind.__name__ for kind in kinds if kind.__module__ == errors.__name__)
    note(json.dumps({"error": name, "message": redact(str(error)), "exit_code": code}))


def note(line: str) -> None:
    """Print a line about the work beside the answer, to the standard error."""
    print(line, file=sys.stderr)


def flush(code: int) -> int:
    """Write out what is buffered, before the process ends.

    Parameters
    ----------
    code : int
        Exit code so far.

    Returns
    -------
    int
        The same, or 1 if it was 0 and the answer cannot be written.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass  # the reader has seen enough, as `head` does
    except (OSError, ValueError) as error:
        if code == 0:
            complain(_CANNOT_WRITE.format(getattr(error, "strerror", error)))
            code = 1
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    return code


def show_bytes(number: float) -> str:
    """Return a number of bytes with a unit, for example ``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
