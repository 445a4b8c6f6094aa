"""What two changes of one session come to, while its command has not been run yet. Pure."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from alfwatchd.changes import Change
from alfwatchd.tree.session_changes import MOST_DATASETS, merge_kinds, merge_names


def merge(first: Change, second: Change) -> Change | None:
    """Return one change that says what both say; None if the session came and went.

    If not all datasets are named, the numbers are sums: a dataset that changed twice counts twice.
    """
    kind = merge_kinds(first.change, second.change)
    if kind is None:
        return None
    names = merge_names(_names(first), _names(second))
    counts = {sign: sum(each == sign for each in names.values()) for sign in "+~-"}
    if not (_are_all_named(first) and _are_all_named(second)):
        counts = {
            "+": first.n_added + second.n_added,
            "~": first.n_changed + second.n_changed,
            "-": first.n_removed + second.n_removed,
        }
    return replace(
        second,
        change=kind,
        eid_before=None if kind == "added" else (first.eid_before or second.eid_before),
        renamed_from=first.renamed_from if kind == "added" else None,
        renamed_to=second.renamed_to if kind == "removed" else None,
        n_added=counts["+"],
        n_changed=counts["~"],
        n_removed=counts["-"],
        added=_named(names, "+"),
        changed=_named(names, "~"),
        removed=_named(names, "-"),
        bytes_before=first.bytes_before,
        columns=sorted({*first.columns, *second.columns}),
    )


def _names(change: Change) -> dict[str, str]:
    """Return rel_path -> what happened to the dataset."""
    lists = (("+", change.added), ("~", change.changed), ("-", change.removed))
    return {name: sign for sign, names in lists for name in names}


def _named(names: dict[str, str], sign: str) -> list[str]:
    return list(islice((name for name, each in names.items() if each == sign), MOST_DATASETS))


def _are_all_named(change: Change) -> bool:
    return len(_names(change)) == change.n_added + change.n_changed + change.n_removed
