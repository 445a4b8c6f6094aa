"""Which revision of a dataset One loads by default: exactly one of them, in the column `default_revision`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from alfwatchd.alf import grammar
from alfwatchd.tree.rows import Session


def default_revisions(session: Session) -> list[bool]:
    """Tell for each dataset of a session, in the order of `Session.datasets`, whether it is the default revision.

    Exactly one revision of a dataset is: the last in lexicographic order, as in ``one.alf.spec``; a dataset outside
    any revision folder is the oldest.
    """
    split = [grammar.split_revision(folder.folder) for folder in session.folders]
    revised = {collection for collection, revision in split if revision}
    if not revised:
        return [True] * session.n_datasets
    rows = zip(split, session.folders, strict=True)
    parts = tuple((*each, folder.packed.names) for each, folder in rows if each[0] in revised)
    newest = iter(_are_newest(parts))
    defaults: list[bool] = []
    for (collection, _), folder in zip(split, session.folders, strict=True):
        defaults += next(newest) if collection in revised else [True] * len(folder.packed.names)
    return defaults


# Sessions have the same revisions of the same files again and again.
@lru_cache(maxsize=1 << 8)
def _are_newest(parts: tuple[tuple[str, str, tuple[str, ...]], ...]) -> list[list[bool]]:
    """Tell for each name in each (collection, revision, names) whether no later revision has it."""
    newest: dict[tuple[str, str], str] = {}
    for collection, revision, names in parts:
        for name in names:
            newest[collection, name] = max(revision, newest.get((collection, name), ""))
    return [[newest[collection, name] == revision for name in names] for collection, revision, names in parts]


def choose_defaults(paths: Sequence[bytes], is_here: Sequence[bool], told: Sequence[int]) -> list[bool]:
    """Tell for each dataset of a session whether it is the default revision, if a database names some.

    Of the revisions of one dataset, it is the one that the database names, if its file is here. Otherwise, or if the
    database names several, it is the newest, if possible of those whose files are here, so that One can load it.


    Parameters
    ----------
    paths : sequence of bytes
        rel_path of each.
    is_here : sequence of bool
        Whether the file exists.
    told : sequence of int
        What the database says of each: 1, 0, or -1 where it says nothing.
    """
    best: dict[tuple[str, str], tuple[bool, bool, str, int]] = defaultdict(lambda: (False, False, "", -1))
    for place, path in enumerate(paths):
        folder, _, name = path.decode().rpartition("/")
        collection, revision = grammar.split_revision(folder)
        rank = (is_here[place], told[place] == 1, revision, place)
        best[collection, name] = max(best[collection, name], rank)
    chosen = {place for *_, place in best.values()}
    return [place in chosen for place in range(len(paths))]
