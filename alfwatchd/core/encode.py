"""A snapshot -> the two Arrow tables, exactly as ONE needs them.

Columns, types and order follow ``one.alf.cache.SESSIONS_COLUMNS`` and ``DATASETS_COLUMNS``; docs/formats.md is the
promise to readers. Ids of a session's datasets are made here rather than stored: they follow from the path.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alfwatchd.core import alf, arrow, ids
from alfwatchd.core.ids import md5
from alfwatchd.core.rows import DIGEST_SIZE, NOTHING_KEPT, Kept, KeptDataset, KeptSession, Session
from alfwatchd.core.tables import Snapshot

QC_CATEGORIES = ("NOT_SET", "PASS", "WARNING", "FAIL", "CRITICAL")
"""``one.alf.cache.QC_TYPE``: One compares them in this order, so all five must be there, ordered."""

_EPOCH = datetime.date(1970, 1, 1).toordinal()
_SIGNATURE_DTYPE = np.dtype([("file_size", "<u8"), ("mtime_ns", "<i8"), ("inode", "<u8"), ("is_link", "?")])
_NO_SESSION = KeptSession(None, "", "")
_NO_DATASET = KeptDataset(None, 0, None, b"")
_UNUSED = arrow.strings([str(uuid.UUID(int=0)), uuid.UUID(int=0).hex])


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
        filled = alf.SessionKey(key.lab or self.kept.lab, key.subject, key.date, key.number).eid_path
        return filled if filled in self.kept.sessions or filled in self.kept.datasets else key.eid_path

    def eids(self, snapshot: Snapshot) -> dict[str, bytes]:
        """Return session path -> eid, 16 bytes, in the order of paths; a kept eid goes to one session only."""
        if not self.has_kept_eids:
            return {path: self.eid(snapshot.sessions[path]) for path in sorted(snapshot.sessions)}
        eids: dict[str, bytes] = {}
        taken: set[bytes] = set()
        for path in sorted(snapshot.sessions):
            session = snapshot.sessions[path]
            kept = self.kept.sessions.get(self.kept_key(session.key), _NO_SESSION).eid
            eid = kept if kept and kept not in taken else self.eid(session)
            eids[path] = eid
            taken.add(eid)
        return eids

    @property
    def has_kept(self) -> bool:
        """Whether anything is carried over from earlier tables that the next run must find there again."""
        return self.kept.shows

    @property
    def has_kept_eids(self) -> bool:
        """Whether an eid may follow from more than the path of its session."""
        return any(session.eid for session in self.kept.sessions.values())

    def eid(self, session: Session) -> bytes:
        """Return the eid, 16 bytes, that the path of a session gives."""
        return ids.session_id(session.key.eid_path, self.namespace)


def sessions_table(snapshot: Snapshot, encoding: Encoding) -> pa.Table:
    """Make the sessions table, sorted by id.

    Returns
    -------
    pyarrow.Table
        Columns lab, subject (string), date (date32), number (uint16), task_protocol, projects (string, never null),
        id (string, the pandas index); `n_sessions` rows.
    """
    return with_pandas_index(session_rows(sorted_by_eid(snapshot, encoding.eids(snapshot)), encoding), ("id",))


def sessions_schema(encoding: Encoding) -> pa.Schema:
    """Return the schema of `sessions_table`, with the metadata of its index."""
    return with_pandas_index(session_rows([], encoding), ("id",)).schema


def session_rows(sessions: Sequence[tuple[bytes, Session]], encoding: Encoding) -> pa.Table:
    """Make the rows of some sessions, given as (eid, session) in the order of eids; columns as in `sessions_table`."""
    keys = [session.key for _, session in sessions]
    known = encoding.kept.sessions
    kept = [known.get(encoding.kept_key(key), _NO_SESSION) for key in keys] if known else [_NO_SESSION] * len(keys)
    days = np.array([key.date.toordinal() - _EPOCH for key in keys], np.int32)
    columns = {
        "lab": arrow.strings([key.lab or encoding.lab for key in keys]),
        "subject": arrow.strings([key.subject for key in keys]),
        "date": arrow.numbers(days, pa.date32()),
        "number": arrow.numbers(np.array([key.number for key in keys], np.uint16), pa.uint16()),
        "task_protocol": arrow.strings([row.task_protocol for row in kept]),
        "projects": arrow.strings([row.projects for row in kept]),
        "id": arrow.uuids(raw_ids([eid for eid, _ in sessions])),
    }
    return pa.table(columns)


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
    table = dataset_rows(sorted_by_eid(snapshot, encoding.eids(snapshot)), encoding)
    return with_pandas_index(table if len(table) else table.drop_columns(["qc"]), ("eid", "id"))


def datasets_schema(snapshot: Snapshot, encoding: Encoding) -> pa.Schema:
    """Return the schema of `datasets_table`, with the metadata of its index."""
    rows = dataset_rows([], encoding)
    has_rows = any(session.n_datasets for session in snapshot.sessions.values())
    return with_pandas_index(rows if has_rows else rows.drop_columns(["qc"]), ("eid", "id")).schema


def dataset_rows(sessions: Sequence[tuple[bytes, Session]], encoding: Encoding) -> pa.Table:
    """Make the rows of some sessions, given as (eid, session) in the order of eids; columns as in `datasets_table`."""
    rel_paths: list[bytes] = []
    signatures: list[bytes] = []
    digests: list[bytes] = []
    tails: list[bytes] = []
    defaults: list[bool] = []
    counts: list[int] = []
    for eid, session in sessions:
        first = len(rel_paths)
        for folder, packed in session.folders:
            rel_paths += _rel_paths(folder, packed.names)
            signatures.append(packed.signatures)
            digests.append(packed.digests or bytes(DIGEST_SIZE * len(packed.names)))
        tails += [md5(eid + path).digest() for path in rel_paths[first:]]
        defaults += default_revisions(session)
        counts.append(len(rel_paths) - first)
    session_ids = raw_ids([eid for eid, _ in sessions])
    own_ids = _join_ids(np.repeat(session_ids, counts, axis=0), raw_ids(tails))
    qc = np.zeros(len(rel_paths), np.int8)
    _use_kept(sessions, counts, rel_paths, own_ids, qc, encoding)
    order = np.lexsort((*own_ids.view(">u8").T[::-1], np.repeat(np.arange(len(sessions)), counts)))
    file_sizes = np.frombuffer(b"".join(signatures), _SIGNATURE_DTYPE)["file_size"]
    columns = {
        "rel_path": arrow.strings([rel_paths[row] for row in order.tolist()]),
        "file_size": arrow.numbers(file_sizes[order], pa.uint64()),
        "hash": arrow.digests(raw_ids(digests)[order]) if encoding.with_hashes else pa.nulls(len(order)),
        "exists": arrow.booleans(np.ones(len(order), np.bool_)),
        "qc": arrow.categories(qc[order], QC_CATEGORIES),
        "default_revision": arrow.booleans(np.array(defaults, np.bool_)[order]),
        "eid": _eid_column(session_ids, np.array(counts, np.int64)),
        "id": _id_column(own_ids[order]),
    }
    return pa.table(columns)


# The ids are dictionaries, with which One opens a table in 60 % of the time: it makes a UUID object of each id that a
# column holds, and sorts them; pandas makes one per entry of a dictionary instead, and takes them to be in order.


def _eid_column(session_ids: npt.NDArray[np.uint8], counts: npt.NDArray[np.int64]) -> pa.DictionaryArray:
    """Return the eid of each row.

    A categorical eid breaks `One.search` under pandas 2, so two entries that no row uses are two spellings of one UUID:
    where a mapping is not one-to-one, the result of ``pandas.Categorical.map`` is no categorical but plain objects, as
    documented.

    Parameters
    ----------
    session_ids : numpy.ndarray
        Shape (n_sessions, 16), in the order of rows.
    counts : numpy.ndarray
        Shape (n_sessions,): number of rows of each.
    """
    has_rows = counts > 0
    entries = pa.concat_arrays([_UNUSED, arrow.uuids(session_ids[has_rows])])
    places = np.arange(len(_UNUSED), len(entries), dtype=np.int32)
    return pa.DictionaryArray.from_arrays(arrow.numbers(np.repeat(places, counts[has_rows]), pa.int32()), entries)


def _id_column(own_ids: npt.NDArray[np.uint8]) -> pa.DictionaryArray:
    """Return ids, shape (n_datasets, 16), of which none stands twice."""
    places = np.arange(len(own_ids), dtype=np.int32)
    return pa.DictionaryArray.from_arrays(arrow.numbers(places, pa.int32()), arrow.uuids(own_ids))


# Sessions have the same folders with the same files again and again: this takes a sixth of the time off a full write.
@lru_cache(maxsize=1 << 10)
def _rel_paths(folder: str, names: tuple[str, ...]) -> tuple[bytes, ...]:
    prefix = f"{folder}/" if folder else ""
    return tuple((prefix + name).encode() for name in names)


def _join_ids(eids: npt.NDArray[np.uint8], digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return what `ids.dataset_id` returns, for many datasets at once.

    Parameters
    ----------
    eids, digests : numpy.ndarray
        Shape (n_datasets, 16): eid of each dataset, and ``md5(eid + rel_path)``.

    Returns
    -------
    numpy.ndarray
        Shape (n_datasets, 16), writable.
    """
    joined = np.hstack([eids[:, :8], digests[:, :8]])
    joined[:, 8] = (joined[:, 8] & 0x3F) | 0x80
    return joined


def _use_kept(
    sessions: Sequence[tuple[bytes, Session]],
    counts: Sequence[int],
    rel_paths: Sequence[bytes],
    own_ids: npt.NDArray[np.uint8],
    qc: npt.NDArray[np.int8],
    encoding: Encoding,
) -> None:
    """Put ids and qc of earlier tables into the rows that they belong to."""
    first = 0
    for (_, session), count in zip(sessions if encoding.kept.datasets else (), counts, strict=False):
        kept = encoding.kept.datasets.get(encoding.kept_key(session.key), {})
        for row in range(first, first + count) if kept else ():
            known = kept.get(rel_paths[row].decode(), _NO_DATASET)
            qc[row] = known.qc
            if known.id is not None:
                own_ids[row] = np.frombuffer(known.id, np.uint8)
        first += count


def default_revisions(session: Session) -> list[bool]:
    """Tell for each dataset of a session, in the order of `Session.datasets`, whether it is the default revision.

    Exactly one revision of a dataset is: the last in lexicographic order, as in ``one.alf.spec``; a dataset outside
    any revision folder is the oldest.
    """
    split = [alf.split_revision(folder.folder) for folder in session.folders]
    revised = {collection for collection, revision in split if revision}
    if not revised:
        return [True] * session.n_datasets
    rows = zip(split, session.folders, strict=True)
    parts = tuple((*each, folder.packed.names) for each, folder in rows if each[0] in revised)
    newest = iter(_are_newest(parts))
    defaults: list[bool] = []
    for (collection, _), folder in zip(split, session.folders, strict=True):
        defaults += next(newest) if collection in revised else [True] * len(folder.packed.names)
    return defaults


# Sessions have the same revisions of the same files again and again.
@lru_cache(maxsize=1 << 8)
def _are_newest(parts: tuple[tuple[str, str, tuple[str, ...]], ...]) -> list[list[bool]]:
    """Tell for each name in each (collection, revision, names) whether no later revision has it."""
    newest: dict[tuple[str, str], str] = {}
    for collection, revision, names in parts:
        for name in names:
            newest[collection, name] = max(revision, newest.get((collection, name), ""))
    return [[newest[collection, name] == revision for name in names] for collection, revision, names in parts]


def sorted_by_eid(snapshot: Snapshot, eids: Mapping[str, bytes]) -> list[tuple[bytes, Session]]:
    """Return (eid, session) of all sessions, in the order of eids."""
    rows = sorted((eid, path) for path, eid in eids.items())
    return [(eid, snapshot.sessions[path]) for eid, path in rows]


def raw_ids(parts: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    """Return ids or digests of 16 bytes each as an array of shape (len(parts), 16)."""
    return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, 16)


def with_pandas_index(table: pa.Table, index: tuple[str, ...]) -> pa.Table:
    """Add the metadata by which pandas knows types and index; no index columns stand for numbered rows."""
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
        return str(kind.index_type)
    return {"bool": "bool", "uint16": "uint16", "uint64": "UInt64"}.get(str(kind), "object")


def _category_metadata(kind: pa.DataType) -> dict[str, object] | None:
    if not pa.types.is_dictionary(kind):
        return None
    return {"num_categories": len(QC_CATEGORIES) if kind.ordered else None, "ordered": kind.ordered}
