"""Checks, before any row is read, whether a Parquet file can be what its footer says.

A file of a few kilobytes can claim so many rows, or so long a content, that reading it takes all memory. Real tables of
sessions and datasets are never that small: each row has an id, or a path, of its own.
"""

from __future__ import annotations

import pyarrow.parquet as pq

_FREE_ROWS = 1_000_000
_ROWS_PER_BYTE = 8
"""With UUIDs a row takes 16 bytes at least, with paths as ids 2: the sizes of the files differ."""
_FREE_BYTES = 1 << 26
_BYTES_PER_BYTE = 200
"""How many bytes in memory one byte on disk may become; the best that was seen with real tables is 30."""
_MOST_COLUMNS = 1000
_MOST_ROW_GROUPS = 1 << 16


def check_footer(metadata: pq.FileMetaData, n_bytes: int) -> None:
    """Make sure that a file of `n_bytes` can hold what its footer says.

    Parameters
    ----------
    metadata : pyarrow.parquet.FileMetaData
        Reading it reads no row.
    n_bytes : int
        Size of the whole file.

    Raises
    ------
    ValueError
        It cannot, or no table of ours or of a database looks like that; the message says why. Reading it might take all
        memory.
    """
    if metadata.num_columns > _MOST_COLUMNS or metadata.num_row_groups > _MOST_ROW_GROUPS:
        raise ValueError(f"claims {metadata.num_columns} columns and {metadata.num_row_groups} row groups")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = [metadata.num_rows, *(group.num_rows for group in groups)]
    if min(rows) < 0 or metadata.num_rows != sum(rows[1:]):
        raise ValueError(f"claims {metadata.num_rows} rows, and its row groups {sum(rows[1:])}")
    if metadata.num_rows > max(_FREE_ROWS, _ROWS_PER_BYTE * n_bytes):
        raise ValueError(f"has {n_bytes} bytes, and claims {metadata.num_rows} rows, which do not fit into them")
    # Not those of the columns: pyarrow ends the process where it is asked for a column of some damaged footers.
    sizes = [group.total_byte_size for group in groups]
    if min(sizes, default=0) < 0 or sum(sizes) > max(_FREE_BYTES, _BYTES_PER_BYTE * n_bytes):
        raise ValueError(f"has {n_bytes} bytes, and claims a content of {sum(sizes)} bytes")
