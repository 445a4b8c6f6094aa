"""Makes JSON of what the journal tells."""

from __future__ import annotations

import json
from dataclasses import fields

from alfwatchd.alf.printable import printable
from alfwatchd.changes import Change, ChangesReply, Fresh
from alfwatchd.journal.reading import Page, Told

_CHANGE_FIELDS = tuple(each.name for each in fields(Change))


def make_change(told: Told) -> Change:
    """Return a change as clients get it."""
    change = told.change
    names = [printable(each) for each in change.names]
    return Change(
        change=change.kind,
        path=printable(change.path),
        eid=change.eid,
        eid_before=change.eid_before or None,
        generation=told.generation,
        seen_at=told.seen_at,
        cursor=str(told.cursor),
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


def encode_change(change: Change) -> str:
    """Return JSON in one line. `dataclasses.asdict` would take ten times as long."""
    return json.dumps({name: getattr(change, name) for name in _CHANGE_FIELDS}, separators=(",", ":"))


def encode_fresh(page: Page) -> str:
    """Return what a reader is told that must take the whole tables, in one line."""
    fresh = Fresh(page.generation, page.journal, str(page.next))
    return json.dumps({each.name: getattr(fresh, each.name) for each in fields(fresh)}, separators=(",", ":"))


def encode_page(page: Page) -> bytes:
    """Return a page as a `ChangesReply` in JSON."""
    reply = ChangesReply(page.is_fresh, page.journal, page.generation, str(page.next), page.is_last)
    head = {each.name: getattr(reply, each.name) for each in fields(reply) if each.name != "changes"}
    changes = ",".join(encode_change(make_change(each)) for each in page.told)
    return f'{json.dumps(head, separators=(",", ":"))[:-1]},"changes":[{changes}]}}'.encode()
