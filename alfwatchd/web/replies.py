"""Makes typed replies and errors of the JSON that a daemon answered."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from alfwatchd import api, errors
from alfwatchd.changes import Change
from alfwatchd.errors import AlfwatchdError, RequestFailed, TooOften

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Reply = TypeVar("_Reply", bound="DataclassInstance")

_ITEMS: dict[str, type[DataclassInstance]] = {
    "rescans": api.RescanNote,
    "problems": api.ProblemReply,
    "targets": api.TargetStatus,
    "files": api.PruneItem,
    "folders": api.PruneItem,
    "kept": api.PruneItem,
    "steps": api.IdStep,
    "plans": api.PlanRecord,
    "changes": Change,
}


def read_reply(kind: type[_Reply], answer: dict[str, Any]) -> _Reply:
    """Return an answer as a reply; fields that this version does not know, from a newer daemon, are ignored.

    Raises
    ------
    RequestFailed
        Fields are missing.
    """
    known = {field.name for field in fields(kind)} & answer.keys()
    try:
        answer = {**answer, **_nested(answer, known)}
        listed = [key for key in known if _is_of_items(key, answer[key])]
        items = {key: [read_reply(_ITEMS[key], each) for each in answer[key]] for key in listed}
        return kind(**{key: answer[key] for key in known} | items)
    except TypeError as error:
        raise RequestFailed(
            f"the daemon's answer lacks fields ({error}): the daemon runs another version of alfwatchd; restart it"
        ) from error


def _is_of_items(key: str, value: Any) -> bool:
    """Tell whether a value is a list of replies; `plans` is a list of ids in some answers."""
    return key in _ITEMS and (key != "plans" or all(isinstance(each, dict) for each in value))


def _nested(answer: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """Return the parts of an answer that are replies themselves."""
    return {"adopt": read_reply(api.AdoptStatus, answer["adopt"])} if "adopt" in known and answer["adopt"] else {}


def read_error(answer: dict[str, Any], retry_after: str = "") -> AlfwatchdError:
    """Return the daemon's error, of the class that it had there; `retry_after` is the header of that name."""
    found = getattr(errors, str(answer.get("error")), None)
    kind = found if isinstance(found, type) and issubclass(found, AlfwatchdError) else RequestFailed
    error = kind(str(answer.get("message", answer)))
    if isinstance(error, TooOften):
        error.wait_seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
    return error
