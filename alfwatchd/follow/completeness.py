"""When a session is complete, and what of it is compared so that it is told once. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from alfwatchd.alf.grammar import parse_session
from alfwatchd.alf.patterns import DatasetPattern

_DIGEST_BYTES = 8


class Dataset(NamedTuple):
    """A dataset as the tables have it; the hash is None if it is not known."""

    rel_path: str
    file_size: int
    hash: str | None


class Digest(NamedTuple):
    """A short value that differs if the required datasets of a session differ.

    Parameters
    ----------
    names : str
        Of their paths and sizes.
    hashes : str
        Of their paths and hashes; empty if a hash is not known.
    """

    names: str
    hashes: str

    @classmethod
    def of(cls, datasets: Iterable[Dataset]) -> Digest:
        """Return the digest of datasets in any order."""
        ordered = sorted(datasets)
        names = _digest(f"{each.rel_path}\0{each.file_size}" for each in ordered)
        if any(each.hash is None for each in ordered):
            return cls(names, "")
        return cls(names, _digest(f"{each.rel_path}\0{each.hash}" for each in ordered))

    def is_same(self, other: Digest) -> bool:
        """Tell whether nothing proves that the datasets differ."""
        return self.names == other.names and (not self.hashes or not other.hashes or self.hashes == other.hashes)


@dataclass(frozen=True, slots=True)
class Criteria:
    """Which sessions are told.

    Parameters
    ----------
    labs, subjects : tuple of str
        Names, or globs as ``SL-*``; empty for all.
    having : tuple of DatasetPattern
        A complete session has each of these; they are its required datasets. If it is empty, all are required.
    lacking : tuple of DatasetPattern
        A complete session has none of these.
    quiet_seconds : float
        How long the datasets of a complete session have not changed.
    tells_complete : bool
        Whether complete sessions are told, instead of each change.
    own_lab : str
        Lab of sessions in no lab folder.
    """

    labs: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    having: tuple[DatasetPattern, ...] = ()
    lacking: tuple[DatasetPattern, ...] = ()
    quiet_seconds: float = 0.0
    tells_complete: bool = False
    own_lab: str = ""

    def is_meant(self, path: str) -> bool:
        """Tell whether the session at a path is of a lab and a subject that are wanted."""
        if not (self.labs or self.subjects):
            return True
        key = parse_session(path)
        return key is not None and _fits(key.lab or self.own_lab, self.labs) and _fits(key.subject, self.subjects)

    def find_required(self, datasets: Iterable[Dataset]) -> list[Dataset] | None:
        """Return the required datasets of a session; None if it is not complete."""
        there = list(datasets)
        if any(_matches(pattern.text, each.rel_path) for pattern in self.lacking for each in there):
            return None
        if not self.having:
            return there or None
        found: list[Dataset] = []
        for pattern in self.having:
            own = [each for each in there if _matches(pattern.text, each.rel_path)]
            if not own:
                return None
            found += own
        return found if len(self.having) == 1 else list(dict.fromkeys(found))


def _fits(name: str, wanted: tuple[str, ...]) -> bool:
    return not wanted or any(fnmatchcase(name, each) for each in wanted)


@lru_cache(maxsize=1 << 14)  # most names are in many sessions
def _matches(pattern: str, rel_path: str) -> bool:
    return DatasetPattern(pattern).matches(rel_path)


def _digest(lines: Iterable[str]) -> str:
    text = "\n".join(lines).encode("utf-8", "surrogateescape")
    return blake2b(text, digest_size=_DIGEST_BYTES).hexdigest()
