"""What earlier tables know that the disk does not: ids that differ, qc, protocols, projects."""

from __future__ import annotations

import datetime
import math
import re
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alfwatchd.alf import ids
from alfwatchd.alf.grammar import SessionKey
from alfwatchd.tables import arrow, matching
from alfwatchd.tables.earlier import (
    NO_SESSION,
    QC_CATEGORIES,
    Earlier,
    EarlierDatasets,
    EarlierSession,
    last_of_each,
)
from alfwatchd.tables.known_rows import KnownRows
from alfwatchd.tables.matching import CODE_BITS
from alfwatchd.tables.raw_ids import Ids, join_ids, parse_ids, raw_ids

_PIECE = 1 << 13
_NO_EID = bytes(16)
_MD5 = re.compile(r"[0-9a-f]{32}")


def carry_over(
    sessions: pa.Table,
    datasets: pa.Table,
    namespace: uuid.UUID,
    lab: str,
    lab_now: str | None = None,
    *,
    is_adopted: bool = False,
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
        The lab that new tables will hold there, from which new ids are made; None if it is the same.
    is_adopted : bool
        Whether a database gave some of the eids. New ids of datasets follow from the path of such a session, not from
        its eid, so those that follow from its eid are news, too.

    Returns
    -------
    Earlier
        Only what differs from a fresh index. An id is not kept if several rows of its table have it, or if One would
        not accept it.
    """
    keys = session_keys(sessions)
    eids = [each.tobytes() if each.any() else None for each in _unique_ids(sessions)]
    made_from: dict[object, bytes] = {}
    earlier_sessions: dict[str, EarlierSession] = {}
    plain: set[str] = set()
    projects = _column(sessions, "projects") if "projects" in sessions.column_names else _column(sessions, "project")
    rows = zip(keys, eids, _column(sessions, "id"), _column(sessions, "task_protocol"), projects, strict=True)
    has_other_lab = lab_now is not None and lab_now != lab
    n_of_key = Counter(keys)
    for key, eid, text, protocol, project in rows:
        if key is None:
            continue
        path, given = key.eid_path, ids.session_id(key.eid_path, namespace)
        # The table does not say whether a session of this lab lies in a folder of the lab, or got it from the setting.
        is_news = eid != given or (has_other_lab and key.lab == lab)
        if isinstance(text, str):
            made_from[text] = eid or given
            if is_adopted and is_news and n_of_key[key] == 1:  # of several folders, none could keep ids of its own
                made_from[text] = _NO_EID
        if eid == given:
            plain.add(path)
        row = EarlierSession(eid if is_news else None, str(protocol or ""), str(project or ""))
        if row != NO_SESSION:
            earlier_sessions[path] = row
    for path in plain & earlier_sessions.keys() if not has_other_lab else ():
        # Of two folders that are one session to the tables, one has its own eid, and the other one what is next to it.
        earlier_sessions[path] = replace(earlier_sessions[path], eid=None)
    known, n_lost_ids = _known_datasets(sessions, datasets, keys, made_from)
    return Earlier(earlier_sessions, known, lab, n_lost_ids=n_lost_ids)


def session_keys(sessions: pa.Table) -> list[SessionKey | None]:
    """Return what identifies each session of a table; None for a row that makes no sense."""
    rows = zip(*(_column(sessions, name) for name in ("lab", "subject", "date", "number")), strict=True)
    return [_session_key(*row) for row in rows]


def without_no_revision(datasets: pa.Table) -> pa.Table:
    """Return a datasets table without revision folders that say "none"; see `matching.without_no_revision`."""
    codes, texts = arrow.encode_texts(datasets, "rel_path")
    paths = texts.to_pylist()
    plain = [matching.without_no_revision(path) for path in paths]
    if plain == paths:
        return datasets
    places = pa.array(codes.tolist(), pa.int32(), mask=codes < 0)
    return datasets.set_column(datasets.column_names.index("rel_path"), "rel_path", arrow.strings(plain).take(places))


def listed(sessions: pa.Table, datasets: pa.Table, wanted: Set[str]) -> dict[str, set[str]]:
    """Return `SessionKey.eid_path` -> rel_paths of its datasets, for those of some sessions that the tables list."""
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
        Session, rel_path, file size in bytes (0 where unknown), md5 digest of 16 bytes (empty if unknown).
    """
    by_eid = _keys_by_eid(sessions, keys)
    rows = zip(*(_column(datasets, name) for name in ("eid", "rel_path", "file_size", "hash")), strict=True)
    for eid, rel_path, file_size, digest in rows:
        key = by_eid.get(eid) if isinstance(eid, str) else None
        if key is not None and isinstance(rel_path, str):
            yield key, rel_path, _whole_number(file_size) or 0, _parse_md5(digest)


def _known_datasets(
    sessions: pa.Table, datasets: pa.Table, keys: list[SessionKey | None], made_from: Mapping[object, bytes]
) -> tuple[EarlierDatasets, int]:
    """Return what is news about datasets, by the numbers of their sessions; and how many ids are lost.

    Parameters
    ----------
    sessions, datasets : pyarrow.Table
    keys : list of SessionKey or None
        Of the sessions.
    made_from : mapping of object to bytes
        Eid as in the tables -> the one, 16 bytes, that new ids of its datasets are made from; zeros where all ids are
        news.
    """
    eid_codes, eid_texts = arrow.encode_texts(datasets, "eid")
    path_codes, path_texts = arrow.encode_texts(datasets, "rel_path")
    by_eid, numbers, of_eid, bases = _keys_by_eid(sessions, keys), dict[str, int](), list[int](), list[bytes]()
    for text in eid_texts.to_pylist():
        key = by_eid.get(text)
        of_eid.append(numbers.setdefault(key.eid_path, len(numbers)) if key is not None else -1)
        bases.append(made_from[text] if key is not None else _NO_EID)
    session_numbers = np.array([*of_eid, -1], np.int64)[eid_codes]
    is_usable, qc = (session_numbers >= 0) & (path_codes >= 0), _read_qc(datasets)
    own_ids = _unique_ids(datasets)
    n_lost = int((is_usable & ~own_ids.any(axis=1) & (arrow.encode_texts(datasets, "id")[0] >= 0)).sum())
    _clear_given(own_ids, is_usable, eid_codes, raw_ids(bases), path_codes, path_texts)
    rows = np.flatnonzero(is_usable & (own_ids.any(axis=1) | (qc != 0)))
    used, codes = np.unique(path_codes[rows], return_inverse=True)
    row_keys = (session_numbers[rows] << CODE_BITS) | codes
    order = last_of_each(row_keys)
    paths = [path.encode() for path in path_texts.take(arrow.numbers(used, pa.int32())).to_pylist()]
    rows, row_keys = rows[order], row_keys[order]
    known = KnownRows(row_keys, paths, own_ids[rows], qc[rows])
    is_known = {*np.unique(known.numbers).tolist()}
    return EarlierDatasets({key: number for key, number in numbers.items() if number in is_known}, known), n_lost


def _clear_given(
    own_ids: Ids,
    is_usable: npt.NDArray[np.bool_],
    eid_codes: npt.NDArray[np.int32],
    bases: Ids,
    path_codes: npt.NDArray[np.int32],
    path_texts: pa.StringArray,
) -> None:
    """Replace ids that follow from their path by zeros. Only an id that begins as its eid does can be one of these."""
    rows = np.flatnonzero(is_usable)
    rows = rows[(own_ids[rows, :8] == bases[eid_codes[rows], :8]).all(axis=1)]
    if not len(rows):
        return
    paths, raw = [path.encode() for path in path_texts.to_pylist()], [base.tobytes() for base in bases]
    pairs = zip(eid_codes[rows].tolist(), path_codes[rows].tolist(), strict=True)
    given = join_ids(bases[eid_codes[rows]], raw_ids([ids.md5(raw[eid] + paths[path]).digest() for eid, path in pairs]))
    own_ids[rows[(own_ids[rows] == given).all(axis=1)]] = 0


def _read_qc(datasets: pa.Table) -> npt.NDArray[np.int8]:
    codes, texts = arrow.encode_texts(datasets, "qc")
    places = [QC_CATEGORIES.index(text) if text in QC_CATEGORIES else 0 for text in texts.to_pylist()]
    return np.array([*places, 0], np.int8)[codes]


def _keys_by_eid(sessions: pa.Table, keys: list[SessionKey | None]) -> dict[str, SessionKey | None]:
    """Return eid, as the table holds it -> session; None if several sessions have it."""
    by_eid: dict[str, SessionKey | None] = {}
    for eid, key in zip(_column(sessions, "id"), keys, strict=True):
        if isinstance(eid, str):
            by_eid[eid] = key if by_eid.get(eid, key) == key else None
    return by_eid


def _unique_ids(table: pa.Table) -> Ids:
    """Return the ids of a table; zeros where One would not accept it, or where several rows have it."""
    codes, texts = arrow.encode_texts(table, "id")
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    found = np.concatenate([parse_ids(texts), np.zeros((1, 16), np.uint8)])
    found[:-1][counts != 1] = 0
    return found[codes]


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
