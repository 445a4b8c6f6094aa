"""Datasets that tables tell of, as columns: what a database knows, and what earlier tables know, are both this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alfwatchd.tables.matching import CODE_BITS, RowNumbers, Rows
from alfwatchd.tables.raw_ids import Ids


@dataclass(frozen=True, eq=False)
class KnownRows(Rows):
    """What is known of datasets, `n_rows` of each, in the order of (session, path). Frozen: any thread may read it.

    Parameters
    ----------
    keys, paths
        See `matching.Rows`.
    ids : numpy.ndarray of uint8
        Shape (n_rows, 16); zeros where no id is known.
    qc : numpy.ndarray of int8
        Index into `QC_CATEGORIES`.
    """

    ids: Ids
    qc: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """Number of the session of each row."""
        return self.keys >> CODE_BITS

    def span(self, number: int) -> range:
        """Return the rows of a session."""
        first, last = np.searchsorted(self.keys, np.array([number, number + 1], np.int64) << CODE_BITS).tolist()
        return range(first, last)

    def row_paths(self, rows: npt.NDArray[np.int64]) -> list[bytes]:
        """Return the rel_path of each of some rows."""
        return [self.paths[code] for code in (self.keys[rows] & ((1 << CODE_BITS) - 1)).tolist()]

    def find_exact(self, numbers: Sequence[int], counts: Sequence[int], paths: Sequence[bytes]) -> RowNumbers:
        """Tell which rows stand for which datasets, of sessions that have `counts` datasets each.

        Parameters
        ----------
        numbers : sequence of int
            Number of each session here; -1 where it is not here.
        counts : sequence of int
            Number of datasets of each of these sessions.
        paths : sequence of bytes
            rel_path of each dataset, session after session.
        """
        return self.exact(np.repeat(np.array(numbers, np.int64), counts), paths)
