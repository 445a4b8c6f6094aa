"""Reads sessions and their datasets from the tables on disk: they are what a command will load.

pyarrow is imported when the first table is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alfwatchd.errors import TablesError
from alfwatchd.follow.completeness import Dataset
from alfwatchd.follow.follower import Session

if TYPE_CHECKING:
    import pyarrow as pa

    from alfwatchd.store.parquet import CheckedFile

_COLUMNS = ("eid", "rel_path", "file_size", "hash")


@contextmanager
def open_sessions(folder: Path, root: str) -> Iterator[tuple[int, Iterator[Session]]]:
    """Open the tables, to read all sessions that have datasets here.

    Parameters
    ----------
    folder : Path
        Of the tables.
    root : str
        Folder that they list.

    Yields
    ------
    tuple
        Generation of the tables, and the sessions, in the order of eids.

    Raises
    ------
    TablesError
        They cannot be read now; as `store.reader.open_pair`.
    """
    from alfwatchd.query.conditions import Conditions
    from alfwatchd.query.paths import SessionFolders
    from alfwatchd.query.sessions import find_sessions
    from alfwatchd.query.tables import Tables
    from alfwatchd.store.reader import open_pair

    with open_pair(folder) as (sessions, datasets, generation):
        folders, tables = SessionFolders(Path(root)), Tables(folder, sessions, datasets, generation)
        paths = {row.eid: folders.find(row) for row in find_sessions(tables, Conditions())}
        yield (
            generation,
            (
                Session(paths[eid], eid, tuple(Dataset(*row[1:]) for row in rows))
                for eid, rows in groupby(_rows(folder, datasets, None), itemgetter(0))
                if eid in paths
            ),
        )


def read_some(folder: Path, paths: Mapping[str, str]) -> tuple[int, dict[str, Session]]:
    """Return the generation of the tables, and those of some sessions that have datasets here, by eid.

    Parameters
    ----------
    folder : Path
        Of the tables.
    paths : mapping of str to str
        Eid -> path of the sessions.

    Raises
    ------
    TablesError
        They cannot be read now; as `store.reader.open_pair`.
    """
    if not paths:
        return -1, {}
    from alfwatchd.store.reader import open_pair

    with open_pair(folder) as (_, datasets, generation):
        return generation, {
            eid: Session(paths[eid], eid, tuple(Dataset(*row[1:]) for row in rows))
            for eid, rows in groupby(_rows(folder, datasets, paths), itemgetter(0))
        }


def _rows(folder: Path, datasets: CheckedFile, eids: Mapping[str, str] | None) -> Iterator[tuple[Any, ...]]:
    """Yield (eid, rel_path, file_size, hash) of datasets that are here; they are in the order of eids."""
    import pyarrow.compute as pc

    from alfwatchd.tables import arrow

    wanted = arrow.strings(sorted(eids)) if eids is not None else None
    for number in range(datasets.num_row_groups):
        with _told_of(folder):
            if wanted is not None:  # most groups hold none of them
                is_wanted = pc.is_in(_texts(datasets.read_row_group(number, ["eid"])), value_set=wanted)
                if not pc.any(is_wanted).as_py():
                    continue
            rows = datasets.read_row_group(number, [*_COLUMNS, "exists"])
            if wanted is not None:
                rows = rows.filter(is_wanted)
            rows = rows.filter(rows.column("exists"))
            found = [_values(rows.column(name)) for name in _COLUMNS]
        yield from zip(*found, strict=True)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return the values of a column; `to_pylist` takes ten times as long for texts that occur often."""
    import numpy as np
    import pyarrow as pa

    from alfwatchd.tables import arrow

    if pa.types.is_null(column.type):
        return [None] * len(column)
    if pa.types.is_integer(column.type):
        found: list[Any] = []
        for chunk in column.chunks:
            found += arrow.values(chunk.cast(pa.int64()), np.dtype(np.int64)).tolist()
        return found
    found = []
    for chunk in column.chunks:
        encoded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        texts = [*encoded.dictionary.to_pylist(), None]
        places = arrow.values(encoded.indices.cast(pa.int32()), np.dtype(np.int32), -1).tolist()
        found += map(texts.__getitem__, places)
    return found


def _texts(rows: pa.Table) -> pa.ChunkedArray:
    import pyarrow as pa

    return rows.column("eid").cast(pa.string())


@contextmanager
def _told_of(folder: Path) -> Iterator[None]:
    """Turn what Arrow raises for a damaged table into an error that names the folder."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise TablesError(f"{folder}: the tables cannot be read ({error}); let alfwatchd write them again") from error
