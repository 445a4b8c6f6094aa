"""The file of ids that have changed: `id_changes.parquet` in the state folder."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alfwatchd.atomic import write_atomically
from alfwatchd.core.id_changes import SCHEMA, follow, parse
from alfwatchd.core.replies import IdsReply, IdStep
from alfwatchd.errors import UsageError
from alfwatchd.stored import read_file

NAME = "id_changes.parquet"
_MOST_STEPS = 1000


def record(state_dir: Path, changes: pa.Table) -> None:
    """Add changes to those that are known.

    Parameters
    ----------
    state_dir : Path
    changes : pyarrow.Table
        Of `SCHEMA`.

    Raises
    ------
    OSError
        They could not be written; the file is as it was.
    """
    path = state_dir / NAME
    known = _read(path)
    if known is None and path.exists():  # not to be lost: somebody may be able to mend it
        path.replace(path.with_name(f"{NAME}.damaged"))
    joined = changes if known is None else pa.concat_tables([known, changes])
    write_atomically(path, partial(pq.write_table, joined, compression="zstd"))


def find_id(state_dir: Path, old: str) -> IdsReply:
    """Tell what became of an id.

    Raises
    ------
    UsageError
        It is no UUID.
    """
    parsed = parse(old)
    if parsed is None:
        raise UsageError(f"{old[:80]!r}: no id; give a UUID, as in the columns eid and id of the tables")
    steps = _steps(state_dir, parsed)
    return IdsReply(parsed, steps[-1].new if steps else parsed, steps)


def _steps(state_dir: Path, old: str) -> list[IdStep]:
    changes = _read(state_dir / NAME)
    if changes is None:
        return []
    seen: set[str] = set()
    rows: list[dict[str, object]] = []
    wanted = {old}
    while wanted and len(seen) < _MOST_STEPS:
        part = changes.filter(pc.is_in(changes.column("old"), value_set=pa.array(sorted(wanted), pa.string())))
        seen |= wanted
        rows += part.to_pylist()
        wanted = {str(new) for new in part.column("new").to_pylist()} - seen
    return follow(rows, old)


def _read(path: Path) -> pa.Table | None:
    with suppress(OSError, pa.ArrowException):
        table = read_file(path)
        return table if table.schema.equals(SCHEMA) else None
    return None
