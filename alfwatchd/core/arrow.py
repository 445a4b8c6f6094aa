"""Arrow arrays from plain values, by their buffers: `pyarrow.array` would import pandas, which takes half a second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_HEX_PLACES = [*range(8), *range(9, 13), *range(14, 18), *range(19, 23), *range(24, 36)]
"""Where the hex digits stand in the text of a UUID; hyphens are between them."""


def strings(texts: Sequence[str]) -> pa.StringArray:
    """Return texts as an array of strings, none of them null."""
    joined = "".join(texts)
    data = joined.encode()
    sizes: Sequence[int] = list(map(len, texts))
    if len(data) != len(joined):
        sizes = [len(text.encode()) for text in texts]
    offsets = np.zeros(len(texts) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(data))


def numbers(values: npt.NDArray[np.generic], kind: pa.DataType) -> pa.Array:
    """Return numbers as an array of a type of the same width, none of them null."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def booleans(values: npt.NDArray[np.bool_]) -> pa.BooleanArray:
    """Return truth values as an array, none of them null."""
    bits = np.packbits(values, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])


def categories(codes: npt.NDArray[np.int8], names: Sequence[str]) -> pa.DictionaryArray:
    """Return codes into `names` as an ordered dictionary array."""
    return pa.DictionaryArray.from_arrays(numbers(codes, pa.int8()), strings(names), ordered=True)


def uuids(raw: npt.NDArray[np.uint8]) -> pa.StringArray:
    """Return ids as hyphenated lower-case UUID strings.

    Parameters
    ----------
    raw : numpy.ndarray
        Bytes of all ids, one after the other; 16 each.
    """
    n_ids = raw.size // 16
    text = np.full((n_ids, 36), ord("-"), np.uint8)
    text[:, _HEX_PLACES] = _hex(raw).reshape(n_ids, 32)
    offsets = np.arange(0, 36 * (n_ids + 1), 36, dtype=np.int32)
    return pa.StringArray.from_buffers(n_ids, pa.py_buffer(offsets), pa.py_buffer(text))


def digests(raw: npt.NDArray[np.uint8]) -> pa.StringArray:
    """Return digests as lower-case hex.

    Parameters
    ----------
    raw : numpy.ndarray
        Shape (n_digests, 16); a digest of zeros is not known, and null in the result.
    """
    is_known = raw.any(axis=1)
    offsets = np.zeros(len(raw) + 1, np.int32)
    np.cumsum(2 * raw.shape[1] * is_known, out=offsets[1:])
    valid = np.packbits(is_known, bitorder="little")
    text = _hex(raw[is_known])
    return pa.StringArray.from_buffers(len(raw), pa.py_buffer(offsets), pa.py_buffer(text), pa.py_buffer(valid))


def _hex(raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(raw.tobytes().hex().encode(), np.uint8)
