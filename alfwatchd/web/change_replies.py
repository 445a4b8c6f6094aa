"""Makes JSON of what the journal tells."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from alfwatchd.alf.printable import printable
from alfwatchd.changes import Change, ChangesReply, Fresh
from alfwatchd.journal.entries import Cursor
from alfwatchd.journal.pending import PendingChange
from alfwatchd.journal.reading import Page
from alfwatchd.tree.session_changes import SessionChange

_PART_BYTES = 1 << 16
_PENDING_MARK = "~"
_CHANGE_FIELDS = tuple(each.name for each in fields(Change))


class Place(NamedTuple):
    """A place in the feed: one in the journal, and the number of the last change that was told though not on disk."""

    cursor: Cursor
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read a place as `str` writes it; raises as `Cursor.parse`."""
        cursor, _, number = text.partition(_PENDING_MARK)
        return cls(Cursor.parse(cursor), int(number or 0))

    def __str__(self) -> str:
        return f"{self.cursor}{_PENDING_MARK}{self.number}" if self.number else str(self.cursor)


@dataclass(frozen=True, slots=True)
class Found:
    """What is behind a place in the feed.

    Parameters
    ----------
    page : Page
        Of the journal.
    number : int
        Of the place from which was read.
    pending : sequence of PendingChange
        What is not on disk yet, behind all changes of the journal.
    is_last : bool
        Whether there is nothing more.
    """

    page: Page
    number: int = 0
    pending: Sequence[PendingChange] = ()
    is_last: bool = True

    @property
    def next(self) -> Place:
        """Where to read on."""
        return Place(self.page.next, self.pending[-1].number if self.pending else self.number)

    @property
    def n_changes(self) -> int:
        """How many changes there are."""
        return len(self.page.told) + len(self.pending)

    def changes(self) -> Iterator[Change]:
        """Yield the changes as clients get them."""
        for each in self.page.told:
            cursor = Place(each.cursor, self.number)
            yield make_change(each.change, each.generation, each.seen_at, str(cursor))
        for other in self.pending:
            yield make_change(other.change, None, other.seen_at, str(Place(self.page.next, other.number)))


def make_change(change: SessionChange, generation: int | None, seen_at: str, cursor: str) -> Change:
    """Return a change as clients get it."""
    names = [printable(each) for each in change.names]
    return Change(
        change=change.kind,
        path=printable(change.path),
        eid=change.eid,
        eid_before=change.eid_before or None,
        generation=generation,
        seen_at=seen_at,
        cursor=cursor,
        renamed_from=printable(change.renamed_from) or None,
        renamed_to=printable(change.renamed_to) or None,
        n_added=change.added,
        n_changed=change.changed,
        n_removed=change.removed,
        added=[name[1:] for name in names if name[0] == "+"],
        changed=[name[1:] for name in names if name[0] == "~"],
        removed=[name[1:] for name in names if name[0] == "-"],
        bytes_before=change.bytes_before,
        bytes_after=change.bytes_after,
        columns=list(change.columns),
    )


def encode_events(found: Found) -> Iterator[bytes]:
    """Yield what was found as server-sent events, some at a time."""
    if found.page.is_fresh:
        fresh = Fresh(found.page.generation, found.page.journal, str(found.next))
        data = json.dumps({each.name: getattr(fresh, each.name) for each in fields(fresh)}, separators=(",", ":"))
        yield f"event: fresh\nid: {fresh.cursor}\ndata: {data}\n\n".encode()
    part = bytearray()
    for change in found.changes():
        part += f"event: change\nid: {change.cursor}\ndata: {_encode(change)}\n\n".encode()
        if len(part) >= _PART_BYTES:
            yield bytes(part)
            part.clear()
    if part:
        yield bytes(part)


def encode_reply(found: Found) -> bytes:
    """Return what was found as a `ChangesReply` in JSON."""
    page = found.page
    generation = page.generation if page.journal else 0
    reply = ChangesReply(page.is_fresh, page.journal, generation, str(found.next), found.is_last)
    head = {each.name: getattr(reply, each.name) for each in fields(reply) if each.name != "changes"}
    changes = ",".join(map(_encode, found.changes()))
    return f'{json.dumps(head, separators=(",", ":"))[:-1]},"changes":[{changes}]}}'.encode()


def _encode(change: Change) -> str:
    """Return JSON in one line. `dataclasses.asdict` would take ten times as long."""
    return json.dumps({name: getattr(change, name) for name in _CHANGE_FIELDS}, separators=(",", ":"))
