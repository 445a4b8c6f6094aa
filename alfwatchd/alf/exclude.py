"""The `exclude` patterns: what is left out of the tables and out of prune's reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pathspec

Excluded = Callable[[str], bool]
"""Root-relative path, with a closing slash for a folder -> whether it is left out."""


def compile_exclude(patterns: Iterable[str]) -> Excluded | None:
    """Compile patterns as in ``.gitignore``, relative to the root.

    Parameters
    ----------
    patterns : iterable of str
        ``*.tmp`` at any depth, ``/lab/Subjects/test_*/`` for folders below the root, ``!keep.tmp`` to take back.

    Returns
    -------
    callable or None
        None if there is no pattern, so that nobody pays for what is not used.

    Raises
    ------
    ValueError
        A pattern is not valid; the message names it.
    """
    lines = [line for line in patterns if line.strip()]
    if not lines:
        return None
    return pathspec.GitIgnoreSpec.from_lines(lines).match_file
