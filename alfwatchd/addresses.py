"""Removes secrets from addresses: what follows a '?' may be a signature, what precedes an '@' a password."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>]*")


def shown(address: str) -> str:
    """Return an address without user, password, query and fragment. Other texts, such as paths, stay as they are."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    first = rest.partition("/")[0]
    has_secret = "@" in first or (":" in first and not re.fullmatch(r"(\[[^\]]*\]|[^:]*):\d*", first))
    return f"{scheme}://{rest.rpartition('@')[2] if has_secret else rest}"


def redact(text: str) -> str:
    """Return a text in which each address is replaced by its `shown` form."""
    return _ADDRESS.sub(lambda found: shown(found[0]), text)
