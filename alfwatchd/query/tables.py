"""The two tables, read from disk as far as a question needs them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.errors import TablesError
from alfwatchd.store.parquet import CheckedFile
from alfwatchd.store.reader import open_pair_of_any_program, read_origins
from alfwatchd.tables import arrow

PATIENCE_SECONDS = 30.0
"""A flush lets 20 s pass between its two files if a reader has opened only one of them."""
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)

_NO_DAY = np.iinfo(np.int32).max
_EPOCH = date(1970, 1, 1).toordinal()

Codes = npt.NDArray[np.int64]


class Tables:
    """The tables of one generation. Columns are read when they are asked for, as long as the files are open.

    Parameters
    ----------
    folder : Path
    sessions, datasets : CheckedFile
    generation : int
        0 for tables that another program wrote.
    """

    def __init__(self, folder: Path, sessions: CheckedFile, datasets: CheckedFile, generation: int) -> None:
        self.folder = folder
        self.generation = generation
        self._file = datasets
        self._names = _require(folder / DATASETS, datasets, ("eid",), ("rel_path",))
        self.sessions = _read_sessions(folder / SESSIONS, sessions)

    @property
    def n_sessions(self) -> int:
        """Number of sessions."""
        return len(self.sessions)

    @cached_property
    def eids(self) -> pa.StringArray:
        """The id of each session."""
        return combine(self.sessions.column("id"))

    @cached_property
    def days(self) -> Codes:
        """Day of each session, as `day_of` counts."""
        return arrow.values(combine(self.sessions.column("date").cast(pa.int32())), np.dtype(np.int32)).astype(np.int64)

    @cached_property
    def numbers(self) -> Codes:
        """Number of each session."""
        return arrow.values(combine(self.sessions.column("number")), np.dtype(np.int64))

    @cached_property
    def _is_here(self) -> pa.ChunkedArray | None:
        """Whether the file of each dataset is here, null where that is not known; None if all are."""
        if "exists" not in self._names:
            return None
        is_here = self._column("exists", pa.bool_())
        return is_here if is_here.null_count or pc.any(pc.invert(is_here)).as_py() else None

    @cached_property
    def session_of(self) -> Codes:
        """Row of the session of each dataset that is here; -1 if the table of sessions lacks it."""
        codes, own_ids = _encode(self._here("eid"))
        rows = arrow.values(pc.index_in(own_ids, value_set=self.eids), np.dtype(np.int32), -1).astype(np.int64)
        return np.append(rows, -1)[codes]

    @cached_property
    def rel_paths(self) -> tuple[Codes, list[str]]:
        """For each dataset that is here an index into the paths that occur, and these paths."""
        codes, paths = _encode(self._here("rel_path"))
        return codes, [str(path) for path in paths.to_pylist()]

    @cached_property
    def sizes(self) -> npt.NDArray[np.float64]:
        """Bytes of each dataset that is here, 0 if that is not known."""
        if "file_size" not in self._names:
            return np.zeros(len(self.session_of))
        found = arrow.values(combine(self._here("file_size", pa.float64())), np.dtype(np.float64))
        return np.where(np.isfinite(found) & (found > 0), found, 0)  # in tables of others, NaN means not known

    def count(self, chosen: npt.NDArray[np.bool_] | None = None) -> Codes:
        """Return the number of datasets of each session; only of those that are chosen, if any are."""
        rows = self.session_of if chosen is None else self.session_of[chosen]
        return np.bincount(rows + 1, minlength=self.n_sessions + 1)[1:]

    def count_bytes(self) -> list[int]:
        """Return the bytes of each session, exact up to 9 PB."""
        counted = np.bincount(self.session_of + 1, weights=self.sizes, minlength=self.n_sessions + 1)[1:]
        return [int(each) for each in counted.tolist()]

    def having(self, matches: Callable[[str], bool]) -> npt.NDArray[np.bool_]:
        """Tell for each session whether one of its datasets matches; each path that occurs is asked for once."""
        codes, paths = self.rel_paths
        matching = np.fromiter((matches(path) for path in paths), np.bool_, len(paths))
        return self.count(np.append(matching, False)[codes]) > 0

    def datasets_of(self, eid: str, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return columns of all datasets of a session; a column that the table lacks is left out.

        Only the ids of row groups without datasets of the session are read.
        """
        own_id, found = arrow.strings([eid]), list[dict[str, Any]]()
        names = [name for name in names if name in self._names]
        with told_of(self.folder / DATASETS):
            for number in range(self._file.num_row_groups):
                ids = _with_ids(self._file.read_row_group(number, _halves("eid")), "eid").column("eid")
                is_meant = pc.is_in(ids.cast(pa.string()), value_set=own_id)
                if pc.any(is_meant).as_py():
                    columns = [spelling for name in names for spelling in _halves(name)]
                    rows = self._file.read_row_group(number, columns).filter(is_meant)
                    rows.validate(full=True)
                    found += _with_ids(rows, "id").select(names).to_pylist()
        return found

    def _here(self, name: str, kind: pa.DataType | None = None) -> pa.ChunkedArray:
        column = self._column(name, kind)
        return column if self._is_here is None else column.filter(self._is_here)

    def _column(self, name: str, kind: pa.DataType | None = None) -> pa.ChunkedArray:
        with told_of(self.folder / DATASETS):
            table = self._file.read_encoded(_halves(name))
            table.validate(full=True)  # damaged text or indices would fail anywhere later
            column = _with_ids(table, name).column(name)
            return column if kind is None else column.cast(kind, safe=False)


@contextmanager
def open_tables(folder: Path) -> Iterator[Tables]:
    """Open the tables in a folder, both of one generation.

    Raises
    ------
    TablesError
        They are not there, damaged, not of one generation for 30 seconds, or have no columns that are known.
    """
    with open_pair_of_any_program(folder, PATIENCE_SECONDS) as (sessions, datasets, generation):
        yield Tables(folder, sessions, datasets, generation)


@contextmanager
def told_of(path: Path) -> Iterator[None]:
    """Turn what Arrow raises for a damaged file into an error that names the file."""
    try:
        yield
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise TablesError(f"{path}: is damaged ({error}); remove it, and let alfwatchd write it again") from error


def find_origin(folder: Path) -> Path | None:
    """Return the root that tables say they are of; None if they do not name exactly one."""
    origins = read_origins(folder)
    return Path(os.path.normpath(origins[0])) if len(origins) == 1 else None


_SESSION_COLUMNS = {
    "id": pa.string(),
    "lab": pa.string(),
    "subject": pa.string(),
    "date": pa.date32(),
    "number": pa.int64(),
    "task_protocol": pa.string(),
    "projects": pa.string(),
}


_OTHER_SPELLINGS = {"id": ("id_0", "id_1"), "eid": ("eid_0", "eid_1"), "projects": ("project",)}


def _read_sessions(path: Path, file: CheckedFile) -> pa.Table:
    """Return the sessions that have all that a session must have, with columns of one type each."""
    _require(path, file, ("id",), ("subject", "date", "number"))
    with told_of(path):
        table = file.read([spelling for name in _SESSION_COLUMNS for spelling in _halves(name)])
        table.validate(full=True)
        table = _with_ids(table, "id")
        if "project" in table.column_names and "projects" not in table.column_names:  # as Alyx called it
            table = table.append_column("projects", table.column("project"))
        columns = {
            name: table.column(name).cast(kind) if name in table.column_names else pa.nulls(len(table), kind)
            for name, kind in _SESSION_COLUMNS.items()
        }
        days = arrow.values(combine(columns["date"].cast(pa.int32())), np.dtype(np.int32), _NO_DAY)
        is_complete = (days >= day_of(date.min)) & (days <= day_of(date.max))  # what Python can tell
        for name in ("id", "subject", "number"):
            is_complete &= arrow.is_valid(combine(columns[name]))
        return pa.table(columns).filter(arrow.booleans(is_complete))


def _halves(name: str) -> list[str]:
    """Return a column and those in which another program may keep it: an id as two numbers, as ONE 1 did."""
    return [name, *_OTHER_SPELLINGS.get(name, ())]


def _with_ids(table: pa.Table, name: str) -> pa.Table:
    """Return a table in which an id is one text, if its name is that of an id and two numbers are there for it."""
    if name in table.column_names or not set(_halves(name)) - {name} <= set(table.column_names):
        return table
    from alfwatchd.tables.database_columns import read_ids  # only old tables need it, and it takes a while

    return table.append_column(name, arrow.uuids(read_ids(table, name)))


def _require(path: Path, file: CheckedFile, ids: tuple[str, ...], texts: tuple[str, ...]) -> set[str]:
    """Return the columns of a table, ids as one; raise `TablesError` if it lacks a column that it must have."""
    schema = file.schema_arrow
    names = {name for name in schema.names if len(schema.get_all_field_indices(name)) == 1}
    names |= {name for name in ("id", "eid") if {f"{name}_0", f"{name}_1"} <= names}
    if lacking := [name for name in (*ids, *texts) if name not in names]:
        raise TablesError(
            f"{path}: has no column {' and no column '.join(lacking)}, so neither alfwatchd nor ONE wrote it; "
            "let alfwatchd write the tables"
        )
    for name in {*ids, *texts} & {"id", "eid", "rel_path", "subject"} & set(schema.names):
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not any(is_kind(kind) for is_kind in (*_TEXTS, pa.types.is_null)):
            raise TablesError(f"{path}: its column {name} holds {kind}, not texts; let alfwatchd write the tables")
    return names


def day_of(day: date) -> int:
    """Return the number of days since 1970, as the tables have it."""
    return day.toordinal() - _EPOCH


def date_of(day: int) -> date:
    """Return the date of a number of days since 1970."""
    return date.fromordinal(day + _EPOCH)


def combine(column: pa.ChunkedArray) -> pa.Array:
    """Return the values of a column in one piece."""
    column = column.combine_chunks()
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _encode(column: pa.ChunkedArray) -> tuple[Codes, pa.StringArray]:
    """Return for each row an index into the texts that a column holds, -1 for null, and these texts, each once."""
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    whole = combine(column.unify_dictionaries())
    texts = whole.dictionary.cast(pa.string())
    once = texts.unique()
    codes = arrow.values(whole.indices.cast(pa.int32()), np.dtype(np.int32), -1)
    if len(once) < len(texts):  # a file of another program may name a text twice
        places = arrow.values(pc.index_in(texts, value_set=once), np.dtype(np.int32), -1)
        codes = np.append(places, np.int32(-1))[codes]
    return codes.astype(np.int64), once
