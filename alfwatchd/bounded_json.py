"""Reads JSON that another program may have written: its length and depth are bounded."""

from __future__ import annotations

import json
from typing import Any

MOST_CHARACTERS = 1 << 22
"""In memory, a list of empty lists takes 20 times as many bytes as this."""


def parse(text: str | bytes, most: int = MOST_CHARACTERS) -> Any:
    """Return the value of a JSON text.

    Parameters
    ----------
    text : str or bytes
    most : int
        Largest number of characters, or bytes, that it may have.

    Raises
    ------
    ValueError
        It is not JSON, is too long, or is nested too deeply.
    """
    if len(text) > most:
        raise ValueError(f"JSON of {len(text)} characters, more than expected")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
