"""Ids as arrays, 16 bytes each: put together, taken apart, and read from text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alfwatchd.tables import arrow

Ids = npt.NDArray[np.uint8]
"""Shape (n_rows, 16); zeros where there is no id, or none that ONE would accept."""

_VERSIONS = (3, 4)
"""Of UUIDs that ONE accepts (``one.alf.spec.is_uuid``)."""
_PIECE = 1 << 16
_NO_DIGIT = 255
_DIGITS = np.full(256, _NO_DIGIT, np.uint8)
_DIGITS[list(b"0123456789abcdef")] = range(16)
_HYPHEN_PLACES = [8, 13, 18, 23]
_HEX_PLACES = [place for place in range(36) if place not in _HYPHEN_PLACES]


def raw_ids(parts: Sequence[bytes]) -> Ids:
    """Return ids or digests of 16 bytes each as an array of shape (len(parts), 16)."""
    return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, 16)


def join_ids(eids: Ids, digests: npt.NDArray[np.uint8]) -> Ids:
    """Return what `alf.ids.dataset_id` returns, for many datasets at once.

    Parameters
    ----------
    eids, digests : numpy.ndarray
        Shape (n_datasets, 16): eid of each dataset, and ``md5(eid + rel_path)``.

    Returns
    -------
    numpy.ndarray
        Shape (n_datasets, 16), writable.
    """
    joined = np.hstack([eids[:, :8], digests[:, :8]])
    joined[:, 8] = (joined[:, 8] & 0x3F) | 0x80
    return joined


def strict(raw: Ids) -> Ids:
    """Return ids with zeros in the place of those that ONE would not accept."""
    is_good = np.isin(raw[:, 6] >> 4, _VERSIONS)
    return raw if is_good.all() else np.where(is_good[:, None], raw, np.uint8(0))


def parse_ids(texts: pa.StringArray) -> Ids:
    """Return what `alf.ids.parse_id` returns, for many texts at once; zeros where that is None.

    The texts are read in pieces, which bounds the memory that it takes.
    """
    found = np.zeros((len(texts), 16), np.uint8)
    for start in range(0, len(texts), _PIECE):
        piece = texts.slice(start, _PIECE)
        lengths = arrow.values(pc.binary_length(piece), np.dtype(np.int32))
        rows = np.flatnonzero(lengths == 36)
        found[start + rows] = _parse(arrow.cells(piece.filter(arrow.booleans(lengths == 36)), 36))
    return found


def _parse(cells: npt.NDArray[np.uint8]) -> Ids:
    """Return the ids that are written in cells of 36 characters; zeros where it is no id."""
    digits = _DIGITS[cells[:, _HEX_PLACES]]
    raw = (digits[:, ::2] << 4) | digits[:, 1::2]
    is_id = (digits != _NO_DIGIT).all(axis=1) & (cells[:, _HYPHEN_PLACES] == ord("-")).all(axis=1)
    is_id &= raw[:, 8] >> 6 == 0b10
    return strict(np.where(is_id[:, None], raw, np.uint8(0)))
