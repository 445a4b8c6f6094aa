"""What a cursor file holds: a follower as JSON, and back. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from alfwatchd.changes import Change, Fresh
from alfwatchd.follow.completeness import Criteria, Digest
from alfwatchd.follow.follower import Follower, Pending

_FORMAT = 1
_DEFAULTS = {each.name: each.default_factory() for each in fields(Change) if each.default_factory is not MISSING} | {
    each.name: each.default for each in fields(Change) if each.default is not MISSING
}


class NotSaved(ValueError):
    """The content is not that of a cursor file of this follower; the message says why."""


def pack(follower: Follower, root: str) -> bytes:
    """Return the content of a cursor file.

    Parameters
    ----------
    follower : Follower
    root : str
        Folder that the daemon indexes.
    """
    value = {
        "format": _FORMAT,
        "root": root,
        "follows": _describe(follower.criteria),
        "cursor": follower.cursor,
        "baseline": follower.baseline,
        "pending": [_pack_pending(each) for each in follower.pending.values()],
        "told": {eid: list(digest) for eid, digest in follower.told.items()},
    }
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def unpack(value: object, follower: Follower, root: str) -> None:
    """Give a follower what a cursor file holds. What was given up is tried again.

    Raises
    ------
    NotSaved
        The file is of another root, or of a follower of other sessions, or is none.
    """
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise NotSaved("is no cursor file, or one of another version of alfwatchd")
    if value.get("root") != root:
        raise NotSaved(f"is of another root, {value.get('root')}, and the daemon keeps {root}")
    follows = _describe(follower.criteria)
    if (others := value.get("follows")) != follows:
        names = [name for name in follows if not isinstance(others, dict) or others.get(name) != follows[name]]
        raise NotSaved(f"was written with other values of {' and '.join(names)}: {json.dumps(others)}")
    try:
        follower.cursor, follower.baseline = str(value["cursor"]), int(value["baseline"])
        follower.told = {str(eid): Digest(*map(str, digest)) for eid, digest in value["told"].items()}
        pending = [_unpack_pending(each) for each in value["pending"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotSaved(f"is damaged ({error!r})") from error
    follower.pending = {each.path: each for each in pending}


def _describe(criteria: Criteria) -> dict[str, Any]:
    """Return what decides which sessions are told, by the flags that say it."""
    return {
        "--lab": sorted(criteria.labs),
        "--subject": sorted(criteria.subjects),
        "--having": sorted(each.text for each in criteria.having),
        "--lacking": sorted(each.text for each in criteria.lacking),
        "complete sessions": criteria.tells_complete,
    }


def pack_item(item: Change | Fresh) -> dict[str, Any]:
    """Return an item as a program is told it: all fields, and ``fresh`` as the change of a `Fresh`."""
    values = {each.name: getattr(item, each.name) for each in fields(item)}
    return values if isinstance(item, Change) else {"change": "fresh", **values}


def _pack_pending(pending: Pending) -> dict[str, Any]:
    item = {name: value for name, value in pack_item(pending.item).items() if value != _DEFAULTS.get(name, MISSING)}
    later = None if pending.later is None else pack_item(pending.later)
    return {"item": item, "later": later, "changed_at": pending.changed_at}


def _unpack_pending(value: Mapping[str, Any]) -> Pending:
    item, later = _unpack_item(value["item"]), value["later"]
    return Pending(item, float(value["changed_at"]), later=None if later is None else _unpack_item(later))


def _unpack_item(value: Mapping[str, Any]) -> Change | Fresh:
    if value["change"] == "fresh":
        return Fresh(**{each.name: value[each.name] for each in fields(Fresh)})
    return Change(**value)
