"""What the tables on disk hold and where, kept in the state folder: a new process goes on where the last one ended.

It is a shortcut and no more: it counts only as long as both files are those that it was made for, down to inode, size
and time, and whoever finds it damaged, or finds none, writes the tables whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alfwatchd.core.ids import md5
from alfwatchd.core.partition import Digests
from alfwatchd.grouped import Group

_MAGIC = b"alfwatchd layout 1\n"


@dataclass(frozen=True, slots=True)
class Layout:
    """What two grouped files hold, and where.

    Parameters
    ----------
    made_for : dict
        Names the files and how rows became columns. Plain JSON.
    n_bits : int
        As in `Partition`.
    digests : Digests
        Of all groups.
    groups : mapping of str to dict of int to Group
        By name of the file.
    """

    made_for: dict[str, Any]
    n_bits: int
    digests: Digests
    groups: Mapping[str, dict[int, Group]]


def save_layout(path: Path, layout: Layout) -> None:
    """Keep a layout. Neither durable nor sure to work: a crash or a full disk costs one full write, later."""
    blobs: list[bytes] = []
    head = {
        "made_for": layout.made_for,
        "n_bits": layout.n_bits,
        "sessions": {group: digest.hex() for group, digest in layout.digests.sessions.items()},
        "datasets": {group: digest.hex() for group, digest in layout.digests.datasets.items()},
        "groups": {name: list(_pack(groups, blobs)) for name, groups in layout.groups.items()},
    }
    body = b"\n".join([json.dumps(head).encode(), b"".join(blobs)])
    temporary = path.with_name(f"{path.name}.tmp")
    with suppress(OSError):
        temporary.write_bytes(_MAGIC + md5(body).digest() + body)
        temporary.replace(path)


def load_layout(path: Path, made_for: dict[str, Any]) -> Layout | None:
    """Return what `save_layout` kept, if it was made for the same; None if it was not, or is not there or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + md5().digest_size
    body = memoryview(content)[start:]
    if content[:start] != _MAGIC + md5(body).digest():
        return None
    line, _, blobs = bytes(body).partition(b"\n")
    head = json.loads(line)
    if head["made_for"] != made_for:
        return None
    sessions, datasets = (
        {int(group): bytes.fromhex(digest) for group, digest in head[name].items()} for name in ("sessions", "datasets")
    )
    reader = pa.BufferReader(blobs)
    groups = {
        name: {key: Group(start, end, _unpack(reader.read(size))) for key, start, end, size in some}
        for name, some in head["groups"].items()
    }
    return Layout(made_for, head["n_bits"], Digests(sessions, datasets), groups)


def _pack(groups: Mapping[int, Group], blobs: list[bytes]) -> Iterator[tuple[int, int, int, int]]:
    """Yield key, start, end and size of the metadata of each row group, and append the metadata itself to `blobs`."""
    for key, group in groups.items():
        sink = pa.BufferOutputStream()
        group.metadata.write_metadata_file(sink)
        blobs.append(sink.getvalue().to_pybytes())
        yield key, group.start, group.end, len(blobs[-1])


def _unpack(blob: bytes) -> pq.FileMetaData:
    return pq.read_metadata(pa.BufferReader(blob))
