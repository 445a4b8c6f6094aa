"""What earlier tables know that the disk does not: ids that differ, qc, protocols, projects, digests."""

from __future__ import annotations

import datetime
import math
import re
import uuid
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from alfwatchd.alf import ids
from alfwatchd.alf.grammar import SessionKey
from alfwatchd.tables import arrow
from alfwatchd.tables.earlier import NO_DATASET, NO_SESSION, QC_CATEGORIES, Earlier, EarlierDataset, EarlierSession

_PIECE = 1 << 13
_MD5 = re.compile(r"[0-9a-f]{32}")


def carry_over(
    sessions: pa.Table, datasets: pa.Table, namespace: uuid.UUID, lab: str, lab_now: str | None = None
) -> Earlier:
    """Gather what must survive from earlier tables, made by ONE, by Alyx or by us.

    Parameters
    ----------
    sessions, datasets : pyarrow.Table
        With their index as plain columns. Columns that are missing count as empty.
    namespace : uuid.UUID
        Namespace of the ids that paths give.
    lab : str
        What these tables hold as the lab of sessions in no lab folder.
    lab_now : str or None
        What new tables will hold there, with which their ids would be made; None for the same.

    Returns
    -------
    Kept
        Only what differs from what a fresh index gives. An id that is not unique in its table, or that One would not
        accept, is not kept.
    """
    keys = session_keys(sessions)
    eids = _unique_ids(_column(sessions, "id"))
    own_eids: dict[object, bytes] = {}
    kept_sessions: dict[str, EarlierSession] = {}
    plain: set[str] = set()
    projects = _column(sessions, "projects") if "projects" in sessions.column_names else _column(sessions, "project")
    rows = zip(keys, eids, _column(sessions, "id"), _column(sessions, "task_protocol"), projects, strict=True)
    has_other_lab = lab_now is not None and lab_now != lab
    for key, eid, text, protocol, project in rows:
        if key is None:
            continue
        path, given = key.eid_path, ids.session_id(key.eid_path, namespace)
        if isinstance(text, str):
            own_eids[text] = eid or given
        # Nobody can tell whether a session of this lab lies in a folder of it.
        is_news = eid != given or (has_other_lab and key.lab == lab)
        if eid == given:
            plain.add(path)
        row = EarlierSession(eid if is_news else None, str(protocol or ""), str(project or ""))
        if row != NO_SESSION:
            kept_sessions[path] = row
    for path in plain & kept_sessions.keys() if not has_other_lab else ():
        # Of two folders that are one session to the tables, one has its own eid, and the other one what is next to it.
        kept_sessions[path] = replace(kept_sessions[path], eid=None)
    return Earlier(kept_sessions, _kept_datasets(sessions, datasets, keys, own_eids), lab)


def session_keys(sessions: pa.Table) -> list[SessionKey | None]:
    """Return what identifies each session of a table; None for a row that makes no sense."""
    rows = zip(*(_column(sessions, name) for name in ("lab", "subject", "date", "number")), strict=True)
    return [_session_key(*row) for row in rows]


def listed(sessions: pa.Table, datasets: pa.Table, wanted: Set[str]) -> dict[str, set[str]]:
    """Return `SessionKey.eid_path` -> rel_paths of its datasets, of those of some sessions that tables list."""
    found: dict[str, set[str]] = {}
    eids: dict[str, str] = {}
    for eid, key in zip(_column(sessions, "id"), session_keys(sessions), strict=True):
        if key is not None and key.eid_path in wanted:
            found.setdefault(key.eid_path, set())
            if isinstance(eid, str):
                eids[eid] = key.eid_path
    if eids and {"eid", "rel_path"} <= set(datasets.column_names):
        is_wanted = pc.is_in(datasets.column("eid").cast(pa.string()), value_set=arrow.strings([*eids]))
        rows = datasets.select(["eid", "rel_path"]).filter(is_wanted)
        for eid, rel_path in zip(_column(rows, "eid"), _column(rows, "rel_path"), strict=True):
            if isinstance(rel_path, str):
                found[eids[eid]].add(rel_path)
    return found


def holders(sessions: pa.Table, eids: Set[bytes]) -> dict[bytes, str]:
    """Return which sessions of a table have some eids: eid, 16 bytes -> `SessionKey.eid_path`."""
    if "id" not in sessions.column_names:
        return {}
    texts = arrow.strings([str(uuid.UUID(bytes=eid)) for eid in eids])
    rows = sessions.filter(pc.is_in(sessions.column("id").cast(pa.string()), value_set=texts))
    pairs = zip(_column(rows, "id"), session_keys(rows), strict=True)
    return {uuid.UUID(text).bytes: key.eid_path for text, key in pairs if key is not None}


def dataset_rows(
    sessions: pa.Table, datasets: pa.Table, keys: list[SessionKey | None]
) -> Iterator[tuple[SessionKey, str, int, bytes]]:
    """Yield what is known of each dataset row that makes sense.

    Yields
    ------
    tuple
        Session, rel_path, file size in bytes (0 where unknown), md5 digest of 16 bytes (empty where unknown).
    """
    by_eid = _keys_by_eid(sessions, keys)
    rows = zip(*(_column(datasets, name) for name in ("eid", "rel_path", "file_size", "hash")), strict=True)
    for eid, rel_path, file_size, digest in rows:
        key = by_eid.get(eid) if isinstance(eid, str) else None
        if key is not None and isinstance(rel_path, str):
            yield key, rel_path, _whole_number(file_size) or 0, _parse_md5(digest)


def _kept_datasets(
    sessions: pa.Table, datasets: pa.Table, keys: list[SessionKey | None], eids: dict[object, bytes]
) -> dict[str, dict[str, EarlierDataset]]:
    by_eid = _keys_by_eid(sessions, keys)
    names = ("eid", "rel_path", "qc", "file_size", "hash")
    rows = zip(_unique_ids(_column(datasets, "id")), *(_column(datasets, name) for name in names), strict=True)
    kept: dict[str, dict[str, EarlierDataset]] = {}
    paths = {eid: key.eid_path for eid, key in by_eid.items() if key is not None}
    for own_id, eid, rel_path, qc, file_size, digest in rows:
        key = by_eid.get(eid) if isinstance(eid, str) else None
        if key is None or not isinstance(rel_path, str):
            continue
        given = ids.dataset_id(eids[eid], rel_path)
        known_size = _whole_number(file_size)
        known = known_size is not None and _parse_md5(digest)
        row = EarlierDataset(
            id=None if own_id == given else own_id,
            qc=QC_CATEGORIES.index(qc) if qc in QC_CATEGORIES else 0,
            file_size=known_size if known else None,
            digest=known or b"",
        )
        if row != NO_DATASET:
            kept.setdefault(paths[eid], {})[rel_path] = row
    return kept


def _keys_by_eid(sessions: pa.Table, keys: list[SessionKey | None]) -> dict[str, SessionKey | None]:
    """Return eid as in the table -> session; None where several sessions have it."""
    by_eid: dict[str, SessionKey | None] = {}
    for eid, key in zip(_column(sessions, "id"), keys, strict=True):
        if isinstance(eid, str):
            by_eid[eid] = key if by_eid.get(eid, key) == key else None
    return by_eid


def _unique_ids(column: list[Any]) -> list[bytes | None]:
    texts = [text for text in column if isinstance(text, str)]
    if len(set(texts)) == len(texts):
        return [ids.parse_id(text) for text in column]
    counts = Counter(texts)
    return [ids.parse_id(text) if isinstance(text, str) and counts[text] == 1 else None for text in column]


def _column(table: pa.Table, name: str) -> list[Any]:
    """Return the values of a column, made in pieces: while Arrow makes one, no other thread runs."""
    if name not in table.column_names:
        return [None] * len(table)
    column, found = table.column(name), list[Any]()
    if pa.types.is_dictionary(column.type) and column.type.value_type == pa.string():
        column = column.cast(pa.string())
    for start in range(0, len(column), _PIECE):
        found += column.slice(start, _PIECE).to_pylist()
    return found


def _parse_md5(digest: Any) -> bytes:
    return bytes.fromhex(digest) if isinstance(digest, str) and _MD5.fullmatch(digest) else b""


def _session_key(lab: Any, subject: Any, date: Any, number: Any) -> SessionKey | None:
    if isinstance(date, datetime.datetime):
        date = date.date()
    number = _whole_number(number)
    if not (isinstance(subject, str) and isinstance(date, datetime.date)) or number is None:
        return None
    return SessionKey(str(lab or ""), subject, date, number)


def _whole_number(value: Any) -> int | None:
    """Return a number that is not negative, as pandas may have made a float of it; None for all else."""
    return int(value) if isinstance(value, int | float) and 0 <= value < math.inf else None
