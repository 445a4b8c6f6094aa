"""What the journal holds: batches of changed sessions, and places in it by which readers go on.

A batch is what one flush changed. In a file it is a line that describes it, and then a line for each session, as JSON.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.tree.session_changes import SessionChange, merge_kinds, merge_names, name_datasets

_CURSOR = re.compile(r"(?:(?P<journal>[0-9a-f]{8})\.)?(?P<generation>[0-9]{1,18})(?:\.(?P<n_told>[0-9]{1,9}))?")
_DEFAULTS = {each.name: each.default for each in fields(SessionChange)}
_SUBJECTS = "/Subjects/"
_KINDS = frozenset(("added", "changed", "removed"))


class Cursor(NamedTuple):
    """A place in a journal: behind all changes up to a generation, and some of the next.

    Parameters
    ----------
    journal : str
        Id of the journal; empty where a person gave only a number.
    generation : int
    n_told : int
        How many changes of the generation after it have been told, in the order of the journal.
    """

    journal: str
    generation: int
    n_told: int = 0

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read a cursor as `str` writes it: ``journal.generation``, ``journal.generation.n_told`` or ``generation``.

        Raises
        ------
        ValueError
            It is none.
        """
        found = _CURSOR.fullmatch(text)
        if found is None or (found["n_told"] and not found["journal"]):
            raise ValueError(f"{text!r} is no place in a journal; give a generation, or what `next` was")
        return cls(found["journal"] or "", int(found["generation"]), int(found["n_told"] or 0))

    def __str__(self) -> str:
        told = f".{self.n_told}" if self.n_told else ""
        return f"{self.journal}.{self.generation}{told}" if self.journal else str(self.generation)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one flush changed.

    Parameters
    ----------
    generation : int
        Of the tables that show it.
    seen_at : str
        When the flush began: UTC, ISO 8601.
    changes : tuple of SessionChange
        Removed sessions come first, so that a path or an eid that another session has taken over is right at the end.
    """

    generation: int
    seen_at: str
    changes: tuple[SessionChange, ...]

    @classmethod
    def of(cls, generation: int, seen_at: str, changes: Iterable[SessionChange]) -> Batch:
        """Return a batch of changes in any order."""
        return cls(generation, seen_at, tuple(sorted(changes, key=lambda each: (each.kind != "removed", each.path))))


class Head(NamedTuple):
    """The line before the changes of a batch."""

    generation: int
    seen_at: str
    n_changes: int
    n_bytes: int
    """Length of the lines that follow."""
    crc: int
    labs: Mapping[str, Sequence[int]]
    """Lab folder, empty for sessions in none -> how many sessions arrived, how many went, and how many bytes more."""


def pack_batch(batch: Batch) -> bytes:
    """Return the lines of a batch."""
    body = b"".join(_pack_change(each) for each in batch.changes)
    head = Head(
        batch.generation, batch.seen_at, len(batch.changes), len(body), zlib.crc32(body), count_labs(batch.changes)
    )
    return json.dumps(head._asdict(), separators=(",", ":")).encode() + b"\n" + body


def lab_of(change: SessionChange) -> str:
    """Return the name of the lab folder that a session is in; empty for none."""
    lab, subjects, _ = change.path.partition(_SUBJECTS)
    return lab if subjects else ""


def count_labs(changes: Iterable[SessionChange]) -> dict[str, list[int]]:
    """Return what `Head.labs` holds. A session that was renamed neither arrived nor went."""
    labs: dict[str, list[int]] = {}
    for change in changes:
        counts = labs.setdefault(lab_of(change), [0, 0, 0])
        counts[0] += change.kind == "added" and not change.renamed_from
        counts[1] += change.kind == "removed" and not change.renamed_to
        counts[2] += change.n_bytes
    return labs


def parse_head(line: bytes) -> Head:
    """Read the line before the changes of a batch.

    Raises
    ------
    ValueError
        It is damaged.
    """
    head = parse_json(line)
    try:
        found = Head(**head)
    except TypeError as error:
        raise ValueError("is no head of a batch") from error
    numbers = (found.generation, found.n_changes, found.n_bytes, found.crc)
    is_sound = all(isinstance(each, int) and each >= 0 for each in numbers) and isinstance(found.seen_at, str)
    counts = found.labs.values() if isinstance(found.labs, dict) else [()]
    if not is_sound or not all(len(each) == 3 and all(isinstance(one, int) for one in each) for each in counts):
        raise ValueError("is no head of a batch")
    return found


def parse_changes(head: Head, body: bytes) -> Batch:
    """Read the lines behind the head of a batch.

    Raises
    ------
    ValueError
        They are damaged.
    """
    if len(body) != head.n_bytes or zlib.crc32(body) != head.crc:
        raise ValueError("is damaged")
    return Batch(head.generation, head.seen_at, tuple(_parse_all(body)))


def _parse_all(body: bytes) -> Iterator[SessionChange]:
    for line in body.splitlines():
        values: dict[str, Any] = parse_json(line)
        for name in ("columns", "names"):
            values[name] = tuple(values.get(name, ()))
        try:
            change = SessionChange(**values)
        except TypeError as error:
            raise ValueError("is no change of a session") from error
        if change.kind not in _KINDS:
            raise ValueError("is no change of a session")
        yield change


def _pack_change(change: SessionChange) -> bytes:
    values = {name: getattr(change, name) for name in _DEFAULTS}
    told = {name: value for name, value in values.items() if value != _DEFAULTS[name]}
    return json.dumps(told, separators=(",", ":")).encode() + b"\n"


def merge(first: SessionChange, second: SessionChange) -> SessionChange | None:
    """Return what two changes of one session come to, one after the other; None if nothing is left of them."""
    kind = merge_kinds(first.kind, second.kind)
    if kind is None:
        return None
    signs = merge_names(*({name[1:]: name[0] for name in each.names} for each in (first, second)))
    names = name_datasets({mark: [name for name, sign in signs.items() if sign == mark] for mark in "+~-"})
    counts = {mark: sum(sign == mark for sign in signs.values()) for mark in "+~-"}
    is_whole = all(each.added + each.changed + each.removed == len(each.names) for each in (first, second))
    added, changed, removed = (
        (counts["+"], counts["~"], counts["-"])
        if is_whole
        else (first.added + second.added, first.changed + second.changed, first.removed + second.removed)
    )
    eid = second.eid or first.eid
    eid_before = (first.eid_before or second.eid_before) if kind != "added" else ""
    return replace(
        second,
        kind=kind,
        added=added,
        changed=changed,
        removed=removed,
        n_bytes=first.n_bytes + second.n_bytes,
        columns=tuple(sorted({*first.columns, *second.columns})),
        names=names,
        eid=eid,
        eid_before=eid_before if eid_before != eid else "",
        renamed_from=first.renamed_from if kind == "added" else "",
        renamed_to=second.renamed_to if kind == "removed" else "",
    )
