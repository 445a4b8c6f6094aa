"""What a program is told of a session: as JSON, and in the environment of a command. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alfwatchd.changes import Change, Fresh
from alfwatchd.follow.completeness import Dataset
from alfwatchd.follow.saved import pack_item
from alfwatchd.service.configuration import ENV_PREFIX


def make_record(item: Change | Fresh, required: Sequence[Dataset] | None) -> dict[str, Any]:
    """Return what is told of a session.

    Parameters
    ----------
    item : Change or Fresh
    required : sequence of Dataset or None
        Of a complete session, its required datasets; None for a change.

    Returns
    -------
    dict
        For a change the fields of `Change`. For a complete session ``change`` is ``complete``, and ``datasets`` lists
        the required datasets. For all sessions ``change`` is ``fresh``, and the fields are those of `Fresh`.
    """
    if required is None or isinstance(item, Fresh):
        return pack_item(item)
    return {
        "change": "complete",
        "path": item.path,
        "eid": item.eid,
        "generation": item.generation,
        "seen_at": item.seen_at,
        "cursor": item.cursor,
        "datasets": [each._asdict() for each in required],
    }


def make_variables(record: dict[str, Any], root: str) -> dict[str, str]:
    """Return the environment variables of a command for a record; `root` is an absolute path.

    `service.configuration.OF_COMMANDS` lists them, so that a command may call `alfwatchd`.
    """
    path = record.get("path", "")
    values = {
        "ROOT": root,
        "PATH": f"{root.rstrip('/')}/{path}" if path else root,
        "SESSION": path,
        "EID": record.get("eid", ""),
        "GENERATION": record["generation"],
        "CHANGE": record["change"],
    }
    return {ENV_PREFIX + name: "" if value is None else str(value) for name, value in values.items()}
