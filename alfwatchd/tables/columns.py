"""A snapshot -> the two Arrow tables, exactly as ONE needs them.

Columns, types and order follow ``one.alf.cache.SESSIONS_COLUMNS`` and ``DATASETS_COLUMNS``; docs/reference/tables.md is
the promise to readers. Ids of a session's datasets are made here rather than stored: they follow from the path.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import compress

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alfwatchd.alf.ids import md5
from alfwatchd.tables import arrow
from alfwatchd.tables.adopted_columns import DatasetColumns, take_over
from alfwatchd.tables.adoption import AdoptedSession
from alfwatchd.tables.dataset_ids import Members, use_known
from alfwatchd.tables.default_revision import default_revisions
from alfwatchd.tables.earlier import QC_CATEGORIES
from alfwatchd.tables.known_columns import FoundRows
from alfwatchd.tables.matching import RowNumbers
from alfwatchd.tables.raw_ids import join_ids, raw_ids
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import DIGEST_SIZE
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot

_EPOCH = datetime.date(1970, 1, 1).toordinal()
_SIGNATURE_DTYPE = np.dtype(
    [("file_size", "<u8"), ("mtime_ns", "<i8"), ("inode", "<u8"), ("ctime_ns", "<i8"), ("is_link", "?")]
)
_UNUSED = arrow.strings([str(uuid.UUID(int=0)), uuid.UUID(int=0).hex])


def sessions_table(snapshot: Snapshot, rules: TableRules) -> pa.Table:
    """Make the sessions table, sorted by id.

    Returns
    -------
    pyarrow.Table
        Columns lab, subject (string), date (date32), number (uint16), task_protocol, projects (string, never null),
        id (string, the pandas index); `n_sessions` rows.
    """
    return with_pandas_index(session_rows(sorted_by_eid(snapshot, rules.eids(snapshot)), rules), ("id",))


def sessions_schema(rules: TableRules) -> pa.Schema:
    """Return the schema of `sessions_table`, with the metadata of its index."""
    return with_pandas_index(session_rows([], rules), ("id",)).schema


def session_rows(sessions: Sequence[tuple[bytes, Session]], rules: TableRules) -> pa.Table:
    """Make the rows of some sessions, given as (eid, session) in the order of eids; columns as in `sessions_table`."""
    keys = [session.key for _, session in sessions]
    known = [rules.known_session(eid, session) for eid, session in sessions]
    days = np.array([key.date.toordinal() - _EPOCH for key in keys], np.int32)
    columns = {
        "lab": arrow.strings([key.lab or rules.lab for key in keys]),
        "subject": arrow.strings([key.subject for key in keys]),
        "date": arrow.numbers(days, pa.date32()),
        "number": arrow.numbers(np.array([key.number for key in keys], np.uint16), pa.uint16()),
        "task_protocol": arrow.strings([row.task_protocol for row in known]),
        "projects": arrow.strings([row.projects for row in known]),
        "id": arrow.uuids(raw_ids([eid for eid, _ in sessions])),
    }
    return pa.table(columns)


def datasets_table(snapshot: Snapshot, rules: TableRules) -> pa.Table:
    """Make the datasets table, sorted by (eid, id).

    Returns
    -------
    pyarrow.Table
        Columns rel_path (string), file_size (uint64, bytes), hash (string, lower-case md5, null where not known; null
        type where hashing is off), exists (bool), qc (ordered dictionary), default_revision (bool, true for exactly
        one revision of a dataset), eid, id (string, the pandas index); `n_datasets` rows. An empty table has no qc
        column: One adds it, and takes no other empty one.
    """
    table = dataset_rows(sorted_by_eid(snapshot, rules.eids(snapshot)), rules)
    return with_pandas_index(table if len(table) else table.drop_columns(["qc"]), ("eid", "id"))


def datasets_schema(snapshot: Snapshot, rules: TableRules) -> pa.Schema:
    """Return the schema of `datasets_table`, with the metadata of its index."""
    rows = dataset_rows([], rules)
    rows = rows if rules.has_datasets(snapshot) else rows.drop_columns(["qc"])
    return with_pandas_index(rows, ("eid", "id")).schema


def dataset_rows(sessions: Sequence[tuple[bytes, Session]], rules: TableRules) -> pa.Table:
    """Make the rows of some sessions, given as (eid, session) in the order of eids; columns as in `datasets_table`."""
    adopted = [rules.adopted_session(eid, session) for eid, session in sessions]
    rows, session_ids = dataset_columns(sessions, adopted, rules)[0], raw_ids([eid for eid, _ in sessions])
    order = np.lexsort((*rows.ids.view(">u8").T[::-1], rows.sessions))
    columns = {
        "rel_path": arrow.strings([rows.paths[row] for row in order.tolist()]),
        "file_size": arrow.numbers(rows.file_sizes[order], pa.uint64()),
        "hash": arrow.digests(rows.digests[order]) if rules.shows_hashes else pa.nulls(len(order)),
        "exists": arrow.booleans(rows.exists[order]),
        "qc": arrow.categories(rows.qc[order], QC_CATEGORIES),
        "default_revision": arrow.booleans(rows.defaults[order]),
        "eid": _eid_column(session_ids, np.bincount(rows.sessions, minlength=len(sessions))),
        "id": _id_column(rows.ids[order]),
    }
    return pa.table(columns)


def dataset_columns(
    sessions: Sequence[tuple[bytes, Session]], adopted: Sequence[AdoptedSession | None], rules: TableRules
) -> tuple[DatasetColumns, RowNumbers]:
    """Return the datasets of some sessions, in the order of sessions, and which rows of a database stand for them.

    Parameters
    ----------
    sessions : sequence of (bytes, Session)
        Eid and session of each.
    adopted : sequence of AdoptedSession or None
        What the database knows of each, by `TableRules.adopted_session`.
    rules : TableRules
    """
    only_sessions = [session for _, session in sessions]
    paths, counts = dataset_paths(only_sessions)
    found = rules.known.find(only_sessions, adopted, counts, paths)
    columns = _gather(sessions, adopted, paths, counts, found, rules)
    if not any(adopted):
        return columns, found.adopted
    return take_over(columns, found.adopted, adopted, rules.known.adoption, with_digests=not rules.with_hashes)


def dataset_paths(sessions: Sequence[Session]) -> tuple[list[bytes], list[int]]:
    """Return the rel_paths of the datasets of sessions, in the order of `dataset_columns`, and how many each has."""
    paths: list[bytes] = []
    for session in sessions:
        for folder, packed in session.folders:
            paths += _rel_paths(folder, packed.names)
    return paths, [session.n_datasets for session in sessions]


def _gather(
    sessions: Sequence[tuple[bytes, Session]],
    adopted: Sequence[AdoptedSession | None],
    paths: list[bytes],
    counts: Sequence[int],
    found: FoundRows,
    rules: TableRules,
) -> DatasetColumns:
    """Return what the disk and earlier tables tell of the datasets of some sessions.

    Ids of datasets follow from the eid that the path gives: those that are not adopted stay when their session is.
    """
    is_made = (found.adopted < 0) & ~found.has_id  # an id that is known is not computed: that is half of the time
    all_are_made = bool(is_made.all())
    signatures: list[bytes] = []
    digests: list[bytes] = []
    tails: list[bytes] = []
    defaults: list[bool] = []
    members: list[Members] = []
    first = 0
    for (eid, session), known, count in zip(sessions, adopted, counts, strict=True):
        for _, packed in session.folders:
            signatures.append(packed.signatures)
            digests.append(packed.digests or bytes(DIGEST_SIZE * len(packed.names)))
        base = eid if known is None else rules.given_eid(session)
        own = slice(first, first + count)
        made = paths[own] if all_are_made else compress(paths[own], is_made[own].tolist())
        tails += [md5(base + path).digest() for path in made]
        defaults += default_revisions(session)
        members.append(Members(session, known, base, range(first, first + count)))
        first += count
    own_ids = np.zeros((len(paths), 16), np.uint8)
    bases = np.repeat(raw_ids([each.base for each in members]), counts, axis=0)
    own_ids[is_made] = join_ids(bases[is_made], raw_ids(tails))
    qc = np.zeros(len(paths), np.int8)
    use_known(members, paths, found, own_ids, qc, rules.known)
    return DatasetColumns(
        paths=paths,
        sessions=np.repeat(np.arange(len(sessions)), counts),
        ids=own_ids,
        file_sizes=np.frombuffer(b"".join(signatures), _SIGNATURE_DTYPE)["file_size"],
        digests=raw_ids(digests) if rules.shows_hashes else np.zeros((len(paths), DIGEST_SIZE), np.uint8),
        qc=qc,
        exists=np.ones(len(paths), np.bool_),
        defaults=np.array(defaults, np.bool_),
    )


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
    """Return ids, shape (n_datasets, 16); of a database, some may stand twice, which no entry may."""
    as_texts = np.ascontiguousarray(own_ids).view("V16").ravel()
    places = np.arange(len(own_ids), dtype=np.int32)
    if len({*as_texts.tolist()}) < len(own_ids):
        first: dict[bytes, int] = {}
        places = np.array([first.setdefault(each, len(first)) for each in as_texts.tolist()], np.int32)
        own_ids = raw_ids([*first])
    return pa.DictionaryArray.from_arrays(arrow.numbers(places, pa.int32()), arrow.uuids(own_ids))


# Sessions have the same folders with the same files again and again: this takes a sixth of the time off a full write.
@lru_cache(maxsize=1 << 10)
def _rel_paths(folder: str, names: tuple[str, ...]) -> tuple[bytes, ...]:
    prefix = f"{folder}/" if folder else ""
    return tuple((prefix + name).encode() for name in names)


def sorted_by_eid(snapshot: Snapshot, eids: Mapping[str, bytes]) -> list[tuple[bytes, Session]]:
    """Return (eid, session) of all sessions, in the order of eids."""
    rows = sorted((eid, path) for path, eid in eids.items())
    return [(eid, snapshot.sessions[path]) for eid, path in rows]


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
