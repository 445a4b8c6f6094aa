"""Which row of a table may stand for which file: the one rule of adopt, prune and `remove_missing_datasets`.

Sessions are the same where lab, subject, date and number are; datasets, where the session and the rel_path are. Either
side may carry the dataset's UUID in the file name, as Alyx's data servers do (``one.alf.path.add_uuid_string``).

`Rows.exact` and `Rows.by_uuid` find every row that may stand for a file. Adopt takes one of them over only if it is
sure that it is the right one; prune keeps a file if there is any.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from alfwatchd.tree.rows import UUID_PART

CODE_BITS = 32

RowNumbers = npt.NDArray[np.int64]
"""For each dataset the number of its row; -1 where there is none."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Datasets by session and path. Frozen: any thread may read it.

    Parameters
    ----------
    keys : numpy.ndarray of int64
        Number of the session, then the code of the path, in 32 bits each; sorted.
    paths : sequence of bytes
        By code: each rel_path once.
    """

    keys: npt.NDArray[np.int64]
    paths: Sequence[bytes]

    @cached_property
    def codes(self) -> Mapping[bytes, int]:
        """rel_path -> its code."""
        return {path: code for code, path in enumerate(self.paths)}

    @cached_property
    def plain(self) -> Mapping[bytes, tuple[int, ...]]:
        """rel_path without the UUID in its name -> codes of those that have one."""
        found: dict[bytes, list[int]] = defaultdict(list)
        for code, path in enumerate(self.paths):
            bare, own_id = split_uuid(path)
            if own_id is not None:
                found[bare].append(code)
        return {path: tuple(codes) for path, codes in found.items()}

    def exact(self, numbers: npt.NDArray[np.int64], paths: Sequence[bytes]) -> RowNumbers:
        """Return a row of each session, -1 for no session, that has exactly this path."""
        get = self.codes.get
        codes = np.array([get(path, -1) for path in paths], np.int64)
        wanted = (numbers << CODE_BITS) | codes
        places = np.searchsorted(self.keys, wanted)
        is_known = (numbers >= 0) & (codes >= 0) & (places < len(self.keys))
        is_known[is_known] = self.keys[places[is_known]] == wanted[is_known]
        return np.where(is_known, places, -1)

    def by_uuid(self, number: int, path: bytes) -> Iterator[int]:
        """Yield the rows of a session whose path differs only by a UUID in the file name, here or there."""
        bare, own_id = split_uuid(path)
        codes = [*self.plain.get(bare, ())]
        if own_id is not None and bare in self.codes:
            codes.append(self.codes[bare])
        for code in codes:
            if (place := self.place(number, code)) >= 0:
                yield place

    def place(self, number: int, code: int) -> int:
        """Return the first row of a session that has a path; -1 if there is none."""
        key = (number << CODE_BITS) | code
        place = int(np.searchsorted(self.keys, key))
        return place if place < len(self.keys) and self.keys[place] == key else -1

    def path_of(self, row: int) -> bytes:
        """Return the rel_path of a row."""
        return self.paths[int(self.keys[row]) & ((1 << CODE_BITS) - 1)]


def split_uuid(path: bytes) -> tuple[bytes, bytes | None]:
    """Return a rel_path without the UUID in its file name, and that UUID's 16 bytes; None if it has none."""
    if len(path) < 40 or (match := UUID_PART.search(text := path.decode())) is None:
        return path, None
    return (text[: match.start()] + text[match.end() :]).encode(), bytes.fromhex(match[1].replace("-", ""))


_NO_REVISION = re.compile(r"(^|/)#(?:nan|none)#/", re.IGNORECASE)


def without_no_revision(path: str) -> str:
    """Return a rel_path without a revision folder that says "none".

    Under pandas 3, Alyx 3.6 writes ``alf/#nan#/x`` into its tables for a dataset that is in no revision folder.
    """
    return _NO_REVISION.sub(r"\1", path) if "#" in path else path


def composed(text: str) -> str:
    """Return a text in composed form, in which most systems write it: some write accents as characters of their own.

    One name can be two texts (Unicode's NFC and NFD), so that a Mac and a database may spell it in two ways.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """Return how a text reads where neither case nor composition matters."""
    return composed(composed(text).casefold())
