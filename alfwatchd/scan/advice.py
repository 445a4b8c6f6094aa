"""Bounded looks into what is not indexed: what of it a person would take for data, and what would make it so.

Junk may be large, so that each look is bounded in depth and number of folders.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Collection, Iterable
from contextlib import suppress

from alfwatchd.alf import grammar, misplaced
from alfwatchd.alf.exclude import Excluded
from alfwatchd.alf.printable import printable
from alfwatchd.alf.set_aside import is_set_aside, lies_aside
from alfwatchd.tree.rows import Problem

_MISPLACED_DEPTH = 6
_MISPLACED_FOLDERS = 2000
_HIDDEN_FOLDERS = 100


def find_misplaced(root: str, outside: Iterable[str], excluded: Excluded) -> list[Problem]:
    """Look for session-like folders in folders that are no part of the layout.

    All these folders are looked into in turn, so that no large one uses up the look of the others. Recycle bins,
    snapshots and hidden folders are left out.

    Parameters
    ----------
    root : str
    outside : iterable of str
        Relative to the root.
    excluded : callable
        See `alf.exclude`.

    Returns
    -------
    list of Problem
        One per cause, with the number of folders it hides.
    """
    found: Counter[misplaced.Misplaced] = Counter()
    turns = deque(deque([path]) for path in outside if not lies_aside(path))
    for _ in range(_MISPLACED_FOLDERS):
        if not turns:
            break
        waiting = turns.popleft()
        folder = waiting.popleft()
        if misplaced.looks_like_session(folder):
            found[misplaced.diagnose(folder)] += 1
        elif folder.count("/") < _MISPLACED_DEPTH:
            for inner in _subfolders(root, folder, excluded):
                (waiting.appendleft if misplaced.leads_to_session(inner) else waiting.append)(inner)
        if waiting:
            turns.append(waiting)
    at_least = "at least " if turns else ""
    return [
        Problem(
            "misplaced",
            printable(cause.where),
            printable(f"{at_least}{number} session{'s' * (number > 1)} not indexed: {cause.advice}"),
        )
        for cause, number in sorted(found.items(), key=lambda item: item[0].where)
    ]


def find_unnumbered(
    root: str, date: str, n_files: int, outside: Iterable[str], sessions: Collection[str], excluded: Excluded
) -> list[Problem]:
    """Tell of datasets that lie in a date folder and in no session of it.

    Parameters
    ----------
    root : str
    date : str
        The date folder, relative to the root.
    n_files : int
        Number of datasets in this folder itself.
    outside : iterable of str
        Its folders that are no sessions, relative to the root.
    sessions : collection of str
        Names of those that are.
    excluded : callable
        See `alf.exclude`.
    """
    if lies_aside(date):
        return []
    folders = [path for path in outside if not (lies_aside(path) or misplaced.looks_like_session(path))]
    n_below, at_least = count_datasets(root, folders, excluded) if folders else (0, "")
    if not n_files + n_below:
        return []
    taken = set(map(int, sessions))
    free = f"{next((number for number in range(1, 1000) if number not in taken), 0):03d}"
    known = f"move them into the session that they belong to, {', '.join(sorted(sessions)[:3])}, or " if taken else ""
    advice = (
        "the layout is subject/date/number, and there is no number folder above them; "
        f"{known}make the folder {free} in the date folder, and move them into it"
    )
    return [Problem("no_number", printable(date), _say(n_files + n_below, at_least, f"not indexed: {advice}"))]


def find_hidden(root: str, path: str, excluded: Excluded) -> list[Problem]:
    """Tell of datasets in a folder of a session that cannot be a collection."""
    if is_set_aside(path.rpartition("/")[2]):
        return []
    number, at_least = count_datasets(root, [path], excluded)
    if not number:
        return []
    advice = (
        "ONE cannot open a collection of this name; use letters, digits, '_', '-' and '.' (and a revision '#...#' only "
        "as the last folder)"
    )
    return [Problem("bad_collection", printable(path), _say(number, at_least, f"not indexed: {advice}"))]


def find_nested(root: str, path: str, place: str, excluded: Excluded) -> list[Problem]:
    """Tell of a session inside a session.

    Parameters
    ----------
    root : str
    path : str
        The folder, relative to the root.
    place : str
        Where it would be a session of its own.
    excluded : callable
        See `alf.exclude`.
    """
    number, at_least = count_datasets(root, [path], excluded)
    if not number:
        return []
    is_taken = os.path.lexists(f"{root}/{place}")
    advice = f"if the folder was moved here by mistake, move it to {printable(place)}"
    advice += ", where another one is: compare the two first" if is_taken else ""
    what = f"of a session inside a session, which ONE reads as a collection of the outer one; {advice}"
    return [Problem("nested_session", printable(path), _say(number, at_least, what))]


def _say(number: int, at_least: str, what: str) -> str:
    return f"{at_least}{number} dataset{'s' * (number > 1)} {what}"


def _subfolders(root: str, folder: str, excluded: Excluded) -> list[str]:
    try:
        with os.scandir(f"{root}/{folder}") as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:  # junk that cannot be read is still junk
        return []
    return [f"{folder}/{name}" for name in names if not (is_set_aside(name) or excluded(f"{folder}/{name}/"))]


def count_datasets(root: str, folders: Iterable[str], excluded: Excluded) -> tuple[int, str]:
    """Return how many files in some folders, and below them, have dataset names, and a word if not all were counted."""
    n_files, stack = 0, [*folders]
    for _ in range(_HIDDEN_FOLDERS):
        if not stack:
            break
        here = stack.pop()
        with suppress(OSError), os.scandir(f"{root}/{here}") as entries:  # as above
            for entry in entries:
                path = f"{here}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    stack += [path] * (not excluded(f"{path}/"))
                else:
                    n_files += grammar.is_dataset_name(entry.name) and not excluded(path)
    return n_files, "at least " if stack else ""
