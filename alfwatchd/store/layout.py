"""What the tables on disk hold and where, kept in the state folder: a new process goes on where the last one ended.

It only saves time. It counts as long as both files are those that it was made for, by inode, size and time. Where it is
missing, damaged or out of date, the tables are written whole.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.alf.ids import md5
from alfwatchd.atomic import write_atomically
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.files import FileVersion, open_regular
from alfwatchd.store.parquet_file import Group, Span
from alfwatchd.tables.row_groups import Digests
from alfwatchd.tables.rules import TableRules
from alfwatchd.version import find_version

LAYOUT = "tables.layout"
"""Its name in the state folder."""
MAGIC = b"alfwatchd layout 1\n"


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


def made_for(
    out_dir: Path, versions: tuple[FileVersion | None, FileVersion | None], rules: TableRules
) -> dict[str, Any]:
    """Return what must be equal for a layout to hold. No layout is recorded while rows follow from earlier tables.

    Parameters
    ----------
    out_dir : Path
    versions : tuple of FileVersion
        Of both files.
    rules : TableRules
    """
    return {
        "version": find_version(),
        "files": [str(out_dir / name) for name in (SESSIONS, DATASETS)],
        "file_versions": [list(version) if version else None for version in versions],
        "namespace": str(rules.namespace),
        "lab": rules.lab,
        "with_hashes": rules.with_hashes,
        "adopted": rules.known.adoption.digest,
    }


def save_layout(path: Path, layout: Layout) -> None:
    """Keep a layout. Neither durable nor sure to work: a crash or a full disk costs one full write, later."""
    head = {
        "made_for": layout.made_for,
        "n_bits": layout.n_bits,
        "sessions": {group: digest.hex() for group, digest in layout.digests.sessions.items()},
        "datasets": {group: digest.hex() for group, digest in layout.digests.datasets.items()},
        "groups": {
            name: [(key, *group.span, len(group.packed)) for key, group in groups.items()]
            for name, groups in layout.groups.items()
        },
    }
    packed = [group.packed for groups in layout.groups.values() for group in groups.values()]
    body = b"\n".join([json.dumps(head).encode(), b"".join(packed)])
    content = MAGIC + md5(body).digest() + body

    def write(target: Path) -> None:
        target.write_bytes(content)

    with suppress(OSError):
        write_atomically(path, write, is_durable=False)


def read_versions(path: Path) -> list[Any]:
    """Return the versions of the files that a layout was made for; none where there is no sound layout."""
    content = _read(path)
    try:
        versions = parse_json(content.partition(b"\n")[0], len(content))["made_for"]["file_versions"] if content else []
    except (ValueError, LookupError, TypeError):
        return []
    return versions if isinstance(versions, list) else []


def load_layout(path: Path, made_for: dict[str, Any]) -> Layout | None:
    """Return what `save_layout` kept, if it was made for the same; None if it was not, is missing or is damaged."""
    line, _, packed = _read(path).partition(b"\n")
    try:
        head = parse_json(line, len(line))
        return _unpack(head, packed, made_for) if head["made_for"] == made_for else None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, OSError, pa.ArrowException):
        return None  # the digest protects against damage, not against a file that was made on purpose


def _read(path: Path) -> bytes:
    """Return what follows the digest of a file that `save_layout` wrote; nothing where it is not there or damaged."""
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError:
        return b""
    start = len(MAGIC) + md5().digest_size
    body = memoryview(content)[start:]
    return bytes(body) if content[:start] == MAGIC + md5(body).digest() else b""


def _unpack(head: dict[str, Any], packed: bytes, made_for: dict[str, Any]) -> Layout:
    sessions, datasets = (
        {int(group): bytes.fromhex(digest) for group, digest in head[name].items()} for name in ("sessions", "datasets")
    )
    reader = io.BytesIO(packed)
    groups = {
        name: {key: Group.unpack(Span(start, end), reader.read(size)) for key, start, end, size in some}
        for name, some in head["groups"].items()
    }
    return Layout(made_for, head["n_bits"], Digests(sessions, datasets), groups)
