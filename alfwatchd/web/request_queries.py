"""The queries of requests to the control API: what stands behind the ``?`` of an address."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

MOST_WAIT_SECONDS = 60.0
MOST_CHANGES = 10_000

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
_PLACE = r"^(now|start|[0-9]{1,18}|[0-9a-f]{8}\.[0-9]{1,18}(\.[0-9]{1,9})?(~[0-9]{1,18})?)$"


def check_place(text: str) -> str:
    """Return a text that names a place in the feed.

    Raises
    ------
    ValueError
        It does not.
    """
    if re.fullmatch(_PLACE, text, re.ASCII) is None:
        raise ValueError(f"{text[:80]!r} is no place in the feed: give now, start, a generation, or an earlier `next`")
    return text


def _check_number(text: object) -> object:
    """Refuse spellings of numbers that JSON does not have, which Python reads: ``1_0``, ``+1``, spaces."""
    if isinstance(text, str) and _NUMBER.fullmatch(text) is None:
        raise ValueError(f"{text[:80]!r} is no number")
    return text


Since = Annotated[
    str,
    AfterValidator(check_place),
    Field(
        json_schema_extra={"pattern": _PLACE},
        description="Place in the feed: `next` or `cursor` of an earlier answer, or a generation. `now`: what changes "
        "from now on. `start`: all that the journal has.",
    ),
]
Name = Annotated[str, Field(min_length=1, max_length=255)]


class StreamQuery(BaseModel):
    """Which changes are told."""

    model_config = ConfigDict(extra="forbid")
    since: Since = "now"
    lab: Name | None = Field(None, description="Only sessions of this lab.")
    subject: Name | None = Field(None, description="Only sessions of this subject.")
    flushed: Literal["true", "false"] = Field(
        "true", description="`false`: also tell changes that are not in the tables on disk yet."
    )


class ChangesQuery(StreamQuery):
    """Which changes are told, how many, and how long to wait for the first one."""

    wait: Annotated[float, BeforeValidator(_check_number)] = Field(
        0.0,
        ge=0,
        le=MOST_WAIT_SECONDS,
        allow_inf_nan=False,
        description="Seconds for which the answer is held until something changes.",
    )
    limit: Annotated[int, BeforeValidator(_check_number)] = Field(
        1000, ge=1, le=MOST_CHANGES, description="Most sessions in the answer."
    )
