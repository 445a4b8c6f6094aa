"""Reads tables of any origin: ours, ONE's, Alyx's."""

from __future__ import annotations

import errno
import time
import uuid
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from alfwatchd.alf import ids
from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.errors import TablesError, UsageError
from alfwatchd.store.parquet import CheckedFile, open_checked, read_metadata
from alfwatchd.tables import arrow
from alfwatchd.tables.dates import is_believable
from alfwatchd.users import this_user

METADATA_KEY = b"alfwatchd"
"""Schema metadata of our own; `one_metadata` stays exactly what ONE writes."""
_RETRY_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class StoredTables:
    """The two tables, as read from disk.

    Parameters
    ----------
    sessions, datasets : pyarrow.Table
        With their index as plain columns; `datasets` may be older or newer than `sessions`.
    generation : int
        0 if the files are not ours.
    metadata : dict
        What `TableWriter.write` recorded about the datasets; empty if the file is not ours.
    """

    sessions: pa.Table
    datasets: pa.Table
    generation: int
    metadata: dict[str, Any]
    modified: float
    """When the datasets file was last written, in seconds since 1970."""


def read_tables(folder: Path) -> StoredTables | None:
    """Read the tables in a folder; None if one of the two is not there.

    Raises
    ------
    TablesError
        A file is there but is no table that ONE could use.
    """
    sessions_path, datasets_path = folder / SESSIONS, folder / DATASETS
    try:
        if not (sessions_path.exists() and datasets_path.exists()):
            return None
    except OSError as error:  # not allowed to look, or too long a name
        raise TablesError(f"{folder}: cannot be opened ({error.strerror}); name another folder") from error
    sessions, datasets = (_read(path) for path in (sessions_path, datasets_path))
    metadata = _parse_own(datasets.schema.metadata)
    generation = max(each.get("generation", 0) for each in (metadata, _parse_own(sessions.schema.metadata)))
    return StoredTables(sessions, datasets, generation, metadata, datasets_path.stat().st_mtime)


def read_sessions_alone(folder: Path) -> StoredTables | None:
    """Return the sessions alone, in case the datasets are missing or damaged; None if the sessions are, too."""
    sessions = read_sessions(folder)
    if sessions is None:
        return None
    metadata = _parse_own(sessions.schema.metadata)
    return StoredTables(sessions, pa.table({}), metadata.get("generation", 0), metadata, 0.0)


def read_sessions(folder: Path) -> pa.Table | None:
    """Read the sessions table in a folder, which is small; None if it is missing or damaged."""
    try:
        return read_file(folder / SESSIONS)
    except (OSError, pa.ArrowException):
        return None


def without_missing(tables: StoredTables) -> StoredTables:
    """Return the rows whose file was here, and their sessions: the others came from a database."""
    if not {"exists", "eid"} <= set(tables.datasets.column_names):
        return tables
    is_here = tables.datasets.column("exists")
    here = pc.unique(tables.datasets.filter(is_here).column("eid").cast(pa.string()))
    away = pc.unique(tables.datasets.filter(pc.invert(is_here)).column("eid").cast(pa.string()))
    own_ids = tables.sessions.column("id").cast(pa.string())
    is_gone = pc.and_(pc.is_in(own_ids, value_set=away), pc.invert(pc.is_in(own_ids, value_set=here)))
    return replace(
        tables, sessions=tables.sessions.filter(pc.invert(is_gone)), datasets=tables.datasets.filter(is_here)
    )


class OnDisk(NamedTuple):
    """Which version of the rows the tables in a folder say they are.

    Parameters
    ----------
    generation : int
        The higher one of both files; 0 if neither is ours.
    journal : str
        Id of the journal that leads up to it; empty if they name none.
    is_pair : bool
        Whether both are ours, and of one generation.
    """

    generation: int
    journal: str
    is_pair: bool


def read_version(folder: Path) -> OnDisk:
    """Return which version of the rows the tables in a folder say they are, without reading rows."""
    found = _read_own(folder)
    generations = [each.get("generation", 0) for each in found]
    journals = {each.get("journal", "") for each in found}
    is_pair = generations[0] == generations[1] > 0
    journal = journals.pop() if is_pair and len(journals) == 1 else ""
    return OnDisk(max(generations), journal if isinstance(journal, str) else "", is_pair)


def read_generation(folder: Path) -> tuple[int, dict[str, Any]]:
    """Return generation, and own metadata of the datasets, without reading rows; 0 and {} where no file tells."""
    found = _read_own(folder)
    return max(metadata.get("generation", 0) for metadata in found), found[1]


def _read_own(folder: Path) -> list[dict[str, Any]]:
    """Return our own metadata of sessions and datasets; empty for what is not ours."""
    found: list[dict[str, Any]] = []
    for name in (SESSIONS, DATASETS):
        found.append({})
        with suppress(OSError, pa.ArrowException, ValueError):
            found[-1] = _parse_own(read_metadata(folder / name))
    return found


def read_created(folder: Path) -> str:
    """Return when the tables in a folder were made, the later one, as `one_metadata` has it; empty if none tells."""
    latest = ""
    for name in (SESSIONS, DATASETS):
        with suppress(OSError, pa.ArrowException, ValueError, KeyError, TypeError):
            created = parse_json(read_metadata(folder / name)[b"one_metadata"])["date_created"]
            date = datetime.fromisoformat(created)
            if is_believable(date, datetime.now(date.tzinfo)):
                latest = max(latest, date.isoformat(sep=" ", timespec="minutes"))
    return latest


def read_origins(folder: Path) -> list[str]:
    """Return the roots that the tables in a folder say they are of, as absolute paths; several where One saved them."""
    for name in (SESSIONS, DATASETS):
        with suppress(OSError, pa.ArrowException, ValueError, KeyError, TypeError):
            told = parse_json(read_metadata(folder / name)[b"one_metadata"])["origin"]
            origins = [told] if isinstance(told, str) else told
            return [each for each in origins if isinstance(each, str) and each.startswith("/") and "\0" not in each]
    return []


def are_alike(folder: Path, origin: str, own: Mapping[str, Any], seconds: float) -> bool:
    """Tell whether the tables in a folder already say what new ones would say, and not for long.

    Parameters
    ----------
    folder : Path
    origin : str
        The root.
    own : mapping
        Our own metadata of the new ones. Their generation does not count.
    seconds : float
        How much older the tables in the folder may be.
    """
    found: list[tuple[object, ...]] = []
    for name in (SESSIONS, DATASETS):
        try:
            metadata = read_metadata(folder / name)
            told = _parse_own(metadata)
            age = datetime.fromisoformat(own["written_at"]) - datetime.fromisoformat(told["written_at"])
            is_young = 0 <= age.total_seconds() < seconds
            found.append((told.get("generation"), parse_json(metadata[b"one_metadata"])["origin"], is_young))
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
            return False
        if any(told.get(key) != value for key, value in own.items() if key not in ("written_at", "generation")):
            return False
    return found[0] == found[1] and found[0][1:] == (origin, True)


@contextmanager
def open_pair(folder: Path) -> Iterator[tuple[CheckedFile, CheckedFile, int]]:
    """Open sessions and datasets of one generation, to be read even after other files have replaced them.

    Yields
    ------
    tuple
        Sessions, datasets, and their generation, which is above 0.

    Raises
    ------
    TablesError
        They are not of one generation, as between the two renames of a flush; or are not ours, not there, damaged.
    """
    with open_pair_of_any_program(folder) as (sessions, datasets, generation):
        if not generation:
            raise TablesError(f"{folder}: the two tables are not of one generation; let alfwatchd write them")
        yield sessions, datasets, generation


@contextmanager
def open_pair_of_any_program(
    folder: Path, patience_seconds: float = 0.0
) -> Iterator[tuple[CheckedFile, CheckedFile, int]]:
    """As `open_pair`; tables that another program wrote have generation 0, and nothing proves that they match.

    Parameters
    ----------
    folder : Path
    patience_seconds : float
        How long to open them again while they are not of one generation.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        with ExitStack() as stack:
            files = []
            # Both at once: a flush that replaced one file waits for readers that have opened it.
            for name in (SESSIONS, DATASETS):
                try:
                    files.append(stack.enter_context(open_checked(folder / name)))
                except (OSError, pa.ArrowException, ValueError) as error:
                    raise TablesError(f"{folder / name}: cannot be read: {_reason(error)}") from error
            generations = {_parse_own(file.schema_arrow.metadata).get("generation", 0) for file in files}
            if len(generations) == 1:
                yield files[0], files[1], generations.pop()
                return
        if time.monotonic() >= deadline:
            raise TablesError(f"{folder}: the two tables are not of one generation; let alfwatchd write them")
        time.sleep(_RETRY_SECONDS)


def _reason(error: Exception) -> str:
    """Return why a file cannot be read, and what to do."""
    if isinstance(error, PermissionError):
        return f"{error.strerror}; let {this_user()} read it"
    if isinstance(error, FileNotFoundError):
        return f"{error.strerror}; let alfwatchd write it, or name another folder"
    return f"{getattr(error, 'strerror', None) or error}; let alfwatchd write it again"


def read_file(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file; unlike `pyarrow.parquet.read_table`, without importing half of pyarrow.

    Raises
    ------
    OSError, pyarrow.ArrowException
        It cannot be read, or is damaged.
    """
    try:
        with open_checked(path) as file:
            table = file.read(columns)
        table.validate(full=True)  # damaged text or indices would fail anywhere later
    except (UnicodeError, LookupError, TypeError, OverflowError) as error:  # pyarrow did not expect that of a footer
        raise OSError(errno.EINVAL, f"is damaged: {error}", str(path)) from error
    return table


def _read(path: Path) -> pa.Table:
    """Read a table of any origin, with ids as plain strings."""
    try:
        table = read_file(path)
    except (OSError, pa.ArrowException) as error:
        raise TablesError(
            f"{path}: not a readable Parquet file ({error}); remove it, and it is written again"
        ) from error
    for name in {"eid", "id"} & set(table.column_names):
        if pa.types.is_dictionary(table.schema.field(name).type):
            column = table.column(name).cast(pa.string())
            table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def find_path(folder: Path, text: str) -> str:
    """Return the ``(lab/)subject/date/number`` of the session that has an eid; the text itself if it is no UUID.

    Raises
    ------
    UsageError
        No session in the tables has this eid.
    """
    try:
        wanted = str(uuid.UUID(text))
    except ValueError:
        return text
    with suppress(OSError, pa.ArrowException, ValueError, KeyError), open_checked(folder / SESSIONS) as file:
        rows = file.read(["id", "lab", "subject", "date", "number"])
        rows = rows.filter(pc.equal(rows.column("id").cast(pa.string()), wanted))
        for row in rows.to_pylist():
            parts = [row["lab"], row["subject"], str(row["date"]), f"{row['number']:03d}"]
            return "/".join(filter(None, parts))
    raise UsageError(f"{text}: no session in the tables has this eid; give the path of the session instead")


def find_ids(folder: Path, wanted: Set[str]) -> dict[str, str]:
    """Return those of some ids that tables hold; none if they are not there or damaged.

    Returns
    -------
    dict of str to str
        Id -> end of the path that has it: rel_path of a dataset, ``subject/date/number`` of a session.
    """
    values, found = arrow.strings(sorted(wanted)), dict[str, str]()
    for name, places in ((SESSIONS, ["subject", "date", "number"]), (DATASETS, ["rel_path"])):
        with suppress(OSError, pa.ArrowException, ValueError, KeyError), open_checked(folder / name) as file:
            for group in range(file.num_row_groups):  # a million ids at once take 100 MB
                own_ids = file.read_row_group(group, ["id"]).column("id").cast(pa.string())
                is_wanted = pc.is_in(own_ids, value_set=values)
                if pc.any(is_wanted).as_py():
                    rows = file.read_row_group(group, ["id", *places]).filter(is_wanted).to_pylist()
                    found |= {str(row["id"]): _end_of_path(*(row[place] for place in places)) for row in rows}
    return found


def _end_of_path(first: object, *others: object) -> str:
    """Return a rel_path, or the end of the path of a session."""
    return "/".join([str(first), *(f"{each:03d}" if isinstance(each, int) else str(each) for each in others)])


def read_session_ids(path: Path) -> frozenset[bytes]:
    """Return the session ids in a file; none if it is missing or damaged, as no program can read it then."""
    try:
        column = read_file(path, ["id"]).column("id").to_pylist()
    except (OSError, pa.ArrowException, KeyError):
        return frozenset()
    return frozenset(eid for eid in map(ids.parse_id, column) if eid is not None)


def _parse_own(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    """Return what `TableWriter.write` recorded in a file; nothing where it was not ours, or is damaged."""
    try:
        loaded = parse_json((metadata or {}).get(METADATA_KEY, b"{}"))
    except ValueError:
        return {}
    is_sound = isinstance(loaded, dict) and isinstance(loaded.get("generation", 0), int)
    return loaded if is_sound else {}
