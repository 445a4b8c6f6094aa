"""JSON that anybody may have written: its length and depth are bounded."""

from __future__ import annotations

import json
from typing import Any

MOST_CHARACTERS = 1 << 22
"""A list of nothing but empty lists takes 20 times as many bytes in memory."""


def parse(text: str | bytes, most: int = MOST_CHARACTERS) -> Any:
    """Return what JSON holds.

    Parameters
    ----------
    text : str or bytes
    most : int
        How many characters, or bytes, it may have.

    Raises
    ------
    ValueError
        It is no JSON, too long, or nested too deeply.
    """
    if len(text) > most:
        raise ValueError(f"JSON of {len(text)} characters, more than expected")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
