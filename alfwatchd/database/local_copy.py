"""The last tables of a database that could be read, kept in the state folder: sources may be away for days."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alfwatchd.atomic import write_atomically
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.store.reader import read_file

_FOLDER = "adopted"
_SESSIONS, _DATASETS, _NOTE = "sessions.parquet", "datasets.parquet", "adopted.json"


@dataclass(frozen=True, slots=True)
class Copy:
    """Tables of a database as they were read.

    Parameters
    ----------
    sessions, datasets : pyarrow.Table
        With their index as plain columns.
    version : dict
        What tells later whether the source has changed.
    """

    sessions: pa.Table
    datasets: pa.Table
    version: Mapping[str, Any]


def save(state_dir: Path, source: str, copy: Copy, digest: str) -> None:
    """Keep tables. The note is written last: tables without it do not count.

    Parameters
    ----------
    state_dir : Path
    source : str
        Where they were read.
    copy : Copy
    digest : str
        `Adoption.digest` of them.

    Raises
    ------
    OSError
        They could not be kept.
    """
    folder = state_dir / _FOLDER
    folder.mkdir(exist_ok=True)
    (folder / _NOTE).unlink(missing_ok=True)
    write_atomically(folder / _SESSIONS, partial(pq.write_table, copy.sessions, compression="zstd"))
    write_atomically(folder / _DATASETS, partial(pq.write_table, copy.datasets, compression="zstd"))
    note = json.dumps({"source": source, "digest": digest, "version": dict(copy.version)})
    write_atomically(folder / _NOTE, partial(_write_text, note), mode=0o600)  # addresses may be signed


def load(state_dir: Path, source: str) -> Copy | None:
    """Return what `save` kept for a source; None if it is not there, or damaged."""
    note = _read_note(state_dir)
    if note.get("source") != source:
        return None
    folder = state_dir / _FOLDER
    try:
        return Copy(read_file(folder / _SESSIONS), read_file(folder / _DATASETS), note["version"])
    except (OSError, pa.ArrowException, KeyError):
        return None


def copied_version(state_dir: Path, source: str) -> dict[str, Any] | None:
    """Return the version of the source that the copy was made of; None where there is no copy."""
    note = _read_note(state_dir)
    version = note.get("version")
    return version if note.get("source") == source and isinstance(version, dict) else None


def kept_digest(state_dir: Path, source: str) -> str:
    """Return the digest of the copy that is kept for a source; empty if there is no copy, or no source."""
    note = _read_note(state_dir)
    return str(note.get("digest", "")) if source and note.get("source") == source else ""


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _read_note(state_dir: Path) -> Mapping[str, Any]:
    try:
        note = parse_json((state_dir / _FOLDER / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
