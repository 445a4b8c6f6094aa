"""A snapshot -> the two Arrow tables, exactly as ONE needs them.

Columns, types and order follow ``one.alf.cache.SESSIONS_COLUMNS`` and ``DATASETS_COLUMNS``; docs/formats.md is the
promise to readers. Ids of a session's datasets are made here rather than stored: they follow from the path.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alfwatchd.core import alf, ids
from alfwatchd.core.rows import NOTHING_KEPT, SIGNATURE_SIZE, Kept, KeptDataset, KeptSession, Session
from alfwatchd.core.tables import Snapshot

QC_CATEGORIES = ("NOT_SET", "PASS", "WARNING", "FAIL", "CRITICAL")
"""``one.alf.cache.QC_TYPE``: One compares them in this order, so all five must be there, ordered."""

_QC_TYPE = pa.dictionary(pa.int8(), pa.string(), ordered=True)
_SIGNATURE_DTYPE = np.dtype([("file_size", "<u8"), ("mtime_ns", "<i8"), ("inode", "<u8"), ("is_link", "?")])
_HYPHENS = np.array([8, 13, 18, 23])
_HEX_PLACES = np.setdiff1d(np.arange(36), _HYPHENS)
_NO_SESSION = KeptSession(None, "", "")
_NO_DATASET = KeptDataset(None, 0, None, b"")


@dataclass(frozen=True, slots=True)
class Encoding:
    """How rows become columns.

    Parameters
    ----------
    namespace : uuid.UUID
        Namespace of the eids.
    lab : str
        Lab of sessions in no lab folder; empty for none.
    with_hashes : bool
        Whether the hash column holds md5 (null where not known yet); if not, it is of null type.
    kept : Kept
        Columns carried over from earlier tables.
    """

    namespace: uuid.UUID = ids.NAMESPACE
    lab: str = ""
    with_hashes: bool = False
    kept: Kept = field(default=NOTHING_KEPT, compare=False)

    def kept_key(self, key: alf.SessionKey) -> str:
        """Return the key under which `kept` knows a session: tables hold the filled-in lab, paths do not."""
        filled = alf.SessionKey(key.lab or self.lab, key.subject, key.date, key.number).eid_path
        return filled if filled in self.kept.sessions or filled in self.kept.datasets else key.eid_path

    def eids(self, snapshot: Snapshot) -> dict[str, bytes]:
        """Return session path -> eid, 16 bytes, in the order of paths; a kept eid goes to one session only."""
        eids: dict[str, bytes] = {}
        taken: set[bytes] = set()
        for path in sorted(snapshot.sessions):
            key = snapshot.sessions[path].key
            kept = self.kept.sessions.get(self.kept_key(key), _NO_SESSION).eid
            eid = kept if kept and kept not in taken else ids.session_id(key.eid_path, self.namespace)
            eids[path] = eid
            taken.add(eid)
        return eids


def sessions_table(snapshot: Snapshot, encoding: Encoding) -> pa.Table:
    """Make the sessions table, sorted by id.

    Returns
    -------
    pyarrow.Table
        Columns lab, subject (string), date (date32), number (uint16), task_protocol, projects (string, never null),
        id (string, the pandas index); `n_sessions` rows.
    """
    rows = sorted((eid, path) for path, eid in encoding.eids(snapshot).items())
    keys = [snapshot.sessions[path].key for _, path in rows]
    kept = [encoding.kept.sessions.get(encoding.kept_key(key), _NO_SESSION) for key in keys]
    columns = {
        "lab": pa.array([key.lab or encoding.lab for key in keys], pa.string()),
        "subject": pa.array([key.subject for key in keys], pa.string()),
        "date": pa.array([key.date for key in keys], pa.date32()),
        "number": pa.array([key.number for key in keys], pa.uint16()),
        "task_protocol": pa.array([row.task_protocol for row in kept], pa.string()),
        "projects": pa.array([row.projects for row in kept], pa.string()),
        "id": format_ids(b"".join(eid for eid, _ in rows)),
    }
    return _with_index(pa.table(columns), ("id",))


def datasets_table(snapshot: Snapshot, encoding: Encoding) -> pa.Table:
    """Make the datasets table, sorted by (eid, id).

    Returns
    -------
    pyarrow.Table
        Columns rel_path (string), file_size (uint64, bytes), hash (string, lower-case md5, null where not known; null
        type where hashing is off), exists (bool), qc (ordered dictionary), default_revision (bool, true for exactly
        one revision of a dataset), eid, id (string, the pandas index); `n_datasets` rows. An empty table has no qc
        column: One adds it, and takes no other empty one.
    """
    block = _Block()
    for path, eid in encoding.eids(snapshot).items():
        block.add(snapshot.sessions[path], eid, encoding)
    order = block.order()
    values = np.frombuffer(b"".join([value[:SIGNATURE_SIZE] for value in block.values]), _SIGNATURE_DTYPE)
    n_rows = len(order)
    columns = {
        "rel_path": pa.array(block.rel_paths, pa.string()).take(order),
        "file_size": pa.array(values["file_size"][order], pa.uint64()),
        "hash": _hashes(block.values, order) if encoding.with_hashes else pa.nulls(n_rows),
        "exists": pa.array(np.ones(n_rows, bool)),
        "qc": pa.DictionaryArray.from_arrays(
            pa.array(np.array(block.qc, np.int8)[order]), pa.array(QC_CATEGORIES), ordered=True
        ),
        "default_revision": pa.array(np.array(block.default_revision, bool)[order]),
        "eid": format_ids(b"".join(block.eids)).take(order),
        "id": format_ids(b"".join(block.ids)).take(order),
    }
    if not n_rows:
        del columns["qc"]
    return _with_index(pa.table(columns), ("eid", "id"))


class _Block:
    """Dataset rows of many sessions, column by column, before sorting."""

    def __init__(self) -> None:
        self.rel_paths: list[str] = []
        self.values: list[bytes] = []
        self.eids: list[bytes] = []
        self.ids: list[bytes] = []
        self.qc: list[int] = []
        self.default_revision: list[bool] = []

    def add(self, session: Session, eid: bytes, encoding: Encoding) -> None:
        """Add all datasets of one session."""
        first = len(self.rel_paths)
        for rel_path, value in session.datasets():
            self.rel_paths.append(rel_path)
            self.values.append(value)
        new = self.rel_paths[first:]
        self.eids += [eid] * len(new)
        self.default_revision += default_revisions(session)
        kept = encoding.kept.datasets.get(encoding.kept_key(session.key))
        if kept is None:
            self.ids += [ids.dataset_id(eid, rel_path) for rel_path in new]
            self.qc += [0] * len(new)
        else:
            rows = [kept.get(rel_path, _NO_DATASET) for rel_path in new]
            self.ids += [row.id or ids.dataset_id(eid, path) for path, row in zip(new, rows, strict=True)]
            self.qc += [row.qc for row in rows]

    def order(self) -> npt.NDArray[np.intp]:
        """Return the row numbers in the order of (eid, id)."""
        eids = np.frombuffer(b"".join(self.eids), ">u8").reshape(-1, 2)
        own = np.frombuffer(b"".join(self.ids), ">u8").reshape(-1, 2)
        return np.lexsort((own[:, 1], own[:, 0], eids[:, 1], eids[:, 0]))


def default_revisions(session: Session) -> list[bool]:
    """Tell for each dataset of a session, in the order of `Session.datasets`, whether it is the default revision.

    Exactly one revision of a dataset is: the last in lexicographic order, as in ``one.alf.spec``; a dataset outside
    any revision folder is the oldest.
    """
    split = [alf.split_revision(folder.folder) for folder in session.folders]
    if not any(revision for _, revision in split):
        return [True] * session.n_datasets
    newest: dict[tuple[str, str], str] = {}
    for (collection, revision), folder in zip(split, session.folders, strict=True):
        for name in folder.files:
            newest[collection, name] = max(revision, newest.get((collection, name), ""))
    return [
        newest[collection, name] == revision
        for (collection, revision), folder in zip(split, session.folders, strict=True)
        for name in folder.files
    ]


def format_ids(raw: bytes) -> pa.StringArray:
    """Format joined 16-byte ids as hyphenated lower-case UUID strings; all at once, with numpy."""
    n_ids = len(raw) // 16
    text = np.full((n_ids, 36), ord("-"), np.uint8)
    text[:, _HEX_PLACES] = np.frombuffer(raw.hex().encode(), np.uint8).reshape(n_ids, 32)
    offsets = np.arange(0, 36 * (n_ids + 1), 36, dtype=np.int64)
    large = pa.LargeStringArray.from_buffers(n_ids, pa.py_buffer(offsets), pa.py_buffer(text))
    return large.cast(pa.string())


def hex_digest(value: bytes) -> str | None:
    """Return the md5 in a row value as lower-case hex, or None where it is not known."""
    return value[SIGNATURE_SIZE:].hex() or None


def _hashes(values: Sequence[bytes], order: npt.NDArray[np.intp]) -> pa.StringArray:
    return pa.array([hex_digest(values[row]) for row in order], pa.string())


def _with_index(table: pa.Table, index: tuple[str, ...]) -> pa.Table:
    """Add the metadata by which pandas takes the last columns as the index (a RangeIndex would break One)."""
    types = {"bool": "bool", "uint16": "uint16", "uint64": "UInt64", "date32[day]": "date", "null": "empty"}
    columns = [
        {
            "name": name,
            "field_name": name,
            "pandas_type": types.get(str(kind), "categorical" if pa.types.is_dictionary(kind) else "unicode").lower(),
            "numpy_type": _numpy_type(kind),
            "metadata": _category_metadata(kind),
        }
        for name, kind in zip(table.schema.names, table.schema.types, strict=True)
    ]
    metadata = {
        "index_columns": list(index),
        "column_indexes": [
            {
                "name": None,
                "field_name": None,
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": None,
            }
        ],
        "columns": columns,
        "creator": {"library": "alfwatchd"},
        "pandas_version": "2.2.0",
    }
    return table.replace_schema_metadata({b"pandas": json.dumps(metadata).encode()})


def _numpy_type(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return "int8"
    return {"bool": "bool", "uint16": "uint16", "uint64": "UInt64"}.get(str(kind), "object")


def _category_metadata(kind: pa.DataType) -> dict[str, object] | None:
    if not pa.types.is_dictionary(kind):
        return None
    return {"num_categories": len(QC_CATEGORIES), "ordered": True}
