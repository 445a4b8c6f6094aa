"""Selects the rows of the tables that a target gets, and makes a digest of their content."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alfwatchd.tables import arrow

_UNUSED = arrow.strings([str(uuid.UUID(int=0)), uuid.UUID(int=0).hex])
"""Entries of the dictionary of eids that no row uses; `tables.columns` says why ONE needs them."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects the sessions that match every list that is not empty, and their datasets.

    Parameters
    ----------
    projects, subjects, labs : tuple of str
    """

    projects: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    labs: tuple[str, ...] = ()

    @property
    def is_all(self) -> bool:
        """Whether all sessions are selected."""
        return not (self.projects or self.subjects or self.labs)

    def sessions(self, sessions: pa.Table) -> pa.Table:
        """Return the rows of the sessions table that are selected.

        A session has any number of projects, with commas between them.
        """
        for name, wanted in (("subject", self.subjects), ("lab", self.labs)):
            if wanted:
                sessions = sessions.filter(pc.is_in(sessions.column(name), value_set=arrow.strings(wanted)))
        if self.projects:
            names = frozenset(self.projects)
            texts = pc.unique(sessions.column("projects")).to_pylist()
            fitting = [text for text in texts if not names.isdisjoint(map(str.strip, (text or "").split(",")))]
            sessions = sessions.filter(pc.is_in(sessions.column("projects"), value_set=arrow.strings(fitting)))
        return sessions


def select_datasets(datasets: pa.Table, eids: pa.Array) -> pa.Table:
    """Return the rows of the datasets table whose `eid` is one of `eids`; ids are plain strings, see `plain_ids`."""
    return datasets.filter(pc.is_in(datasets.column("eid"), value_set=eids))


def plain_ids(table: pa.Table) -> pa.Table:
    """Return a table with eid and id as strings: dictionaries in a file also hold ids of rows that are not selected."""
    for name in {"eid", "id"} & set(table.column_names):
        if pa.types.is_dictionary(table.schema.field(name).type):
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, table.column(name).cast(pa.string()))
    return table


def as_rows_of(schema: pa.Schema, table: pa.Table) -> pa.Table:
    """Return rows with plain ids as one row group of a file; ids become dictionaries where the schema has them."""
    columns = []
    for name in schema.names:
        column = table.column(name).combine_chunks()
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if pa.types.is_dictionary(schema.field(name).type) and not pa.types.is_dictionary(column.type):
            column = _as_dictionary(column, _UNUSED if name == "eid" else _UNUSED[:0])
        columns.append(column)
    return pa.table(columns, schema=schema)


def _as_dictionary(texts: pa.StringArray, unused: pa.StringArray) -> pa.DictionaryArray:
    encoded = pc.dictionary_encode(texts)
    places = arrow.values(encoded.indices, np.dtype(np.int32)) + np.int32(len(unused))
    entries = pa.concat_arrays([unused, encoded.dictionary.cast(pa.string())])
    return pa.DictionaryArray.from_arrays(arrow.numbers(places, pa.int32()), entries)


@dataclass(slots=True)
class ContentDigest:
    """A digest of rows that does not depend on how they are divided into row groups and files.

    Parameters
    ----------
    described : dict
        Metadata that is part of the content, too; JSON values.
    """

    described: dict[str, Any]
    _columns: dict[str, tuple[Any, Any, Any]] = field(default_factory=dict)

    def add(self, table: str, rows: pa.Table) -> None:
        """Add rows of a table, in their order there; `table` is its name."""
        for name in rows.column_names:
            key = f"{table}.{name}:{rows.schema.field(name).type}"
            if key not in self._columns:
                self._columns[key] = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
            nulls, sizes, values = self._columns[key]
            for chunk in rows.column(name).chunks:
                column = chunk.cast(pa.string()) if pa.types.is_dictionary(chunk.type) else chunk
                nulls.update(_bytes_of(pc.is_null(column).cast(pa.uint8())))
                if pa.types.is_null(column.type):
                    continue
                column = column.drop_null()  # their places are in the first digest
                if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                    sizes.update(_bytes_of(pc.binary_length(column)))
                    values.update(_text_of(column))
                else:
                    values.update(_bytes_of(_as_numbers(column)))

    def hexdigest(self) -> str:
        """Return 64 hexadecimal digits."""
        parts = {key: [each.hexdigest() for each in found] for key, found in self._columns.items()}
        return hashlib.sha256(json.dumps([self.described, parts], sort_keys=True).encode()).hexdigest()


def _as_numbers(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_boolean(kind):
        return column.cast(pa.uint8())
    # Other programs may add columns of any type; there are few.
    return column if pa.types.is_primitive(kind) else column.cast(pa.string())


def _bytes_of(column: pa.Array) -> bytes | memoryview:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _text_of(column)
    width = column.type.bit_width // 8
    start = column.offset * width
    return memoryview(column.buffers()[1])[start : start + len(column) * width] if len(column) else b""


def _text_of(column: pa.Array) -> bytes | memoryview:
    if not len(column):
        return b""
    _, offsets, data = column.buffers()
    kind = np.int64 if pa.types.is_large_string(column.type) else np.int32
    ends = np.frombuffer(offsets, kind)[column.offset : column.offset + len(column) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])] if data is not None else b""
