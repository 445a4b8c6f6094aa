"""The files of the journal. Each holds the batches behind a generation, which its name tells.

Batches are added to the last file only. A file that is full is replaced by a compressed one, and never changes again.
So another process reads them without a lock: a batch that is not whole yet is the end, and is whole at the next look.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from alfwatchd.atomic import write_atomically
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.files import open_regular, open_regular_fd
from alfwatchd.journal.entries import Batch, Head, pack_batch, parse_changes, parse_head

FOLDER = "journal"
"""Its name in the state folder."""
FULL_BYTES = 1 << 22
_MOST_LINE_BYTES = 1 << 16
_NAME = re.compile(r"([0-9]{20})\.jsonl(\.gz)?")
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of the journal.

    Parameters
    ----------
    floor : int
        Its batches are of later generations.
    path : Path
    is_full : bool
        Whether it is compressed, and never changes.
    """

    floor: int
    path: Path
    is_full: bool


def list_segments(folder: Path) -> list[Segment]:
    """Return the files of a journal, the oldest first; none if there is no journal."""
    found: dict[int, Segment] = {}
    try:
        names = sorted(each.name for each in folder.iterdir())
    except OSError:
        return []
    for name in names:  # a compressed file sorts behind the one that it replaces
        if (match := _NAME.fullmatch(name)) is not None:
            found[int(match[1])] = Segment(int(match[1]), folder / name, match[2] is not None)
    return [found[floor] for floor in sorted(found)]


def read_segment(segment: Segment, after: int = -1) -> Iterator[str | Batch]:
    """Yield the id of the journal, and then the batches of later generations than `after`, until one is not whole.

    Raises
    ------
    OSError
        The file cannot be read; it may have been replaced, or removed because it is old.
    """
    for found in _read_whole(segment, after):
        if isinstance(found, str):
            yield found
            continue
        try:
            yield parse_changes(*found)
        except ValueError:
            return


def read_heads(segment: Segment, after: int = -1) -> Iterator[Head]:
    """Yield the heads of the batches that `read_segment` yields, in a fraction of the time; raises as that."""
    return (found[0] for found in _read_whole(segment, after) if not isinstance(found, str))


def _read_whole(segment: Segment, after: int) -> Iterator[str | tuple[Head, bytes]]:
    with open_regular(segment.path) as raw, _unpacked(raw, segment) as file:
        journal = _read_id(file, segment.floor)
        if journal is None:
            return
        yield journal
        while (head := _read_head(file)) is not None:
            try:
                if head.generation <= after:
                    file.seek(head.n_bytes, os.SEEK_CUR)
                    continue
                body = _read(file, head.n_bytes)
            except (EOFError, zlib.error):
                return
            if zlib.crc32(body) != head.crc:
                return
            yield head, body


def _unpacked(raw: BinaryIO, segment: Segment) -> BinaryIO:
    return gzip.GzipFile(fileobj=raw) if segment.is_full else raw  # type: ignore[return-value]


def _read(file: BinaryIO, n_bytes: int) -> bytes:
    """Read a part of a file. A length that is damaged must not take all memory, so it is read in pieces."""
    parts: list[bytes] = []
    while n_bytes > 0 and (part := file.read(min(n_bytes, 1 << 20))):
        parts.append(part)
        n_bytes -= len(part)
    return b"".join(parts)


def _read_head(file: BinaryIO) -> Head | None:
    try:
        line = file.readline(_MOST_LINE_BYTES)
        return parse_head(line) if line.endswith(b"\n") else None
    except (ValueError, EOFError, OSError, zlib.error):
        return None


def _read_id(file: BinaryIO, floor: int) -> str | None:
    try:
        first = parse_json(file.readline(_MOST_LINE_BYTES))
        is_ours = first["format"] == _FORMAT and first["after"] == floor and isinstance(first["journal"], str)
    except (ValueError, LookupError, TypeError, EOFError, OSError, zlib.error):
        return None
    return first["journal"] if is_ours else None


def begin_segment(folder: Path, journal: str, floor: int) -> Segment:
    """Make a file without batches, in place of one that has the same name."""
    path = folder / f"{floor:020d}.jsonl"
    first = json.dumps({"format": _FORMAT, "journal": journal, "after": floor}).encode() + b"\n"
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    write_atomically(path, lambda target: _write_all(target, first), mode=0o640, is_durable=False)
    with suppress(OSError):
        path.with_name(f"{path.name}.gz").unlink()
    return Segment(floor, path, is_full=False)


def _write_all(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def append(segment: Segment, batch: Batch, size: int) -> int:
    """Add a batch behind what is whole, and return the size of the file.

    Parameters
    ----------
    segment : Segment
        The last one.
    batch : Batch
    size : int
        Bytes that are whole. What follows, after a kill, is overwritten.

    Raises
    ------
    OSError
        The batch is not in the file, or only a part of it.
    """
    content = memoryview(pack_batch(batch))
    fd = open_regular_fd(segment.path, os.O_RDWR)
    try:
        if os.fstat(fd).st_size != size:
            os.ftruncate(fd, size)
        n_done = 0
        while n_done < len(content):
            n_done += os.pwrite(fd, content[n_done:], size + n_done)
    finally:
        os.close(fd)
    return size + len(content)


def whole_size(segment: Segment) -> int:
    """Return how many bytes at the start of a file that is not compressed are whole."""
    with open_regular(segment.path) as file:
        if _read_id(file, segment.floor) is None:
            return 0
        while True:
            size = file.tell()
            head = _read_head(file)
            if head is None or zlib.crc32(_read(file, head.n_bytes)) != head.crc:
                return size


def compress(segment: Segment) -> Segment:
    """Replace a file by a compressed one."""
    full = Segment(segment.floor, segment.path.with_name(f"{segment.path.name}.gz"), is_full=True)
    content = segment.path.read_bytes()
    packed = gzip.compress(content, 6, mtime=0)
    write_atomically(full.path, lambda target: _write_all(target, packed), mode=0o640)
    segment.path.unlink()
    return full


def remove(segments: Iterable[Segment]) -> None:
    """Remove files, the oldest first, so that what is left has no gap."""
    for segment in segments:
        segment.path.unlink(missing_ok=True)


def size_of(segment: Segment) -> int:
    """Return the size of a file in bytes; 0 if it is gone."""
    try:
        return segment.path.stat().st_size
    except OSError:
        return 0


def id_of(segment: Segment) -> str | None:
    """Return the id of the journal that a file is of; None if it is damaged or gone."""
    try:
        first = next(read_segment(segment), None)
    except OSError:
        return None
    return first if isinstance(first, str) else None
