"""Makes paths fit for messages: a name on disk may hold any byte, also a line break."""

from __future__ import annotations


def printable(path: str) -> str:
    """Return a path fit for one line of a message: bytes that are not UTF-8, and control characters, become escapes."""
    if path.isprintable():
        return path
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in path)
