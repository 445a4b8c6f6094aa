"""The header by which a request says which root it means, so that no daemon answers for the root of another."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

from alfwatchd.errors import UsageError

HEADER = "Alfwatchd-Root"


def encode_root(path: bytes) -> str:
    """Return the header's value for an absolute path; a path may hold any byte, a header only ASCII."""
    return quote(path, safe="/")


def decode_root(value: bytes) -> bytes:
    """Return the path that a header's value stands for.

    Raises
    ------
    UsageError
        It is no absolute path.
    """
    path = unquote_to_bytes(value.strip())
    if not path.startswith(b"/") or b"\0" in path:
        shown = value.decode("utf-8", "replace")
        raise UsageError(f"{HEADER} = {shown!r}: should be the absolute path of a root, percent-encoded")
    return path.rstrip(b"/") or b"/"
