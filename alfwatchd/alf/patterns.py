"""Patterns that name datasets: ``spikes.times``, a whole file name, or a glob over the path in the session."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

# one.alf.spec.FILE_SPEC by its parts. `_times` and `_intervals` belong to the attribute, as in `stimOn_times`; anything
# else behind an underscore is a timescale. Several extra parts count as one.
_NAME = re.compile(
    r"(?:_(?P<namespace>[a-zA-Z0-9]+)_)?_*(?P<object>[^\W_]\w*)"
    r"\.(?P<attribute>(?:_[a-z]+_)?[a-zA-Z0-9]+(?:(?:_times|_intervals)(?![^_.]))?)(?:_(?P<timescale>\w+))?"
    r"(?:(?:\.(?P<extra>[.\w-]+))?\.(?P<extension>\w+))?\n?"
)
_GLOB = re.compile(r"[*?[/]")

_NameParts = tuple[str | None, ...]
"""Namespace, object, attribute, timescale, extra parts and extension; None for what is not there."""


@dataclass(frozen=True, slots=True)
class DatasetPattern:
    """Which datasets are meant; `parse` makes one from what a person writes.

    Parameters
    ----------
    text : str
        As it was written.
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> DatasetPattern:
        """Return the pattern that a text stands for.

        Parameters
        ----------
        text : str
            ``spikes.times`` is an object and an attribute: it matches any namespace, timescale, extra parts, extension,
            collection and revision. A part that the text names must be equal: ``_ibl_trials.table``,
            ``wheel.times_bpod``, ``spikes.times.npy``.

            A text with ``*``, ``?``, ``[`` or ``/`` is a glob, as for ``One.list_datasets``: ``*`` matches slashes,
            too. It matches the path of a dataset in its session; without a slash, also the name of its file.

        Raises
        ------
        ValueError
            No dataset can match; the message says what to write.
        """
        if not text.strip():
            raise ValueError("the name of the dataset is empty; is a variable not set?")
        if not text.isprintable():
            raise ValueError(f"{text!r}: no dataset has a control character in its name")
        if not _GLOB.search(text) and _split(text) is None:
            advice = f"write {text}.ATTRIBUTE, or {text}.* for all of them" if re.fullmatch(r"\w+", text) else _ADVICE
            raise ValueError(f"{text!r} is no name of a dataset; {advice}")
        return cls(text)

    def matches(self, rel_path: str) -> bool:
        """Tell whether a dataset is meant.

        Parameters
        ----------
        rel_path : str
            Path of the dataset in its session, as in the tables.
        """
        wanted = _compile(self.text)
        if isinstance(wanted, re.Pattern):
            name = "" if "/" in self.text else rel_path.rpartition("/")[2]
            return wanted.match(rel_path) is not None or wanted.match(name) is not None
        if f"{wanted[1]}.{wanted[2]}" not in rel_path:  # true of most, and much faster than to take the name apart
            return False
        parts = _split(rel_path.rpartition("/")[2])
        if parts is None or parts[-1] is None:
            return False
        return all(want is None or want == part for want, part in zip(wanted, parts, strict=True))


_ADVICE = "write OBJECT.ATTRIBUTE as in spikes.times, the name of a file, or a glob as in 'alf/*/spikes.*'"


def missing(required: Iterable[DatasetPattern], rel_paths: Sequence[str]) -> tuple[DatasetPattern, ...]:
    """Return the patterns that none of the datasets of a session matches, in their order.

    Parameters
    ----------
    required : iterable of DatasetPattern
    rel_paths : sequence of str
        Paths of the datasets in the session.
    """
    return tuple(pattern for pattern in required if not any(map(pattern.matches, rel_paths)))


def short_name(rel_path: str) -> str:
    """Return the shortest pattern that matches a dataset, ``object.attribute``; its file name if that is not ALF."""
    name = rel_path.rpartition("/")[2]
    parts = _split(name)
    return name if parts is None else f"{parts[1]}.{parts[2]}"


@lru_cache(maxsize=1 << 14)  # names that occur in many sessions stay in it; unique names must not fill the memory
def _split(name: str) -> _NameParts | None:
    match = _NAME.fullmatch(name)
    return match.groups() if match else None


@lru_cache(maxsize=1 << 8)
def _compile(text: str) -> re.Pattern[str] | _NameParts:
    if _GLOB.search(text):
        return re.compile(translate(text))
    parts = _split(text)
    assert parts is not None, "parse has made sure of it"
    return parts
