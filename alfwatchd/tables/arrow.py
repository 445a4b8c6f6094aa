"""Arrow arrays from plain values, by their buffers: `pyarrow.array` would import pandas, which takes half a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_HEX_PLACES = [*range(8), *range(9, 13), *range(14, 18), *range(19, 23), *range(24, 36)]
"""Where the hex digits stand in the text of a UUID; hyphens are between them."""


def strings(texts: Sequence[str] | Sequence[bytes]) -> pa.StringArray:
    """Return texts, or their UTF-8 bytes, as an array of strings, none of them null."""
    encoded = [text.encode() if isinstance(text, str) else text for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([*map(len, encoded)], out=offsets[1:])
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


def numbers(values: npt.NDArray[np.generic], kind: pa.DataType) -> pa.Array:
    """Return numbers as an array of a type of the same width, none of them null."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def values(array: pa.Array, kind: np.dtype[Any], missing: float = 0) -> npt.NDArray[Any]:
    """Return the numbers of an array of the same width; unlike `Array.to_numpy`, without pandas.

    Parameters
    ----------
    array : pyarrow.Array
    kind : numpy.dtype
    missing : number
        Stands in the place of nulls.
    """
    found = np.frombuffer(array.buffers()[1], kind)[array.offset : array.offset + len(array)]
    return np.where(is_valid(array), found, found.dtype.type(missing)) if array.null_count else found


def is_valid(array: pa.Array) -> npt.NDArray[np.bool_]:
    """Tell for each value whether it is not null."""
    bits = array.buffers()[0]
    if bits is None:
        return np.full(len(array), array.null_count == 0, np.bool_)
    unpacked = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little", count=array.offset + len(array))
    return unpacked[array.offset :].astype(np.bool_)


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
    text = np.full((raw.size // 16, 36), ord("-"), np.uint8)
    text[:, _HEX_PLACES] = _hex(raw).reshape(-1, 32)
    offsets = np.arange(0, 36 * (len(text) + 1), 36, dtype=np.int32)
    return pa.StringArray.from_buffers(len(text), pa.py_buffer(offsets), pa.py_buffer(text))


def encode_texts(table: pa.Table, name: str) -> tuple[npt.NDArray[np.int32], pa.StringArray]:
    """Return for each row an index into the texts that a column holds, and these texts, each once.

    Returns
    -------
    numpy.ndarray, pyarrow.StringArray
        -1 where a row holds no text, and everywhere if the column is missing or holds other things than texts.
    """
    if name not in table.column_names:
        return np.full(len(table), -1, np.int32), strings([])
    column = table.column(name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if kind not in (pa.string(), pa.large_string(), pa.string_view()):
        return np.full(len(table), -1, np.int32), strings([])
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    return values(encoded.indices.cast(pa.int32()), np.dtype(np.int32), -1), encoded.dictionary


def parse_uuids(texts: pa.StringArray) -> pa.FixedSizeBinaryArray:
    """Return the 16 bytes of each id, as `uuids` writes them; raises `ValueError` if one is not written so."""
    text = cells(texts, 36)
    return _from_hex(text[:, _HEX_PLACES], len(texts))


def parse_digests(texts: pa.StringArray) -> pa.FixedSizeBinaryArray:
    """Return the 16 bytes of each digest in lower-case hex; raises `ValueError` if one is not written so."""
    characters = cells(texts, 32)
    if ((characters >= ord("A")) & (characters <= ord("F"))).any():
        raise ValueError("not all of them are lower-case")
    return _from_hex(characters, len(texts))


def cells(texts: pa.StringArray, width: int) -> npt.NDArray[np.uint8]:
    """Return the characters of texts that all have the same number of them, shape (n_texts, width).

    Raises
    ------
    ValueError
        A text is null, or has another number of characters.
    """
    offsets = (
        values(
            pa.Array.from_buffers(pa.int32(), len(texts) + 1, [None, texts.buffers()[1]], offset=texts.offset),
            np.dtype(np.int32),
        )
        if len(texts)
        else np.zeros(1, np.int32)
    )
    if texts.null_count or (np.diff(offsets) != width).any():
        raise ValueError(f"not all of them have {width} characters")
    data = np.frombuffer(texts.buffers()[2], np.uint8) if len(texts) else np.zeros(0, np.uint8)
    return data[offsets[0] : offsets[-1]].reshape(-1, width)


def _from_hex(characters: npt.NDArray[np.uint8], n_texts: int) -> pa.FixedSizeBinaryArray:
    raw = bytes.fromhex(characters.tobytes().decode("ascii", "replace"))
    if len(raw) != 16 * n_texts:  # white space is no error for Python
        raise ValueError("not all of them are hex")
    return pa.Array.from_buffers(pa.binary(16), n_texts, [None, pa.py_buffer(raw)])


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
