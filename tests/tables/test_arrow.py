"""Arrow arrays made by their buffers are what `pyarrow.array` makes of the same values."""

import datetime
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from alfwatchd.tables import arrow

RANDOM = random.Random(0)
RAW_IDS = [bytes(16), bytes(range(16)), b"\xff" * 16, *(RANDOM.randbytes(16) for _ in range(50))]


def as_uuid(raw):
    text = raw.hex()
    return "-".join([text[:8], text[8:12], text[12:16], text[16:20], text[20:]])


@pytest.mark.parametrize(
    "texts",
    [[], [""], ["a", "", "bc"], ["é", "plain", "日本", ""], ["x" * 300, "y"]],
    ids=lambda texts: f"{len(texts)}",
)
def test_strings(texts):
    made = arrow.strings(texts)
    made.validate(full=True)
    assert made.equals(pa.array(texts, pa.string()))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([0, 2**64 - 1], np.uint64), pa.uint64()),
        (np.array([1, 999], np.uint16), pa.uint16()),
        (np.array([], np.int64), pa.int64()),
        (np.arange(10, dtype=np.int64)[::2], pa.int64()),
    ],
)
def test_numbers(values, kind):
    assert arrow.numbers(values, kind).equals(pa.array(values.tolist(), kind))


def test_dates():
    days = np.array([0, -1, 18262], np.int32)
    expected = [datetime.date(1970, 1, 1), datetime.date(1969, 12, 31), datetime.date(2020, 1, 1)]
    assert arrow.numbers(days, pa.date32()).to_pylist() == expected


@pytest.mark.parametrize("n_values", [0, 1, 7, 8, 9, 100])
def test_booleans(n_values):
    values = [RANDOM.random() < 0.5 for _ in range(n_values)]
    assert arrow.booleans(np.array(values, bool)).to_pylist() == values


def test_categories():
    made = arrow.categories(np.array([0, 2, 1], np.int8), ["low", "mid", "high"])
    assert made.to_pylist() == ["low", "high", "mid"]
    assert made.type.ordered
    assert made.dictionary.to_pylist() == ["low", "mid", "high"]


def test_uuids():
    raw = np.frombuffer(b"".join(RAW_IDS), np.uint8)
    assert arrow.uuids(raw).to_pylist() == [as_uuid(each) for each in RAW_IDS]
    assert arrow.uuids(raw.reshape(-1, 16)[1:3]).to_pylist() == [as_uuid(each) for each in RAW_IDS[1:3]]
    assert arrow.uuids(raw[:0]).to_pylist() == []


@pytest.mark.parametrize("values", [[], [b""], RAW_IDS[1:4], [b"", RAW_IDS[5], b"", RAW_IDS[6]]], ids=len)
def test_digests(values):
    raw = np.frombuffer(b"".join(value or bytes(16) for value in values), np.uint8).reshape(-1, 16)
    made = arrow.digests(raw)
    made.validate(full=True)
    assert made.to_pylist() == [value.hex() or None for value in values]


def test_pandas_is_not_imported():
    code = """
import sys
import numpy as np, pyarrow as pa
from alfwatchd.tables import arrow
arrow.strings(["a"]).take(arrow.numbers(np.array([0]), pa.int64()))
arrow.digests(np.ones((1, 16), np.uint8)), arrow.booleans(np.array([True])), arrow.uuids(np.zeros(16, np.uint8))
arrow.categories(np.zeros(1, np.int8), ["x"])
print("pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
