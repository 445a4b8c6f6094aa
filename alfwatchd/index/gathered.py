"""Joins problems of one kind below one subject: a program that records in a wrong layout makes one for each day."""

from __future__ import annotations

from collections.abc import Iterable

from alfwatchd.alf import grammar
from alfwatchd.tree.rows import Problem

_KINDS = frozenset({"link_not_followed", "nested_session", "no_number"})
_MOST_APART = 3


def gather(problems: Iterable[Problem]) -> list[Problem]:
    """Return problems so that there are at most three of some kinds for each subject; more of them become one."""
    found = list[Problem]()
    groups = dict[tuple[str, str], list[Problem]]()
    for each in problems:
        subject = _subject_of(each.path) if each.kind in _KINDS else None
        if subject is None:
            found.append(each)
        else:
            groups.setdefault((each.kind, subject), []).append(each)
    for (kind, subject), group in groups.items():
        if len(group) <= _MOST_APART:
            found += group
        else:
            first, *others = sorted(group, key=lambda each: each.path)
            places = ", ".join(each.path.removeprefix(f"{subject}/") for each in [first, *others[: _MOST_APART - 1]])
            message = (
                f"in {places} and {len(group) - _MOST_APART} more places, of which this is the first: {first.message}"
            )
            found.append(Problem(kind, subject, message))
    return found


def _subject_of(path: str) -> str | None:
    """Return what a path has before its first date; None if it has none."""
    parts = path.split("/")
    depth = next((depth for depth, part in enumerate(parts) if grammar.parse_date(part) is not None), None)
    return "/".join(parts[:depth]) if depth is not None else None
