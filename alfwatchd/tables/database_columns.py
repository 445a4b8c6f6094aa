"""Tables that a database made, of any version of ONE since 1.13 -> plain columns in memory.

Older tables hold each id as two integers, ``project`` instead of ``projects``, sizes as floats, and no qc: what
``one.alf.cache.patch_tables`` mends for One is mended here for us, column by column, without pandas.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alfwatchd.alf.grammar import SessionKey, parse_session
from alfwatchd.tables import arrow, carry_over
from alfwatchd.tables.earlier import QC_CATEGORIES
from alfwatchd.tables.matching import without_no_revision
from alfwatchd.tables.raw_ids import Ids, strict
from alfwatchd.tree.packed import DIGEST_SIZE

_QC_NUMBERS = {0: 0, 10: 1, 30: 2, 40: 3, 50: 4}
"""Values of ``one.alf.spec.QC`` -> index into `QC_CATEGORIES`."""
_MOST = 1 << 52
_ID_SIZE = 16
_MD5 = re.compile(r"[0-9a-f]{32}")
_MD5_LENGTHS = (2 * DIGEST_SIZE, 2 * DIGEST_SIZE + 4)
"""Of a md5 in hex, and of one that is written like a UUID, as in the documents of Alyx."""


@dataclass(frozen=True, slots=True)
class DatabaseSessions:
    """Sessions of a database, `n_sessions` of each.

    Parameters
    ----------
    keys : sequence of SessionKey or None
        None for a row that makes no sense.
    eids : numpy.ndarray
    task_protocols, projects : sequence of str
        Empty if unknown.
    """

    keys: Sequence[SessionKey | None]
    eids: Ids
    task_protocols: Sequence[str]
    projects: Sequence[str]


@dataclass(frozen=True, slots=True)
class DatabaseDatasets:
    """Datasets of a database, `n_datasets` of each array.

    Parameters
    ----------
    ids : numpy.ndarray
    eid_codes : numpy.ndarray of int32
        Index into `eids`; -1 where there is none.
    eids : numpy.ndarray
        Each eid once.
    path_codes : numpy.ndarray of int32
        Index into `paths`; -1 where there is none.
    paths : sequence of bytes
        Each rel_path once.
    file_sizes : numpy.ndarray of int64
        Bytes; -1 where unknown.
    digests : numpy.ndarray of uint8
        md5, shape (n_datasets, 16); zeros where unknown.
    qc : numpy.ndarray of int8
        Index into `QC_CATEGORIES`.
    defaults : numpy.ndarray of int8
        Whether it is the default revision: 0, 1, or -1 where unknown.
    """

    ids: Ids
    eid_codes: npt.NDArray[np.int32]
    eids: Ids
    path_codes: npt.NDArray[np.int32]
    paths: Sequence[bytes]
    file_sizes: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint8]
    qc: npt.NDArray[np.int8]
    defaults: npt.NDArray[np.int8]


def read_sessions(table: pa.Table) -> DatabaseSessions:
    """Take a sessions table, with its index as plain columns."""
    projects = "projects" if "projects" in table.column_names else "project"
    return DatabaseSessions(
        carry_over.session_keys(table),
        read_ids(table),
        _texts(table, "task_protocol"),
        [sorted_projects(text) for text in _texts(table, projects)],
    )


def sorted_projects(text: str) -> str:
    """Return the names of projects in order: Alyx joins them in the order of a set, another one at each run."""
    return ",".join(sorted(text.split(","))) if "," in text else text


def read_datasets(table: pa.Table) -> DatabaseDatasets:
    """Take a datasets table, with its index as plain columns."""
    path_codes, paths = _read_paths(table)
    eid_codes, eids = _read_id_codes(table, "eid")
    return DatabaseDatasets(
        read_ids(table),
        eid_codes,
        eids,
        path_codes,
        paths,
        file_sizes(table),
        _read_digests(table),
        _read_qc(table),
        _numbers(table, "default_revision").astype(np.int8),
    )


def _read_paths(table: pa.Table) -> tuple[npt.NDArray[np.int32], list[bytes]]:
    """Return for each row an index into the rel_paths of a table, -1 where there is none, and these, each once."""
    codes, texts = _encode(table, "rel_path")
    new: dict[bytes, int] = {}
    of_old = [new.setdefault(without_no_revision(text).encode(), len(new)) for text in texts.to_pylist()]
    return np.array([*of_old, -1], np.int32)[codes], [*new]


def session_paths(table: pa.Table) -> dict[bytes, str]:
    """Return the folder in which the datasets of each session lie, as the table says, unless sessions share a folder.

    Returns
    -------
    dict of bytes to str
        Eid -> ``(lab/)subject/date/number`` with three digits. Empty if there is no column ``session_path``, which
        Alyx filled from the files' own paths: they may contradict what the database says of the session.
    """
    found = [(eid, path) for eid, path in told_folders(table) if len(eid) == _ID_SIZE and eid != bytes(_ID_SIZE)]
    n_sessions, n_paths = Counter(path for _, path in found), Counter(eid for eid, _ in found)
    return {eid: path for eid, path in found if n_sessions[path] == n_paths[eid] == 1}


def told_folders(table: pa.Table) -> list[tuple[bytes, str]]:
    """Return pairs of a session, as in `id_codes`, and a folder in which its datasets lie, as the table says."""
    if "session_path" not in table.column_names:
        return []
    eid_codes, eids = id_codes(table, "eid")
    path_codes, paths = _encode(table, "session_path")
    pairs = np.unique(np.stack([eid_codes, path_codes], axis=1), axis=0)
    texts = paths.to_pylist()
    return [
        (eids[eid], key.eid_path)
        for eid, path in pairs.tolist()
        if eid >= 0 and path >= 0 and (key := parse_session(texts[path])) is not None
    ]


def id_codes(table: pa.Table, name: str) -> tuple[npt.NDArray[np.int32], list[bytes]]:
    """Return for each row an index into the ids that a column holds, whatever they are, and these ids.

    Returns
    -------
    numpy.ndarray, list of bytes
        -1 where there is no id; 16 bytes for a UUID, the text for all else.
    """
    if name in table.column_names:
        codes, texts = _encode(table, name)
        return codes, [_parse_any_id(text) for text in texts.to_pylist()]
    codes, ids = _read_id_codes(table, name)
    raw = [each.tobytes() for each in ids]
    is_none = np.array([not any(each) for each in raw] + [True], np.bool_)
    return np.where(is_none[codes], np.int32(-1), codes), raw


def rel_paths(table: pa.Table) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return for each row an index into the rel_paths of a table, -1 where there is none, and these, each once."""
    codes, paths = _encode(table, "rel_path")
    return codes, paths.to_pylist()


def file_sizes(table: pa.Table) -> npt.NDArray[np.int64]:
    """Return the file sizes of a datasets table in bytes; -1 where unknown."""
    return _numbers(table, "file_size")


def read_ids(table: pa.Table, name: str = "id") -> Ids:
    """Return the ids in a column, or in two columns of halves."""
    if name not in table.column_names:
        return _join_halves(table, name)
    texts = _plain(table, name).combine_chunks()
    try:
        return strict(_unpack(arrow.parse_uuids(texts)))
    except ValueError:  # some are missing, or not written as UUIDs are
        return strict(_unpack_each(texts.to_pylist()))


def _read_id_codes(table: pa.Table, name: str) -> tuple[npt.NDArray[np.int32], Ids]:
    """Return for each row an index into the ids that a column holds, -1 where it holds none, and these ids."""
    if name in table.column_names:
        codes, texts = _encode(table, name)
        return codes, strict(_unpack_each(texts.to_pylist()))
    raw = _join_halves(table, name)
    packed = pa.Array.from_buffers(pa.binary(16), len(raw), [None, pa.py_buffer(raw)]).dictionary_encode()
    return arrow.values(packed.indices, np.dtype(np.int32)), _unpack(packed.dictionary)


def _join_halves(table: pa.Table, name: str) -> Ids:
    """Return ids that are held as two integers each."""
    halves = [f"{name}_0", f"{name}_1"]
    if not set(halves) <= set(table.column_names):
        return np.zeros((len(table), 16), np.uint8)
    # Whole numbers only: where some are missing, pandas has made floats of all, and most digits are lost.
    columns = [table.column(half).combine_chunks() for half in halves]
    if not all(pa.types.is_int64(column.type) for column in columns):
        return np.zeros((len(table), 16), np.uint8)
    numbers = [arrow.values(column, np.dtype("<i8")) for column in columns]
    return strict(np.ascontiguousarray(np.stack(numbers, axis=1)).view(np.uint8).reshape(-1, 16))


def _unpack(packed: pa.FixedSizeBinaryArray) -> Ids:
    raw = np.frombuffer(packed.buffers()[1], np.uint8) if len(packed) else np.zeros(0, np.uint8)
    return raw[16 * packed.offset : 16 * (packed.offset + len(packed))].reshape(-1, 16)


def _unpack_each(texts: Sequence[str | None]) -> Ids:
    return np.frombuffer(b"".join(map(_parse_id, texts)), np.uint8).reshape(-1, 16)


def _parse_id(text: str | None) -> bytes:
    try:
        return uuid.UUID(text).bytes if text is not None else bytes(16)
    except ValueError:
        return bytes(16)


def _parse_any_id(text: str) -> bytes:
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        return text.encode()


def _plain(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column as plain strings, whatever it is."""
    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string())


def _encode(table: pa.Table, name: str) -> tuple[npt.NDArray[np.int32], pa.StringArray]:
    """Return for each row an index into the texts that a column holds, -1 where it holds none, and these texts."""
    if name not in table.column_names:
        return np.full(len(table), -1, np.int32), arrow.strings([])
    encoded = _plain(table, name).combine_chunks().dictionary_encode()
    return arrow.values(encoded.indices.cast(pa.int32()), np.dtype(np.int32), -1), encoded.dictionary


def _texts(table: pa.Table, name: str) -> list[str]:
    codes, texts = _encode(table, name)
    found = [*texts.to_pylist(), ""]
    return [found[code] for code in codes.tolist()]


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    """Return numbers that are not negative; -1 for all else."""
    if name not in table.column_names or pa.types.is_null(table.schema.field(name).type):
        return np.full(len(table), -1, np.int64)
    column = table.column(name).combine_chunks()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    # As floats: they hold whole numbers up to 2**53, which no file has as bytes.
    numbers = arrow.values(column.cast(pa.float64(), safe=False), np.dtype(np.float64), -1)
    is_good = (numbers >= 0) & (numbers < _MOST)
    return np.where(is_good, numbers, -1).astype(np.int64)


def _read_digests(table: pa.Table) -> npt.NDArray[np.uint8]:
    """Return the md5 of each row, shape (n_rows, 16), uint8; zeros where there is none."""
    found = np.zeros((len(table), DIGEST_SIZE), np.uint8)
    if "hash" not in table.column_names:
        return found
    texts = _plain(table, "hash").combine_chunks()
    is_md5 = np.isin(arrow.values(pc.binary_length(texts), np.dtype(np.int32), -1), _MD5_LENGTHS)
    chosen = pc.utf8_lower(pc.replace_substring(texts.filter(arrow.booleans(is_md5)), "-", ""))
    try:
        digests = _unpack(arrow.parse_digests(chosen))
    except ValueError:  # some are another thing of that length
        digests = np.frombuffer(b"".join(map(_parse_md5, chosen.to_pylist())), np.uint8).reshape(-1, DIGEST_SIZE)
    found[is_md5] = digests
    return found


def _parse_md5(text: str) -> bytes:
    return bytes.fromhex(text) if _MD5.fullmatch(text) else bytes(DIGEST_SIZE)


def _read_qc(table: pa.Table) -> npt.NDArray[np.int8]:
    if "qc" in table.column_names and pa.types.is_integer(table.schema.field("qc").type):
        lookup = np.zeros(64, np.int8)
        lookup[list(_QC_NUMBERS)] = list(_QC_NUMBERS.values())
        return lookup[np.clip(_numbers(table, "qc"), 0, 63)]
    codes, texts = _encode(table, "qc")
    places = [QC_CATEGORIES.index(text) if text in QC_CATEGORIES else 0 for text in texts.to_pylist()]
    return np.array([*places, 0], np.int8)[codes]
