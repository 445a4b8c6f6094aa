"""The `exclude` patterns: files and folders that are not indexed and that no prune touches."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pathspec

Excluded = Callable[[str], bool]
"""Path relative to the root, with a closing slash for a folder -> whether it is excluded."""


def compile_exclude(patterns: Iterable[str]) -> Excluded | None:
    """Compile patterns as in ``.gitignore``, relative to the root.

    Parameters
    ----------
    patterns : iterable of str
        ``*.tmp`` at any depth, ``/lab/Subjects/test_*/`` for folders below the root, ``!keep.tmp`` to take back.

    Returns
    -------
    callable or None
        None if there is no pattern: then the caller need not ask for each path.

    Raises
    ------
    ValueError
        A pattern is not valid; the message names it.
    """
    lines = [line for line in patterns if line.strip()]
    if not lines:
        return None
    return pathspec.GitIgnoreSpec.from_lines(lines).match_file
