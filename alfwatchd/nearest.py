"""Finds the name that a person may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LEAST_LIKENESS = 0.6
_MOST_COMPARED = 20


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that is most like a word, whatever its case; None if none is like it.

    Of names that are equally like it, it is the one that begins as the word does.
    """
    word = word.lower()
    by_lower = {name.lower(): name for name in sorted(names, reverse=True)}
    found = difflib.get_close_matches(word, by_lower, n=_MOST_COMPARED, cutoff=_LEAST_LIKENESS)

    def likeness(name: str) -> tuple[float, int]:
        n_equal = next(
            (place for place, pair in enumerate(zip(name, word, strict=False)) if len(set(pair)) > 1), len(word)
        )
        return difflib.SequenceMatcher(None, name, word).ratio(), n_equal

    return by_lower[max(found, key=likeness)] if found else None
