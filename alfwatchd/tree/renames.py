"""Finds which session folder was renamed to which, by its inode or by equal contents, and only if that is certain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from alfwatchd.alf.ids import md5
from alfwatchd.tree.packed import SIGNATURE_SIZE, digest_of, unpack_signature
from alfwatchd.tree.rows import Session

_SIZE_AND_TIME = 16
"""Bytes at the beginning of a signature that hold size and modification time; see `tree.packed`."""

T = TypeVar("T")


def find_renames(gone: Sequence[Session], came: Sequence[Session]) -> list[tuple[Session, Session]]:
    """Return the pairs (old, new) of sessions where the second is the first under another name.

    The kernel may give the inode of a removed folder to a new one, so an equal inode alone proves nothing. Half of
    the files of the smaller session must be the same as well, or neither has any. Equal contents count if only one pair
    has them.

    Parameters
    ----------
    gone, came : sequence of Session
        Sessions whose folders went and came at about the same time.
    """
    pairs = [
        (old, new)
        for old, new in _unique_pairs(gone, came, lambda session: session.inode)
        if not (old.n_datasets or new.n_datasets) or _share_a_file(old, new)
    ]
    done = {id(session) for pair in pairs for session in pair}
    gone, came = ([session for session in some if id(session) not in done] for some in (gone, came))
    return pairs + [pair for pair in _unique_pairs(gone, came, contents_of) if not _tell_apart(*pair)]


def contents_of(session: Session) -> bytes:
    """Return a digest of names, sizes and times of a session's datasets; empty if it has none."""
    if not session.n_datasets:
        return b""
    names, signatures = [], []
    for folder, packed in session.folders:
        names.append("\0".join((folder, *packed.names, "\0")))
        signatures.append(packed.signatures)
    known = np.frombuffer(b"".join(signatures), np.uint8).reshape(-1, SIGNATURE_SIZE)[:, :_SIZE_AND_TIME]
    return md5("".join(names).encode() + known.tobytes()).digest()


def unique_pairs(old: Iterable[tuple[Hashable, T]], new: Iterable[tuple[Hashable, T]]) -> list[tuple[T, T]]:
    """Return the pairs (old, new) with one key that occurs once on each side. False keys, such as 0, do not count."""
    sides: list[dict[Hashable, list[T]]] = [defaultdict(list), defaultdict(list)]
    for side, some in zip(sides, (old, new), strict=True):
        for key, value in some:
            if key:
                side[key].append(value)
    return [
        (olds[0], news[0])
        for key, olds in sides[0].items()
        if len(olds) == 1 and len(news := sides[1].get(key, [])) == 1
    ]


def _unique_pairs(
    gone: Sequence[Session], came: Sequence[Session], key: Callable[[Session], Hashable]
) -> list[tuple[Session, Session]]:
    return unique_pairs(((key(each), each) for each in gone), ((key(each), each) for each in came))


def _share_a_file(old: Session, new: Session) -> bool:
    """Tell whether half of the files of the smaller session are in the other: same name, inode, size and time."""
    known = [{path: unpack_signature(value)[:3] for path, value in each.datasets()} for each in (old, new)]
    n_same = len(known[0].items() & known[1].items())
    return 2 * n_same >= max(1, min(map(len, known)))


def _tell_apart(old: Session, new: Session) -> bool:
    """Tell whether the md5 digests of a file with the same name are known and differ."""
    known = dict(old.datasets())
    digests = [(digest_of(known.get(path, b"")), digest_of(value)) for path, value in new.datasets()]
    return any(before and now and before != now for before, now in digests)
