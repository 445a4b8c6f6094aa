"""A snapshot -> tables whose ids are paths, as ``one.alf.cache.make_parquet_db(hash_ids=False)`` writes them."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa

from alfwatchd.tables import arrow
from alfwatchd.tables.columns import with_pandas_index
from alfwatchd.tables.earlier import NO_DATASET, QC_CATEGORIES
from alfwatchd.tables.raw_ids import raw_ids
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import NO_DIGEST, digest_of, unpack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot

_EPOCH = datetime.date(1970, 1, 1).toordinal()


def sessions_by_path(snapshot: Snapshot, rules: TableRules) -> pa.Table:
    """Make the sessions table, in the order of paths.

    Returns
    -------
    pyarrow.Table
        Columns id (``(lab/)subject/date/number``, spelled as on disk), lab, subject, date, number, task_protocol,
        projects, of the types of `columns.sessions_table`; `n_sessions` rows, numbered.
    """
    sessions = _by_path(snapshot)
    keys = [session.key for session in sessions]
    earlier = [rules.known.earlier_session(key) for key in keys]
    days = np.array([key.date.toordinal() - _EPOCH for key in keys], np.int32)
    columns = {
        "id": arrow.strings(list(map(_eid, sessions))),
        "lab": arrow.strings([key.lab or rules.lab for key in keys]),
        "subject": arrow.strings([key.subject for key in keys]),
        "date": arrow.numbers(days, pa.date32()),
        "number": arrow.numbers(np.array([key.number for key in keys], np.uint16), pa.uint16()),
        "task_protocol": arrow.strings([row.task_protocol for row in earlier]),
        "projects": arrow.strings([row.projects for row in earlier]),
    }
    return with_pandas_index(pa.table(columns), ())


def datasets_by_path(snapshot: Snapshot, rules: TableRules) -> pa.Table:
    """Make the datasets table, in the order of paths.

    Returns
    -------
    pyarrow.Table
        Columns eid, id and rel_path (equal), file_size, hash, exists, qc, of the types of `columns.datasets_table`;
        `n_datasets` rows, numbered. An empty table has no qc column.
    """
    eids: list[str] = []
    rel_paths: list[str] = []
    values: list[bytes] = []
    qc: list[int] = []
    for session in _by_path(snapshot):
        rows = sorted(session.datasets(), key=lambda row: row[0].split("/"))
        earlier = rules.known.earlier_datasets(session.key)
        eids += [_eid(session)] * len(rows)
        rel_paths += [rel_path for rel_path, _ in rows]
        values += [value for _, value in rows]
        qc += [earlier.get(rel_path, NO_DATASET).qc for rel_path, _ in rows]
    sizes = np.array([unpack_signature(value).file_size for value in values], np.uint64)
    digests = [digest_of(value) or NO_DIGEST for value in values]
    columns = {
        "eid": arrow.strings(eids),
        "id": arrow.strings(rel_paths),
        "rel_path": arrow.strings(rel_paths),
        "file_size": arrow.numbers(sizes, pa.uint64()),
        "hash": arrow.digests(raw_ids(digests)) if rules.with_hashes else pa.nulls(len(values)),
        "exists": arrow.booleans(np.ones(len(values), np.bool_)),
        "qc": arrow.categories(np.array(qc, np.int8), QC_CATEGORIES),
    }
    if not values:
        del columns["qc"]
    return with_pandas_index(pa.table(columns), ())


def _by_path(snapshot: Snapshot) -> list[Session]:
    """Return the sessions in pathlib's order, by component: that of upstream."""
    return sorted(snapshot.sessions.values(), key=lambda session: session.path.split("/"))


def _eid(session: Session) -> str:
    lab, subjects, rest = session.path.partition("/Subjects/")
    return f"{lab}/{rest}" if subjects else session.path
