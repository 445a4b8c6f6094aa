"""What a run finds in its output folder: tables that an earlier run, ONE or Alyx wrote, and notes of rows that went."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.alf.grammar import SessionKey
from alfwatchd.errors import ConfigError, OutDirError, StateError, TablesError
from alfwatchd.files import file_version
from alfwatchd.scan import mounts
from alfwatchd.store import reader
from alfwatchd.store.layout import read_versions
from alfwatchd.store.notes_file import Notes
from alfwatchd.store.reader import StoredTables
from alfwatchd.tables import carry_over
from alfwatchd.tables.adoption import Adoption
from alfwatchd.tables.earlier import NOTHING_EARLIER, Earlier
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.notes import Note, key_now, with_notes
from alfwatchd.tree.known_sample import KnownSession

_log = logging.getLogger(__name__)

Row = tuple[tuple[str, ...], str, int | None, bytes]
"""Paths that a session may have; rel_path, size in bytes and md5 of a dataset: "", None, b"" for the session itself."""


def follow_from_disk(
    out_dir: Path, metadata: Mapping[str, Any], namespace: uuid.UUID, lab: str, adopted: str, layout: Path | None
) -> bool:
    """Tell whether the disk and the database give all that the tables hold, so that they need not be read.

    Parameters
    ----------
    out_dir : Path
    metadata : mapping
        What the datasets say of themselves; see `reader.read_generation`.
    namespace, lab
        The settings now.
    adopted : str
        Digest of what is known of the database; empty for none.
    layout : Path or None
        File that says which files the last run wrote: other programs may change columns, and keep our metadata. None
        for a run that leaves no state.
    """
    return bool(
        metadata.get("namespace") == str(namespace)
        and not metadata.get("has_kept", True)
        and metadata.get("lab", "") == lab
        and (not lab or metadata.get("ids_with_lab"))
        and metadata.get("adopted", "") == adopted
        and (layout is None or read_versions(layout) == _versions(out_dir))
    )


def _versions(out_dir: Path) -> list[list[Any] | None]:
    versions = (file_version(out_dir / name) for name in (SESSIONS, DATASETS))
    return [list(version) if version else None for version in versions]


def read_earlier(out_dir: Path) -> StoredTables | None:
    """Read the tables in a folder; None if there are none.

    Tables of other programs come without the revision ``#nan#``, which Alyx writes for none; in our own ones it is a
    folder. Damaged tables count as none, since they are about to be replaced. Where only the sessions can be read,
    these are returned without datasets.

    Raises
    ------
    OutDirError
        A file is there and cannot be read now.
    """
    earlier = None
    try:
        earlier = reader.read_tables(out_dir)
    except TablesError as error:
        require_readable(out_dir)
        _log.warning("what a damaged table held beside what the disk tells is lost error=%s", error)
    earlier = earlier or reader.read_sessions_alone(out_dir)
    if earlier is None or earlier.metadata:
        return earlier
    return replace(earlier, datasets=carry_over.without_no_revision(earlier.datasets))


def require_readable(out_dir: Path, n_bytes: int = -1) -> None:
    """Make sure that what earlier tables hold can be carried over: it is nowhere else.

    A folder that cannot be entered is no error here: the writer reports it, as it cannot write there either.

    Parameters
    ----------
    out_dir : Path
    n_bytes : int
        How much of each file to read; -1 for all.

    Raises
    ------
    OutDirError
        A file is there and cannot be read now.
    """
    for path in (out_dir / SESSIONS, out_dir / DATASETS):
        try:
            if path.is_file():
                with path.open("rb") as file:
                    file.read(n_bytes)
        except FileNotFoundError:
            continue
        except OSError as error:
            if os.access(out_dir, os.X_OK):
                raise OutDirError(
                    f"{path}: cannot be read ({error.strerror}), and what it holds would be lost; make it readable, "
                    "or remove it to have it made again"
                ) from error


def require_same_root(out_dir: Path, root: Path) -> None:
    """Make sure that earlier tables in a folder outside the root are not those of another root that is there, too.

    Whether a root that has moved is still the same one is judged by `scan.root_guard`.

    Parameters
    ----------
    out_dir, root : Path

    Raises
    ------
    ConfigError
        They are.
    """
    origins = [] if out_dir.is_relative_to(root) else reader.read_origins(out_dir)
    others = [origin for origin in origins if _holds_folders(origin)]
    try:
        if str(root) in origins or not root.exists() or any(root.samefile(origin) for origin in others):
            return
    except OSError:  # what cannot be looked at now may be the same one
        return
    sessions = reader.read_sessions(out_dir) if others else None
    if sessions is not None and len(sessions):
        raise ConfigError(
            f"{out_dir}: holds the tables of another root, {others[0]}, with {len(sessions)} sessions, which those of "
            f"{root} would replace; give this root an out_dir of its own. If it takes the place of the other one, run "
            "alfwatchd --once --accept-root"
        )


def _holds_folders(path: str) -> bool:
    try:
        return bool(mounts.top_folders(path))
    except OSError:
        return False


def filled_lab(metadata: Mapping[str, Any], lab: str) -> str:
    """Return the lab that tables hold for sessions in no lab folder: they may be older than the `lab` setting."""
    return str(metadata.get("lab", lab))


def gather(
    tables: StoredTables | None,
    namespace: uuid.UUID,
    lab: str,
    notes: Notes | None,
    sessions: pa.Table | None,
    recall_before: Callable[[], Adoption | None],
) -> Earlier:
    """Return what tables and notes know that cannot be derived from the disk.

    Parameters
    ----------
    tables : StoredTables or None
        Earlier tables; None if nothing in them is worth reading.
    namespace, lab
        The settings now.
    notes : Notes or None
        None for a run that leaves no state.
    sessions : pyarrow.Table or None
        Sessions of the tables; None if there are none.
    recall_before : callable
        Returns what a database knew when the tables were written, or None. It takes seconds, so it is called only
        where there are notes.

    Raises
    ------
    StateError
        The notes cannot be read now, and would be lost for the rows that are back.
    """
    earlier = NOTHING_EARLIER
    if tables is not None:
        filled = filled_lab(tables.metadata, lab)
        is_adopted = bool(tables.metadata.get("adopted"))
        earlier = carry_over.carry_over(tables.sessions, tables.datasets, namespace, filled, lab, is_adopted=is_adopted)
    noted = _load(notes) if notes is not None else []
    if notes is None or not noted:
        return earlier
    keys = {key for each in noted for key in (each.key, key_now(each, earlier.lab))}
    listed = carry_over.listed(tables.sessions, tables.datasets, keys) if tables is not None else {}
    notes.come_back(listed)
    eids = {each.session.eid for each in noted if each.session.eid is not None}
    taken = carry_over.holders(sessions, eids) if sessions is not None and eids else {}
    before = recall_before()
    if before is None:
        return with_notes(earlier, noted, listed, taken)
    return with_notes(KnownColumns.of(earlier, before).rest, noted, listed, taken, before.sessions)


def _load(notes: Notes) -> list[Note]:
    try:
        return notes.load()
    except OSError as error:
        raise StateError(
            f"{error.filename or notes.folder}: cannot be read ({error.strerror}); make it readable"
        ) from error


def sessions_here(out_dir: Path, metadata: Mapping[str, Any], earlier: StoredTables | None) -> pa.Table | None:
    """Return the sessions in earlier tables whose folders were here; None if there are no tables.

    Parameters
    ----------
    out_dir : Path
    metadata : mapping
        What the datasets say of themselves.
    earlier : StoredTables or None
        The tables, if they have been read.
    """
    if earlier is None and metadata.get("keep_missing"):
        earlier = read_earlier(out_dir)
    return reader.read_sessions(out_dir) if earlier is None else reader.without_missing(earlier).sessions


def rows_here(out_dir: Path, lab: str) -> Iterator[Row]:
    """Yield the rows of earlier tables whose folders or files were here.

    Parameters
    ----------
    out_dir : Path
    lab : str
        The setting now.
    """
    earlier = read_earlier(out_dir)
    if earlier is None:
        return
    earlier = reader.without_missing(earlier) if earlier.metadata.get("keep_missing") else earlier
    filled, keys = filled_lab(earlier.metadata, lab), carry_over.session_keys(earlier.sessions)
    for key in filter(None, keys):
        yield spellings(key, filled), "", None, b""
    for key, rel_path, file_size, digest in carry_over.dataset_rows(earlier.sessions, earlier.datasets, keys):
        yield spellings(key, filled), rel_path, file_size, digest


def spellings(key: SessionKey, lab: str) -> tuple[str, ...]:
    """Return the paths that a session of a table may have on disk.

    Parameters
    ----------
    key : SessionKey
    lab : str
        What the table holds as the lab of sessions in no lab folder.
    """
    numbers = dict.fromkeys([f"{key.number:03d}", str(key.number), f"{key.number:02d}"])
    places = [f"{key.lab}/Subjects/{key.subject}"] if key.lab else []
    if not key.lab or key.lab == lab:
        places.append(key.subject)
    return tuple(f"{place}/{key.date.isoformat()}/{number}" for place in places for number in numbers)


class EarlierSessions(Collection[KnownSession]):
    """The sessions of a table, with their inodes where an earlier run has recorded them.

    Their paths are made when they are asked for: they would take ten times the memory of the keys.

    Parameters
    ----------
    sessions : pyarrow.Table
    lab : str
        What the table holds as the lab of sessions in no lab folder.
    seen : mapping of str to int
        Path of a session -> inode of its folder.
    """

    def __init__(self, sessions: pa.Table, lab: str, seen: Mapping[str, int]) -> None:
        self._keys = dict.fromkeys(filter(None, carry_over.session_keys(sessions)))
        self._lab = lab
        self._seen = seen

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, session: object) -> bool:
        return any(each == session for each in self)

    def __iter__(self) -> Iterator[KnownSession]:
        for key in self._keys:
            paths = spellings(key, self._lab)
            yield KnownSession(paths, next((self._seen[path] for path in paths if path in self._seen), 0))

    def eid_paths(self) -> set[str]:
        """Return `SessionKey.eid_path` of the sessions, with and without a lab that the setting gave."""
        given = [key for key in self._keys if self._lab and key.lab == self._lab]
        bare = [SessionKey("", key.subject, key.date, key.number) for key in given]
        return {key.eid_path for key in (*self._keys, *bare)}
