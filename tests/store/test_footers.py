"""A table of a few bytes that would fill the memory is refused before its rows are read."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd.store.footers import check_footer


def check(path):
    check_footer(pq.read_metadata(path), path.stat().st_size)


def repeated(n_rows):
    return pa.table({"rel_path": pa.DictionaryArray.from_arrays(np.zeros(n_rows, np.int32), ["alf/spikes.times.npy"])})


# Made by the test, or each process that runs tests would hold 500 MB.
BOMBS = {
    "one text, many times": (lambda: repeated(3_000_000), {}),
    "zeros": (lambda: pa.table({"file_size": np.zeros(20_000_000, np.uint64)}), {"compression": "zstd"}),
    "nulls": (lambda: pa.table({"hash": pa.nulls(3_000_000)}), {}),
    "a long text": (
        lambda: pa.table({"rel_path": ["a" * (1 << 27)]}),
        {"compression": "zstd", "use_dictionary": False, "write_statistics": False},
    ),
    "columns": (lambda: pa.table({f"c{number}": [1] for number in range(1200)}), {}),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_what_cannot_be_is_found_in_the_footer(tmp_path, bomb):
    make, options = bomb
    path = tmp_path / "datasets.pqt"
    pq.write_table(make(), path, **options)
    with pytest.raises(ValueError, match="claims"):
        check(path)


def test_real_tables_pass(tmp_path):
    path = tmp_path / "datasets.pqt"
    names = [f"alf/probe{probe:02d}/object{number}.attribute.npy" for probe in range(4) for number in range(30)]
    eids = [f"lab/subject{number // 100}/2020-01-01/{number % 100:03d}" for number in range(4000)]
    tables = {
        "paths": {"eid": np.repeat(eids, len(names)), "rel_path": names * len(eids)},
        "few": {"eid": ["a"], "rel_path": ["b"]},
        "none": {"eid": pa.array([], pa.string())},
        "uuids": {"id": [os.urandom(16).hex() for _ in range(20_000)]},
    }
    for columns in tables.values():
        for options in ({}, {"compression": "zstd", "compression_level": 15}, {"compression": "gzip"}):
            pq.write_table(
                pa.table({**columns, "exists": np.ones(len(next(iter(columns.values()))), bool)}), path, **options
            )
            check(path)
