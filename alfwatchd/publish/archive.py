"""Makes a ``cache.zip`` of the tables in the output folder, or of some of their rows, with one date in all parts."""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from alfwatchd.alf.file_names import INFO
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.errors import TablesError
from alfwatchd.publish import cache_info
from alfwatchd.publish.cache_info import Rows
from alfwatchd.publish.selection import ContentDigest, Selection, as_rows_of, plain_ids, select_datasets
from alfwatchd.store.parquet import CheckedFile
from alfwatchd.store.reader import open_pair
from alfwatchd.store.zip_files import check_member, open_zip
from alfwatchd.tables import arrow
from alfwatchd.tables.columns import with_pandas_index

_ROWS_PER_GROUP = 1 << 17
PATIENCE_SECONDS = 30.0
"""How long to wait for two tables of one generation: a flush may replace the second one 20 s after the first."""
_POLL_SECONDS = 0.2
_INDEXES = {"sessions": ("id",), "datasets": ("eid", "id")}
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """The selected rows of one generation. They stay readable while the tables are replaced. Used by one thread.

    Parameters
    ----------
    generation : int
        Generation of the tables.
    origin : object
        The ``origin`` in their metadata.
    content : str
        Digest of all that readers get, except dates.
    tag : str
        See `open_bundle`.
    selection : Selection
    sessions, datasets : CheckedFile
    eids : pyarrow.Array
        Ids of the selected sessions; only where the selection leaves something out.
    """

    generation: int
    origin: object
    content: str
    tag: str
    selection: Selection
    sessions: CheckedFile
    datasets: CheckedFile
    eids: pa.Array

    @contextmanager
    def zipped(self, date: str, nonce: str) -> Iterator[tuple[BinaryIO, dict[str, Any]]]:
        """Yield the zip, in a file without a name, so that nothing is left of it if this process is killed.

        Parameters
        ----------
        date : str
            As ONE writes it; the same in the tables and the JSON.
        nonce : str
            See `cache_info.inner_info`.

        Yields
        ------
        tuple of (file, dict)
            The zip, opened for reading; the JSON that is in it.

        Raises
        ------
        TablesError
            The folder of temporary files has no room.
        """
        described = cache_info.one_metadata(date, self.origin, self.tag)
        try:
            with ExitStack() as stack:
                files = {name: stack.enter_context(tempfile.TemporaryFile()) for name in _INDEXES}
                made = stack.enter_context(tempfile.TemporaryFile())
                yield made, self._zip(made, files, described, nonce)
        except OSError as error:  # also when a file is closed whose rest cannot be written
            raise TablesError(
                f"an archive cannot be made in the folder of temporary files ({error.strerror or error}); "
                "make room there, or set TMPDIR to another folder"
            ) from error

    def _zip(self, made: Any, files: Mapping[str, Any], described: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """Write the zip, and return the JSON in it. Each table is written to a file of its own first."""
        rows = {name: self._write(name, file, described) for name, file in files.items()}
        info = cache_info.inner_info(described, rows, self.content, nonce)
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
            for name, file in files.items():
                file.seek(0)
                with zipped.open(_entry(f"{name}.pqt"), "w", force_zip64=True) as entry:
                    copyfileobj(file, entry, _CHUNK_BYTES)
            zipped.writestr(_entry(INFO), json.dumps(info, indent=1))
        made.seek(0)
        return info

    def _write(self, name: str, file: BinaryIO, described: Mapping[str, Any]) -> Rows:
        """Write one table as plain Parquet: without unused space, in large row groups."""
        schema = _schema_of(self.sessions if name == "sessions" else self.datasets)
        batches = _joined(_batches(name, self))
        first = next(batches, None)
        if first is None and "qc" in schema.names:  # One fails on an empty one, and adds a missing one
            empty = schema.empty_table().drop_columns(["qc"])
            schema = with_pandas_index(empty, _INDEXES[name]).schema
        metadata = {b"one_metadata": json.dumps(described).encode(), b"pandas": schema.metadata[b"pandas"]}
        schema = schema.with_metadata(metadata)
        with pq.ParquetWriter(file, schema, **_options(schema)) as writer:
            while first is not None:
                table = as_rows_of(schema, first)
                writer.write_table(table, row_group_size=len(table))
                first = next(batches, None)
        file.seek(0)
        about = pq.read_metadata(file)
        return Rows(about.num_rows, about.serialized_size)


@contextmanager
def open_bundle(out_dir: Path, selection: Selection, tag: str = "") -> Iterator[Bundle]:
    """Open the tables, and yield the rows that a target gets; they are read one row group at a time.

    Parameters
    ----------
    out_dir : Path
        Folder of the tables that alfwatchd keeps.
    selection : Selection
    tag : str
        Name by which clients ask for these tables; empty for none.

    Raises
    ------
    TablesError
        For `PATIENCE_SECONDS` there were not two tables of one generation; or they are damaged.
    """
    with ExitStack() as stack:
        sessions, datasets, generation = _open_patiently(stack, out_dir)
        try:
            origin = parse_json(sessions.schema_arrow.metadata[b"one_metadata"])["origin"]
            eids = _selected_eids(sessions, selection)
            bundle = Bundle(generation, origin, "", tag, selection, sessions, datasets, eids)
            digest = ContentDigest(cache_info.one_metadata("", origin, tag))
            for name in _INDEXES:
                for rows in _batches(name, bundle):
                    digest.add(name, rows)
        except (OSError, pa.ArrowException, ValueError, LookupError, TypeError) as error:
            raise TablesError(f"{out_dir}: the tables cannot be read ({error}); remove them, and restart") from error
        yield Bundle(generation, origin, digest.hexdigest(), tag, selection, sessions, datasets, eids)


def _open_patiently(stack: ExitStack, out_dir: Path) -> tuple[CheckedFile, CheckedFile, int]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return stack.enter_context(open_pair(out_dir))
        except TablesError:
            if not out_dir.is_dir() or time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)


def _batches(name: str, bundle: Bundle) -> Iterator[pa.Table]:
    """Yield the selected rows of a table, with ids as plain strings."""
    file = bundle.sessions if name == "sessions" else bundle.datasets
    selection = bundle.selection
    for number in range(file.num_row_groups):
        rows = plain_ids(file.read_row_group(number))
        if not selection.is_all:
            rows = selection.sessions(rows) if name == "sessions" else select_datasets(rows, bundle.eids)
        if len(rows):
            yield rows


def _joined(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows in parts of about `_ROWS_PER_GROUP`, a size that is fast to read."""
    waiting: list[pa.Table] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= _ROWS_PER_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _selected_eids(sessions: CheckedFile, selection: Selection) -> pa.Array:
    parts = [arrow.strings([])]
    for number in range(0 if selection.is_all else sessions.num_row_groups):
        chosen = selection.sessions(plain_ids(sessions.read_row_group(number)))
        parts.append(chosen.column("id").combine_chunks().cast(pa.string()))
    return pa.concat_arrays(parts)


def _schema_of(file: CheckedFile) -> pa.Schema:
    return file.schema_arrow


def _options(schema: pa.Schema) -> dict[str, Any]:
    """Return how columns are written: for readers of the whole file, unlike those in the output folder.

    A dictionary of the ids of rows, which do not repeat, would only make the file larger.
    """
    kinds = {each.name: each.type for each in schema if each.name != "id"}
    texts = [name for name, kind in kinds.items() if not pa.types.is_primitive(kind) and not pa.types.is_null(kind)]
    return {"compression": "zstd", "use_dictionary": texts, "write_statistics": ["id"], "write_page_checksum": True}


def _entry(name: str) -> zipfile.ZipInfo:
    """Return an entry of the zip: readable for all users once it is unpacked, and without a time of its own."""
    entry = zipfile.ZipInfo(name, _NO_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o100644 << 16
    return entry


def digest_of(file: Any) -> str:
    """Return the sha256 of a file, hexadecimal, and seek to its beginning."""
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return found


def read_zipped_info(file: BinaryIO) -> dict[str, Any]:
    """Return the JSON in a zip, which any program may have put at a target; empty if it has none or is no zip."""
    try:
        with open_zip(file) as zipped:
            check_member(
                zipped.getinfo(INFO)
            )  # other methods of compression fail with an OSError, as a broken disk does
            with zipped.open(INFO) as entry:
                return cache_info.parse_info(entry.read(cache_info.MOST_INFO_BYTES))
    except (zipfile.BadZipFile, zlib.error, struct.error, KeyError, ValueError, RuntimeError, EOFError):
        return {}
