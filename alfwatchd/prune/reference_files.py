"""Reads the reference tables of a prune and says how old they are; refuses tables that make no sense."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from alfwatchd import bounded_json
from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.errors import PruneRefused, TablesError
from alfwatchd.prune.reference import Origin, Reference, make_reference
from alfwatchd.store import parquet, reader

_FIRST_ZONE = timedelta(hours=14)
"""Ahead of UTC, in Kiritimati: a local time of unknown zone is at the earliest a time there."""
_LAST_ZONE = timedelta(hours=12)
"""Behind UTC, on Baker Island: a local time of unknown zone is at the latest a time there."""
_NAMES = (SESSIONS, DATASETS)


def read_reference(folder: Path) -> Reference:
    """Read the reference tables in a folder.

    Raises
    ------
    PruneRefused
        There are none, they cannot be read, they make no sense, or they are not of one generation.
    """
    try:
        modified = _modified(folder)
        tables = reader.read_tables(folder) if modified is not None else None
        if tables is None or modified is None:
            raise PruneRefused(f"{folder}: no reference tables here; it must be a folder with {' and '.join(_NAMES)}")
        pair = [table.schema.metadata or {} for table in (tables.sessions, tables.datasets)]
        origin = _origin(folder, pair, modified)
        return make_reference(origin, tables.sessions, tables.datasets)
    except (TablesError, OSError, ValueError, pa.ArrowException) as error:
        raise PruneRefused(f"the reference tables cannot be used: {error}; nothing was deleted") from error


def read_date(folder: Path) -> Origin | None:
    """Return how old the tables in a folder are, without reading a row; None if there are none.

    Raises
    ------
    PruneRefused
        They cannot be read, or are not of one generation.
    """
    try:
        modified = _modified(folder)
        if modified is None:
            return None
        return _origin(folder, [parquet.read_metadata(folder / name) for name in _NAMES], modified)
    except (TablesError, OSError, ValueError, pa.ArrowException) as error:
        raise PruneRefused(f"the tables in {folder} cannot be used: {error}; nothing was deleted") from error


def _modified(folder: Path) -> datetime | None:
    """Return the modification time of the older one of both files; None if one is not there."""
    try:
        return datetime.fromtimestamp(min((folder / name).stat().st_mtime for name in _NAMES), UTC)
    except FileNotFoundError:
        return None


def _origin(folder: Path, pair: list[Mapping[bytes, bytes]], modified: datetime) -> Origin:
    """Return when a pair of tables may have been made at the earliest, by all that both files tell.

    Raises
    ------
    PruneRefused
        The two do not belong together: one was replaced while they were copied.
    """
    own = [_load(metadata, reader.METADATA_KEY) for metadata in pair]
    generations = [each.get("generation") for each in own]
    told = [_load(metadata, b"one_metadata").get("date_created") for metadata in pair]
    for what, (one, other) in (("generation", generations), ("date_created", told)):
        if one is not None and other is not None and one != other:
            raise PruneRefused(
                f"{folder}: the two tables do not belong together: {what} is {one} in {SESSIONS} and {other} in "
                f"{DATASETS}, as in a copy that was made while they were replaced; copy both again. Nothing was "
                "deleted"
            )
    dates = [modified]
    for each, created in zip(own, told, strict=True):
        written_at = _parse(each.get("written_at"))
        dates += [written_at] if written_at is not None else []
        dates += _earliest(created, written_at)
    generation = generations[1] if isinstance(generations[1], int) else None
    return Origin(str(folder), min(*dates, utc_now()), generation)  # no reference is of the future


def utc_now() -> datetime:
    """Return the time of this machine's clock, in UTC."""
    return datetime.now(UTC)


def _earliest(created: Any, written_at: datetime | None) -> list[datetime]:
    """Return the earliest time that `date_created` can mean; empty if `written_at` tells the same more exactly."""
    try:
        date = datetime.fromisoformat(created)
        if date.tzinfo is not None:
            return [date.astimezone(UTC)]
        local = date.replace(tzinfo=UTC)
        # At `written_at` the clocks of some zone show `created`: it is the same time, to the minute only.
        if written_at is not None and local - _FIRST_ZONE <= written_at <= local + _LAST_ZONE + timedelta(minutes=1):
            return []
        return [local - _FIRST_ZONE]
    except (TypeError, ValueError, OverflowError):
        return []


def _parse(text: Any) -> datetime | None:
    try:
        date = datetime.fromisoformat(text)
        return date.astimezone(UTC) if date.tzinfo is not None else None
    except (TypeError, ValueError, OverflowError):
        return None


def _load(metadata: Mapping[bytes, bytes], key: bytes) -> dict[str, Any]:
    try:
        loaded = bounded_json.parse(metadata.get(key, b"{}"))
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}
