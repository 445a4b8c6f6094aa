"""Makes the ids of sessions and datasets from their paths: the same tree has the same ids, anywhere and always.

The exception is an id that another session already has, in a database or in earlier tables.

ONE accepts UUIDs of version 3 and 4 only (``one.alf.spec.is_uuid``), so both ids carry the bits of version 3.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
import uuid
from collections.abc import Iterator

NAMESPACE = uuid.UUID("c75e382c-3624-4231-a014-392408f3c4c3")
"""Fixed for ever: changing it changes every id in the field."""

_USUAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[34][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)

try:
    hashlib.md5(b"")
    md5 = hashlib.md5  # a third faster than with the argument below, for texts as short as paths
except ValueError:  # where OpenSSL runs in FIPS mode
    md5 = functools.partial(hashlib.md5, usedforsecurity=False)


@functools.lru_cache(maxsize=1 << 18)
def session_id(eid_path: str, namespace: uuid.UUID = NAMESPACE) -> bytes:
    """Return the 16 bytes of a session's eid.

    Parameters
    ----------
    eid_path : str
        `SessionKey.eid_path`, for example ``lab/subject/2020-01-01/001``.
    namespace : uuid.UUID
        Another namespace gives other ids.
    """
    return uuid.uuid3(namespace, eid_path).bytes


def session_ids(eid_path: str, namespace: uuid.UUID = NAMESPACE) -> Iterator[bytes]:
    """Yield the eids that a session may get. The first one is taken unless another session already has it.

    No path of a session holds a ``#``, so no two paths share one of the later ones.
    """
    yield session_id(eid_path, namespace)
    for number in itertools.count(2):
        yield uuid.uuid3(namespace, f"{eid_path}#{number}").bytes


def dataset_ids(eid: bytes, rel_path: str) -> Iterator[bytes]:
    """Yield the ids that a dataset may get, as `session_ids` does. No dataset file name ends in ``#`` and a number."""
    yield dataset_id(eid, rel_path)
    for number in itertools.count(2):
        yield dataset_id(eid, f"{rel_path}#{number}")


def dataset_id(eid: bytes, rel_path: str) -> bytes:
    """Return the 16 bytes of a dataset's id: unique over the whole table and ordered as (eid, id) is.

    The first 8 bytes are those of the eid, which already hold the version; the rest is a digest of session and
    path with the variant of RFC 4122.

    Parameters
    ----------
    eid : bytes
        The 16 bytes of the session's eid.
    rel_path : str
        Path of the dataset relative to its session.
    """
    tail = md5(eid + rel_path.encode()).digest()
    return b"%b%c%b" % (eid[:8], (tail[0] & 0x3F) | 0x80, tail[1:8])


def parse_id(text: object) -> bytes | None:
    """Return the 16 bytes of an id that ONE would accept (lower case, hyphens, version 3 or 4), else None."""
    if not isinstance(text, str):
        return None
    if _USUAL.fullmatch(text):  # a tenth of the time
        return bytes.fromhex(text.replace("-", ""))
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        return None
    return parsed.bytes if str(parsed) == text and parsed.version in (3, 4) else None
