"""A Parquet file whose row groups are replaced one by one: a flush costs what changed, not what the table holds.

A new version of the file is a copy, made in the kernel, of the old one; changed row groups are written into holes that
earlier versions left, or at the end; then comes one footer that lists the row groups in force. pyarrow can join the
metadata of row groups (`FileMetaData.append_row_groups`), but neither take it apart nor start a writer anywhere but at
the beginning of a file. So each row group has a writer of its own, which begins at offset 0, as it insists, and writes
into a `_Sink`. The sink drops what Arrow writes before the row group (the magic, and as many zeros as make Arrow's own
offsets right) and the footer behind it. Arrow buffers what it writes, so the GIL is needed only once a megabyte.
Nothing here uses a private part of pyarrow.

`pyarrow.parquet.read_table`, and so ONE, opens a file once for its footer and once more for its rows, and must find the
rows of the footer it knows. So what a new version replaces stays in it for one version more, and for as long as
a reader that opened the file before may be between the two. After that it is a hole. If nothing is known about a file,
all of it is kept in this way: the new row groups come behind the old ones.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from alfwatchd.files import open_regular

_MAGIC = b"PAR1"
_TAIL_SIZE = 8  # behind the footer: its length, and the magic
_BUFFER_BYTES = 1 << 20
_NOTHING = pa.py_buffer(mmap.mmap(-1, 1 << 26, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ))
"""Zeros that are never looked at, so they take no memory."""
_MOST_WASTE, NO_WASTE_BYTES = 1.2, 1 << 19
"""How large a file may be before row groups are moved: a multiple of its row groups, and bytes above that."""
_MOST_KEPT, KEPT_ANYWAY_BYTES = 3, 1 << 22
"""How large a file may be for the sake of readers: a multiple of its row groups, and bytes above that."""
READING_SECONDS = 2.0
"""Longest time between the two openings. It is a millisecond, unless a reader is stopped."""


class Span(NamedTuple):
    """Where something lies in a file, in bytes."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Group:
    """One row group: where it lies, and the metadata of a file that holds nothing else, also packed."""

    span: Span
    metadata: pq.FileMetaData
    packed: bytes

    @classmethod
    def unpack(cls, span: Span, packed: bytes) -> Group:
        """Make a group from what was saved for the next process."""
        return cls(span, pq.read_metadata(pa.BufferReader(packed)), packed)


class _Left(NamedTuple):
    """What a version does not use, but readers of an earlier one may; since when, on the monotonic clock."""

    span: Span
    since: float


class GroupedFile:
    """The row groups of one file, by key; in the file they stand in the order of keys.

    Parameters
    ----------
    path : Path
        The file in force; `write` makes its successor and leaves the renaming to the caller, which then calls `commit`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.groups: dict[int, Group] = {}
        """Row groups of the file in force."""
        self._left: list[_Left] = []
        self._successor: tuple[dict[int, Group], list[Span], list[_Left]] = {}, [], []

    def resume(self, groups: dict[int, Group]) -> None:
        """Take over what another process wrote. What it left counts as left when it wrote the file."""
        with open_regular(self._path) as file:
            age = max(0.0, time.time() - os.fstat(file.fileno()).st_mtime)
            footer = [Span(whole.end, whole.end) for whole in spans_of(file)]  # it, too, may lie behind what was left
        self.groups = groups
        holes = _holes([*(each.span for each in groups.values()), *footer])
        self._left = [_Left(hole, time.monotonic() - age) for hole in holes]

    def forget(self) -> None:
        """Make the next `write` write all row groups."""
        self.groups = {}

    def to_move(self, changed: Collection[int]) -> set[int]:
        """Return the row groups at the end of a file with many holes that fit into these.

        There are as many of them as are replaced anyway, so that the cost stays that of what changed.
        """
        spans = [group.span for group in self.groups.values()]
        if _end(spans) <= _MOST_WASTE * sum(span.size for span in spans) + NO_WASTE_BYTES:
            return set()
        holes = _holes([*spans, *(left.span for left in self._left)])
        for key in changed:
            if key in self.groups:
                _take_hole(holes, self.groups[key].span.size)
        found: set[int] = set()
        for key in sorted(self.groups.keys() - set(changed), key=lambda each: -self.groups[each].span.start):
            span = self.groups[key].span
            if len(found) >= len(changed) or _take_hole(holes, span.size, span.start) is None:
                break
            found.add(key)
        return found

    def write(
        self,
        target: Path,
        schema: pa.Schema,
        tables: Iterable[tuple[int, pa.Table]],
        last_opened: float,
        version: tuple[int, int, int] | None = None,
    ) -> None:
        """Write the successor of the file.

        Parameters
        ----------
        target : Path
            New file. Not durable yet, nor renamed.
        schema : pyarrow.Schema
            With the metadata of the whole file.
        tables : iterable of (int, pyarrow.Table)
            Row groups to replace or add; one without rows is removed. The others stay as they are. One is asked for
            when the one before it is written, so that no two need be in memory.
        last_opened : float
            When a reader last opened the file in force or an earlier one, in seconds on the monotonic clock.
        version : tuple or None
            Inode, size and mtime_ns of the file in force, where others may write to it; see `files.file_version`.

        Raises
        ------
        OSError
            The file in force is as before, and so is what is known of it.
        """
        groups = dict(self.groups)
        with target.open("wb", buffering=0) as file:
            fd = file.fileno()
            in_force, left = self._copy_to(fd, last_opened, version)
            taken = [*in_force, *(each.span for each in left)]
            for key, table in tables:
                groups.pop(key, None)
                if len(table):
                    groups[key] = _write_group(fd, table, taken)
                    taken.append(groups[key].span)
            _Sink(fd, is_on=True).write(_MAGIC)
            end = _Sink(fd, _end(taken), is_on=True)
            end.write(_footer(schema, [groups[key] for key in sorted(groups)]))
            os.ftruncate(fd, end.place)
        self._successor = groups, in_force, left

    def commit(self) -> None:
        """Take notice that what was written last is in force now."""
        self.groups, before, left = self._successor
        used = {group.span for group in self.groups.values()}
        self._left = [*left, *(_Left(span, time.monotonic()) for span in before if span not in used)]

    def _copy_to(
        self, fd: int, last_opened: float, version: tuple[int, int, int] | None
    ) -> tuple[list[Span], list[_Left]]:
        """Copy what the successor must have for the sake of readers; return where it lies, and since when unused."""
        try:
            source = open_regular(self._path)
        except OSError:
            if self.groups:
                raise
            return [], []
        with source:
            in_force = [group.span for group in self.groups.values()] or spans_of(source)
            left = self._wait_for_space(in_force, last_opened)
            n_bytes = _end([*in_force, *(each.span for each in left)])
            n_copied = _copy(source, fd, n_bytes)
            about = os.fstat(source.fileno())
        if not self.groups:
            return in_force, left
        if n_copied < n_bytes:
            raise OSError(f"{self._path}: shorter than it should be")
        if version is not None and version != (about.st_ino, about.st_size, about.st_mtime_ns):
            raise OSError(f"{self._path}: another program writes to it")
        return in_force, left

    def _wait_for_space(self, in_force: list[Span], last_opened: float) -> list[_Left]:
        """Wait until not too much is kept only for readers, and return where that lies."""
        most = _MOST_KEPT * sum(span.size for span in in_force) + KEPT_ANYWAY_BYTES
        while True:
            now = time.monotonic()
            until = {each: min(each.since, last_opened) + READING_SECONDS for each in self._left}
            left = [each for each in self._left if until[each] > now]
            if not left or _end([*in_force, *(each.span for each in left)]) <= most:
                return left
            time.sleep(min(until[each] for each in left) - now)


def _end(spans: Iterable[Span]) -> int:
    return max((span.end for span in spans), default=len(_MAGIC))


def _holes(spans: Iterable[Span]) -> list[Span]:
    """Return what lies between spans."""
    holes, end = [], len(_MAGIC)
    for span in sorted(spans):
        if span.start > end:
            holes.append(Span(end, span.start))
        end = max(end, span.end)
    return holes


def _take_hole(holes: list[Span], size: int, before: int | None = None) -> Span | None:
    """Cut a piece off the smallest hole that is large enough and begins before a place; None if there is none."""
    fitting = [hole for hole in holes if hole.size >= size and (before is None or hole.start < before)]
    if not fitting:
        return None
    hole = min(fitting, key=lambda each: each.size)
    holes.remove(hole)
    holes.append(Span(hole.start + size, hole.end))
    return Span(hole.start, hole.start + size)


class _Sink:
    """What Arrow takes for a file. What it writes lands in ours while `is_on`, but counts at all times.

    Parameters
    ----------
    fd : int
        Descriptor of our file.
    place : int
        Offset of what is written first.
    """

    closed = False

    def __init__(self, fd: int, place: int = 0, *, is_on: bool = False) -> None:
        self._fd = fd
        self.place = place
        self.is_on = is_on

    def write(self, data: bytes | pa.Buffer) -> None:
        """Write all of it. Raises `OSError`."""
        left = memoryview(data)
        while left and self.is_on:
            n_written = os.pwrite(self._fd, left, self.place)
            left, self.place = left[n_written:], self.place + n_written
        self.place += len(left)

    def tell(self) -> int:
        """Return the offset of what is written next. Arrow counts for itself so far."""
        return self.place

    def flush(self) -> None:
        """Do nothing, as there is no buffer."""

    close = flush


def _write_group(fd: int, table: pa.Table, taken: Sequence[Span]) -> Group:
    """Write a row group into the smallest hole that is large enough, else at the end.

    How large it is shows when it is written, so it is written at the end first.
    """
    group = _write_at(fd, _end(taken), table)
    hole = _take_hole(_holes(taken), group.span.size)
    return group if hole is None else _write_at(fd, hole.start, table)


def _write_at(fd: int, start: int, table: pa.Table) -> Group:
    """Write a table as one row group that begins at an offset of the file."""
    collected: list[pq.FileMetaData] = []
    sink = _Sink(fd)
    file = pa.PythonFile(sink, "w")
    buffered = pa.BufferedOutputStream(file, _BUFFER_BYTES)
    try:
        writer = pq.ParquetWriter(buffered, table.schema, metadata_collector=collected, **_options(table.schema))
        buffered.flush()
        while n_skipped := min(start - file.tell(), _NOTHING.size):
            file.write(_NOTHING.slice(0, n_skipped))
        sink.is_on = True
        writer.write_table(table, row_group_size=len(table))
        buffered.flush()
    finally:
        sink.is_on = False  # what Arrow still has goes nowhere: its footer, or after a failure the rest of its buffer
    end = file.tell()
    writer.close()
    return Group(Span(start, end), collected[0], _pack(collected[0]))


def _options(schema: pa.Schema) -> dict[str, Any]:
    """Return how columns are written: against pyarrow's own way half the size, and a little faster.

    Most of it is zstd. Numbers repeat too seldom for a dictionary, and the ids of rows not at all: a dictionary of them
    would be the column itself, with an index beside it. Readers get the Arrow type of the schema all the same. A
    program that reads part of a table reads it by session, so only the statistics of ids are worth their place in the
    footer.
    """
    texts = [field.name for field in schema if not pa.types.is_primitive(field.type) and field.name != "id"]
    ids = [name for name in schema.names if name in ("eid", "id")]
    checked = {"write_page_checksum": True}  # so that damage is not taken for rows, which zstd often does
    return {"compression": "zstd", "use_dictionary": texts, "write_statistics": ids, **checked}


def _footer(schema: pa.Schema, groups: list[Group]) -> bytes:
    """Return what stands behind the row groups of a file: metadata, its length, and the closing magic."""
    collected: list[pq.FileMetaData] = []
    with pq.ParquetWriter(pa.BufferOutputStream(), schema, metadata_collector=collected):
        pass
    metadata = collected[0]
    for group in groups:
        metadata.append_row_groups(group.metadata)
    return _pack(metadata)[len(_MAGIC) :]


def _pack(metadata: pq.FileMetaData) -> bytes:
    sink = pa.BufferOutputStream()
    metadata.write_metadata_file(sink)
    return bytes(sink.getvalue().to_pybytes())


def _copy(source: BinaryIO, fd: int, n_bytes: int) -> int:
    """Copy the beginning of a file within the kernel, as much as there is; file systems that can share blocks do."""
    offset = 0
    while offset < n_bytes:
        n_copied = os.copy_file_range(source.fileno(), fd, n_bytes - offset, offset, offset)
        if n_copied == 0:
            break
        offset += n_copied
    return offset


_MOST_FOREIGN_BYTES = 1 << 32
"""Of a file that another program put there: copied for its readers. A sparse file of any size would fill the disk."""


def spans_of(file: BinaryIO) -> list[Span]:
    """Return where the row groups of any file lie, as one span; an empty list if the file makes no sense.

    Its footer is not asked which they are: pyarrow ends the process for some that are damaged.
    """
    size = os.fstat(file.fileno()).st_size
    if size > _MOST_FOREIGN_BYTES:
        return []
    tail = os.pread(file.fileno(), _TAIL_SIZE, max(0, size - _TAIL_SIZE))
    end = size - _TAIL_SIZE - int.from_bytes(tail[: -len(_MAGIC)], "little")
    return [Span(len(_MAGIC), end)] if tail.endswith(_MAGIC) and end > len(_MAGIC) else []
