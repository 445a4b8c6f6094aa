"""`alfwatchd ls`: lists sessions, or the datasets of one session, from the tables on disk."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alfwatchd.alf.printable import printable
from alfwatchd.cli import output, query_flags, settings_flags
from alfwatchd.cli.output import show_bytes
from alfwatchd.cli.parser import Command
from alfwatchd.errors import UsageError

if TYPE_CHECKING:
    from alfwatchd.query.datasets import DatasetRow
    from alfwatchd.query.sessions import SessionRow
    from alfwatchd.query.tables import Tables

_EXAMPLES = """\
examples:
  alfwatchd ls                                            all sessions
  alfwatchd ls --subject SL-017 --date 2021-02            those of a month
  alfwatchd ls --having spikes.times --lacking clusters.metrics
  alfwatchd ls --sort bytes --reverse --limit 10          the ten largest
  alfwatchd ls --lacking 'raw_video_data/*.mp4' --paths   folders, for a script
  alfwatchd ls lab/Subjects/SL-017/2021-02-01/001         datasets of a session
  alfwatchd ls 1581141a-afb7-37de-9c3e-f910179da085       the same, by eid

The tables on disk are read. No daemon is needed; `alfwatchd sync` first, if changes
of the last seconds matter. spikes.times means any file spikes.times.* in any folder
of the session. Datasets that are not here (exists is false) do not count.

exit codes: 0 done, also if no session fits; 1 failed, or a lab, subject, project,
session or dataset has a name that is in no table; 2 wrong usage; 78 which tables?
"""

_ORDERS: dict[str, Callable[[SessionRow], Any]] = {
    "session": lambda session: session.key,
    "date": lambda session: session.date,
    "datasets": lambda session: session.n_datasets,
    "bytes": lambda session: session.n_bytes,
}


def _add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("one session")
    group.add_argument("session", metavar="EID_OR_PATH", nargs="?", help="list the datasets of this session")
    query_flags.add_selection(parser)
    group = parser.add_argument_group("which of them, and how they are shown")
    group.add_argument("--sort", metavar="BY", choices=_ORDERS, help=f"order of sessions: {', '.join(_ORDERS)}")
    group.add_argument("--reverse", action="store_true", help="begin with the last or largest")
    group.add_argument("--limit", metavar="N", type=query_flags.at_least_one, help="show only the first N")
    kinds = group.add_mutually_exclusive_group()
    kinds.add_argument("--json", action="store_true", help="one JSON document, each session or dataset on a line")
    kinds.add_argument("--csv", action="store_true", help="comma-separated values, with a head")
    kinds.add_argument("--paths", action="store_true", help="absolute paths, one a line")
    kinds.add_argument("--eids", action="store_true", help="eids, one a line")
    query_flags.add_tables(parser)
    settings_flags.add_help(parser.add_argument_group("help"))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.session is not None:
        query_flags.refuse_selection(arguments, "these select sessions, and one is given already; leave them out")
        if arguments.eids or arguments.sort:
            raise UsageError("--eids and --sort are for lists of sessions; leave them out to list the datasets of one")
    conditions = query_flags.read_conditions(arguments)
    place = query_flags.find_place(arguments)
    from alfwatchd.query.tables import find_origin, open_tables

    root = place.root or find_origin(place.out_dir)
    with open_tables(place.out_dir) as tables:
        if arguments.session is not None:
            return _list_datasets(arguments, tables, root)
        from alfwatchd.query.sessions import find_sessions

        sessions = find_sessions(tables, conditions)
        notes = query_flags.unknown_of_lacking(tables, conditions.lacking)
    sessions = sorted(sessions, key=_ORDERS[arguments.sort or "session"], reverse=arguments.reverse)[: arguments.limit]
    _show_sessions(arguments, sessions, root, tables.generation)
    for line in [*notes, *([] if sessions else ["no session fits"])]:
        output.note(f"alfwatchd: {line}")
    return 0


def _show_sessions(
    arguments: argparse.Namespace, sessions: Sequence[SessionRow], root: Path | None, generation: int
) -> None:
    from alfwatchd.query.paths import SessionFolders
    from alfwatchd.query.sessions import SessionRow

    if arguments.eids:
        return _show_lines([session.eid for session in sessions])
    paths = list(map(SessionFolders(root).find, sessions))
    if arguments.paths:
        return _show_paths(root, paths)
    pairs = zip(paths, sessions, strict=True)
    if arguments.json:
        rows = ({"path": path} | session._asdict() for path, session in pairs)
        return output.show_json_lines({"root": root, "generation": generation}, "sessions", rows)
    if arguments.csv:
        rows = (
            {"path": path} | session._asdict() | {"projects": ",".join(session.projects)} for path, session in pairs
        )
        return output.show_csv(["path", *SessionRow._fields], rows)
    cells = [(path, str(session.n_datasets), show_bytes(session.n_bytes), session.eid) for path, session in pairs]
    return output.show_table(("session", "datasets", "size", "eid"), cells, numbers=(1, 2)) if cells else None


def _list_datasets(arguments: argparse.Namespace, tables: Tables, root: Path | None) -> int:
    from alfwatchd.query.datasets import DatasetRow, find_session, list_datasets
    from alfwatchd.query.paths import SessionFolders

    session, below = find_session(tables, arguments.session, _below_root(arguments.session, root))
    datasets = list_datasets(tables, session, below)
    if arguments.reverse:
        datasets.reverse()
    datasets = datasets[: arguments.limit]
    path = SessionFolders(root).find(session)
    rows = [each._asdict() for each in datasets]
    if arguments.paths:
        _show_paths(root, [f"{path}/{each.rel_path}" for each in datasets if each.exists])
    elif arguments.json:
        about = {"root": root, "generation": tables.generation, "session": {"path": path, **session._asdict()}}
        output.show_json_lines(about, "datasets", rows)
    elif arguments.csv:
        output.show_csv(DatasetRow._fields, rows)
    elif datasets:
        output.show_table(("dataset", "size", "qc"), list(map(_dataset_cells, datasets)), numbers=(1,))
    if not datasets:
        output.note(f"alfwatchd: {printable(path)} has no datasets")
    return 0


def _dataset_cells(dataset: DatasetRow) -> tuple[str, str, str]:
    size = "?" if dataset.file_size is None else show_bytes(dataset.file_size)
    return dataset.rel_path, size if dataset.exists else "not here", str(dataset.qc or "")


def _below_root(text: str, root: Path | None) -> list[str]:
    """Return what a path of the file system, absolute or from the current folder, is relative to the root."""
    if root is None or "\0" in text:
        return []
    with suppress(ValueError, OSError):
        return [str(Path(os.path.realpath(text)).relative_to(os.path.realpath(root)))]
    return []


def _show_paths(root: Path | None, paths: Sequence[str]) -> None:
    from alfwatchd.query.paths import stays_below

    if root is None:
        raise UsageError("--paths: the tables do not say of which folder they are; give --root DIR")
    below = list(filter(stays_below, paths))
    _show_lines([f"{root}/{path}" for path in below])
    if n_outside := len(paths) - len(below):
        output.note(f"alfwatchd: paths that lead out of {printable(str(root))} are left out: {n_outside}")


def _show_lines(lines: Sequence[str]) -> None:
    """Print one thing a line; a line break in a name must not make two of it."""
    shown = [printable(line) for line in lines]
    if shown:
        output.show("\n".join(shown))
    if shown != list(lines):
        output.note(
            "alfwatchd: names with odd characters, such as line breaks, are shown with escapes; --json has them whole"
        )


COMMAND = Command(
    "ls",
    operands="[EID_OR_PATH]",
    summary="list sessions, or the datasets of one, from the tables on disk",
    description="List sessions from the tables on disk; with EID_OR_PATH, the datasets of one session.",
    examples=_EXAMPLES,
    add_flags=_add_flags,
    run=_run,
)
