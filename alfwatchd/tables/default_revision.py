"""Which revision of a dataset One loads by default: exactly one of them, in the column `default_revision`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from alfwatchd.alf import grammar
from alfwatchd.tree.rows import UUID_PART, Session

_UUID_LENGTH = 36


def default_revisions(session: Session) -> list[bool]:
    """Tell for each dataset of a session, in the order of `Session.datasets`, whether it is the default revision.

    Exactly one revision of a dataset is: the last in lexicographic order, as in ``one.alf.spec``; a dataset outside
    any revision folder is the oldest. A UUID in a file name is no part of the name of the dataset. Of two files of one
    revision it is the one without a UUID, which One finds by the name.
    """
    split = [grammar.split_revision(folder.folder) for folder in session.folders]
    revised = {collection for collection, revision in split if revision}
    if not revised and not session.named_by_uuid:
        return [True] * session.n_datasets
    revised |= {grammar.split_revision(path.rpartition("/")[0])[0] for path in session.named_by_uuid}
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
    """Tell for each name in each (collection, revision, names) whether it is the one to load."""
    best: dict[tuple[str, str], tuple[str, bool, str]] = {}
    ranked = []
    for collection, revision, names in parts:
        rows = []
        for name in names:
            bare = _without_uuid(name)
            key, rank = (collection, bare), (revision, bare == name, name)
            best[key] = max(rank, best.get(key, rank))
            rows.append((key, rank))
        ranked.append(rows)
    return [[best[key] == rank for key, rank in rows] for rows in ranked]


def _without_uuid(name: str) -> str:
    return UUID_PART.sub("", name) if len(name) > _UUID_LENGTH else name


def may_have_revisions(path: bytes) -> bool:
    """Tell whether another path may be of the same dataset, so that one of them has to be chosen."""
    return b"#" in path or (len(path) > _UUID_LENGTH and UUID_PART.search(path.decode()) is not None)


def choose_defaults(paths: Sequence[bytes], is_here: Sequence[bool], told: Sequence[int]) -> list[bool]:
    """Tell for each dataset of a session whether it is the default revision, if a database names some.

    Of the revisions of one dataset, it is the one that the database names, if its file is here. Otherwise, or if the
    database names several, it is the newest, if possible of those whose files are here, so that One can load it.

    Names count as in `default_revisions`.

    Parameters
    ----------
    paths : sequence of bytes
        rel_path of each.
    is_here : sequence of bool
        Whether the file exists.
    told : sequence of int
        What the database says of each: 1, 0, or -1 where it says nothing.
    """
    best: dict[tuple[str, str], tuple[bool, bool, str, bool, int]] = defaultdict(lambda: (False, False, "", False, -1))
    for place, path in enumerate(paths):
        folder, _, name = path.decode().rpartition("/")
        collection, revision = grammar.split_revision(folder)
        bare = _without_uuid(name)
        rank = (is_here[place], told[place] == 1, revision, bare == name, place)
        best[collection, bare] = max(best[collection, bare], rank)
    chosen = {place for *_, place in best.values()}
    return [place in chosen for place in range(len(paths))]
