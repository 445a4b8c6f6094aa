"""Parquet files that any program may have written: opened and read so that none of them takes all memory.

The footer states rows and sizes, see `footers`. It does not state how long texts become: a million rows can share one
text of a megabyte. So texts are read as dictionaries, whose size is that of the file, and become plain ones only once
their length is known.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alfwatchd.files import open_regular
from alfwatchd.store.footers import check_footer

_MOST_FOOTER_BYTES = 1 << 26
_FREE_BYTES = 1 << 28
_BYTES_PER_BYTE = 200
"""How many bytes in memory one byte on disk may become; the best that was seen with real tables is 30."""


def is_damage(error: Exception) -> bool:
    """Tell whether an error means a damaged file. To try again does not help then, unlike after an error of the disk.

    Arrow raises `OSError` without a number for pages that it cannot take apart, and so do we for sizes that lie.
    """
    return not isinstance(error, OSError) or error.errno in (None, errno.EINVAL)


class CheckedFile:
    """A Parquet file whose rows fit into memory. Used by one thread.

    Parameters
    ----------
    raw : pyarrow.OSFile
        Stays open as long as this is used.

    Raises
    ------
    OSError, pyarrow.ArrowException
        It is damaged, or cannot be what it says.
    """

    def __init__(self, raw: pa.OSFile) -> None:
        plain = pq.ParquetFile(raw)
        n_bytes = raw.size()
        try:
            check_footer(plain.metadata, n_bytes)
        except ValueError as error:
            raise _refusal(str(error)) from error
        self.schema_arrow: pa.Schema = plain.schema_arrow
        self.num_row_groups: int = plain.metadata.num_row_groups
        self._most_bytes = max(_FREE_BYTES, _BYTES_PER_BYTE * n_bytes)
        _check_widths(self.schema_arrow, plain.metadata.num_rows, self._most_bytes)
        texts = [field.name for field in self.schema_arrow if _is_text(field.type)]
        self._file = pq.ParquetFile(
            raw, metadata=plain.metadata, read_dictionary=texts, page_checksum_verification=True
        )

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read all rows.

        Parameters
        ----------
        columns : sequence of str or None
            The columns to read; None for all.

        Raises
        ------
        OSError, pyarrow.ArrowException
            The file is damaged, or its texts would take too much memory.
        """
        return self._plain(self._file.read(self._flat(columns)))

    def read_encoded(self, columns: Sequence[str]) -> pa.Table:
        """Read all rows, each text column as a dictionary: a third of the time of `read`, which raises the same."""
        return self._file.read(self._flat(columns))

    def read_row_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of one row group; as `read`."""
        return self._plain(self._file.read_row_group(number, self._flat(columns)))

    def _flat(self, columns: Sequence[str] | None) -> list[str] | None:
        """Return the columns to read: none with lists, which may be longer than all rows, and which no table has."""
        nested = {field.name for field in self.schema_arrow if pa.types.is_nested(field.type)}
        if columns is None:
            return [name for name in self.schema_arrow.names if name not in nested] if nested else None
        return [name for name in columns if name not in nested]

    def _plain(self, table: pa.Table) -> pa.Table:
        """Return a table of the types that the file tells of."""
        dictionaries = [column for column in table.columns if pa.types.is_dictionary(column.type)]
        n_bytes = sum(_text_bytes(chunk) for column in dictionaries for chunk in column.chunks)
        if n_bytes > self._most_bytes:
            raise _refusal(f"holds texts of {n_bytes} bytes, more than tables have")
        schema = self.schema_arrow
        fields = [schema.field(schema.get_all_field_indices(name)[0]) for name in table.column_names]
        if fields == list(table.schema):
            return table
        return table.cast(pa.schema(fields, table.schema.metadata))


@contextmanager
def open_checked(path: Path) -> Iterator[CheckedFile]:
    """Open a Parquet file, to be read even after another one has replaced it.

    Raises
    ------
    OSError, pyarrow.ArrowException
        It is not there, damaged, or cannot be what it says.
    """
    with open_raw(path) as raw:
        yield CheckedFile(raw)


def read_metadata(path: Path) -> dict[bytes, bytes]:
    """Return what a file says of itself, without reading rows; raises as `open_checked`."""
    with open_raw(path) as raw:
        return pq.read_metadata(raw).metadata or {}


def open_raw(path: Path) -> pa.OSFile:
    """Open a regular file for Arrow, which takes a text path for a URI, and no name that is not UTF-8."""
    with open_regular(path) as file:
        fd = file.fileno()
        _check(fd, path)
        return pa.OSFile(os.fsencode(f"/proc/self/fd/{fd}"))


def _check(fd: int, path: Path) -> None:
    end = os.pread(fd, 8, max(0, os.fstat(fd).st_size - 8))
    if int.from_bytes(end[:4], "little") > _MOST_FOOTER_BYTES:  # Arrow would take as much memory, and read it all
        raise OSError(errno.EINVAL, "is no Parquet file, or a damaged one", str(path))


def _check_widths(schema: pa.Schema, n_rows: int, most_bytes: int) -> None:
    """Make sure that what takes the same space in each row, whatever it is, fits into memory."""
    n_bytes = n_rows * sum(_width(field.type) for field in schema)
    if n_bytes > most_bytes:
        raise _refusal(f"claims {n_rows} rows of {len(schema)} columns, which take {n_bytes} bytes")


def _width(kind: pa.DataType) -> int:
    """Return the bytes that a row of a type takes, without those of a text."""
    if pa.types.is_dictionary(kind):
        return _width(kind.index_type) + _width(kind.value_type)
    try:
        return -(-int(kind.bit_width) // 8)
    except ValueError:
        return 8


def _refusal(reason: str) -> OSError:
    return OSError(errno.EINVAL, reason)


def _is_text(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _text_bytes(chunk: pa.DictionaryArray) -> int:
    """Return the bytes that the texts of a dictionary array take as plain ones."""
    if not _is_text(chunk.dictionary.type):
        return 0
    lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
    return pc.sum(lengths.take(chunk.indices)).as_py() or 0
