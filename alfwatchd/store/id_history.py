"""The file of ids that have changed: `id_changes.parquet` in the state folder."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alfwatchd.api import IdsReply
from alfwatchd.atomic import write_atomically
from alfwatchd.errors import StateError, UsageError
from alfwatchd.store import reader
from alfwatchd.store.parquet import CheckedFile, is_damage, open_checked
from alfwatchd.tables import arrow
from alfwatchd.tables.id_changes import SCHEMA, follow, parse

NAME = "id_changes.parquet"
_MOST_STEPS = 1000
_ROWS_PER_GROUP = 1 << 16

_one_at_a_time = threading.Lock()
"""One question at a time: many clients that ask at once would take many times the memory."""


def record(state_dir: Path, changes: pa.Table) -> None:
    """Add changes to those that are known. A damaged file is renamed, so that a person can try to repair it.

    Parameters
    ----------
    state_dir : Path
    changes : pyarrow.Table
        Of `SCHEMA`.

    Raises
    ------
    OSError
        They could not be written, or the file cannot be read now; it is as it was.
    """
    path = state_dir / NAME
    known: list[pa.Table] = []
    try:
        if path.exists():
            known = [reader.read_file(path).cast(SCHEMA)]
    except (OSError, pa.ArrowException, ValueError) as error:
        if not is_damage(error):
            raise
        path.replace(path.with_name(f"{NAME}.damaged-{time.time_ns()}"))
    joined = pa.concat_tables([*known, changes])
    write = partial(pq.write_table, joined, compression="zstd", row_group_size=_ROWS_PER_GROUP)
    write_atomically(path, write)


def find_id(state_dir: Path, out_dir: Path, old: str) -> IdsReply:
    """Tell what became of an id. Any thread may ask.

    Parameters
    ----------
    state_dir : Path
    out_dir : Path
        Folder of the tables: an id that they hold counts as not changed.
    old : str

    Raises
    ------
    UsageError
        It is not a UUID.
    StateError
        The file of changes cannot be read.
    """
    parsed = parse(old)
    if parsed is None:
        raise UsageError(f"{old[:80]!r}: not an id; give a UUID, as in the columns eid and id of the tables")
    with _one_at_a_time:
        rows = _rows(state_dir / NAME, parsed)
        held = reader.find_ids(out_dir, {parsed, *(str(row["new"]) for row in rows)}) if rows else {}
    steps = follow(rows, parsed, held)
    return IdsReply(parsed, steps[-1].new if steps else parsed, steps)


def _rows(path: Path, old: str) -> list[dict[str, object]]:
    """Return the changes of an id, and of those that it changed to, in the order in which they were recorded."""
    seen: set[str] = set()
    rows: dict[int, dict[str, object]] = {}
    wanted = {old}
    try:
        with open_checked(path) as file:
            while wanted and len(seen) < _MOST_STEPS:
                found = _rows_of(file, wanted)
                seen |= wanted
                rows |= found
                wanted = {str(row["new"]) for row in found.values()} - seen
    except FileNotFoundError:
        return []
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise StateError(f"{path}: cannot be read ({error}), so changed ids are not known; restore the file") from error
    return [row for _, row in sorted(rows.items())]


def _rows_of(file: CheckedFile, wanted: set[str]) -> dict[int, dict[str, object]]:
    """Return by their place the rows whose old id is one of these, with one row group at a time in memory."""
    values, found, first = arrow.strings(sorted(wanted)), {}, 0
    for group in range(file.num_row_groups):
        olds = file.read_row_group(group, ["old"]).column("old")
        places = pc.indices_nonzero(pc.is_in(olds, value_set=values))
        if len(places):
            rows = file.read_row_group(group).take(places).to_pylist()
            found.update({first + place: row for place, row in zip(places.to_pylist(), rows, strict=True)})
        first += len(olds)
    return found


@dataclass(frozen=True, slots=True)
class IdsChanged:
    """How many rows of the tables the database knows, and how many ids this has changed."""

    n_sessions: int
    n_datasets: int
    n_changes: int
