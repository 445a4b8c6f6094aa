"""Which session had which eid when the last process ended, and what it held: a file in the state folder.

The file may be missing, damaged or old: then a session that was renamed while no process ran counts as a new one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alfwatchd.atomic import write_atomically
from alfwatchd.files import FileVersion
from alfwatchd.store.reader import read_file
from alfwatchd.tables import arrow
from alfwatchd.tables.eids import Eids
from alfwatchd.tables.row_groups import Partition
from alfwatchd.tree.renames import contents_of

_log = logging.getLogger(__name__)

NAME = "eids.parquet"
_WRITTEN = b"alfwatchd_sessions"
_ID = pa.binary(16)


@dataclass(frozen=True, slots=True)
class KnownEids:
    """What an earlier process left.

    Parameters
    ----------
    given : Eids
        Eids and which of them are a database's; `odd` and `losers` are empty.
    contents : dict of str to bytes
        Session path -> `renames.contents_of`; only of sessions with datasets.
    """

    given: Eids
    contents: dict[str, bytes]


def save(folder: Path, partition: Partition, mark: FileVersion) -> None:
    """Save what is known. A failure is logged: the next process then does not notice what was renamed.

    Parameters
    ----------
    folder : Path
    partition : Partition
        What the tables hold.
    mark : FileVersion
        Of the sessions table.
    """
    given, paths = partition.given, sorted(partition.eids)
    here = [partition.sessions[path] for path in paths]
    table = pa.table(
        {
            "path": arrow.strings(paths),
            "eid": _packed([given.eids[path] for path in paths]),
            "contents": _packed([contents_of(session) or bytes(16) for session in here]),
            "adopted": arrow.booleans(np.array([path in given.adopted for path in paths], np.bool_)),
        }
    ).replace_schema_metadata({_WRITTEN: repr(mark).encode()})
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        write_atomically(folder / NAME, partial(pq.write_table, table, compression="zstd"))
    except (OSError, pa.ArrowException) as error:
        _log.warning("contents of sessions not saved, so the next process misses earlier renames error=%s", error)


def load(folder: Path, mark: FileVersion | None) -> tuple[KnownEids, bool] | None:
    """Return what `save` kept, and whether the sessions table is still that one; None if there is nothing."""
    try:
        table = read_file(folder / NAME)
        columns = [table.column(name).to_pylist() for name in ("path", "eid", "contents", "adopted")]
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    paths, eids, contents, adopted = columns
    held = {path: known for path, known in zip(paths, contents, strict=True) if any(known)}
    given = Eids(
        dict(zip(paths, eids, strict=True)),
        {},
        frozenset(path for path, is_known in zip(paths, adopted, strict=True) if is_known),
        frozenset(),
    )
    is_current = mark is not None and (table.schema.metadata or {}).get(_WRITTEN) == repr(mark).encode()
    return KnownEids(given, held), is_current


def _packed(values: list[bytes]) -> pa.Array:
    return pa.Array.from_buffers(_ID, len(values), [None, pa.py_buffer(b"".join(values))])
