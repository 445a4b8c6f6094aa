"""Parquet files of others beside the tables: ONE reads each `*.pqt` of the folder, and opens none if one is damaged."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.alf.printable import printable
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.files import FileVersion, file_version
from alfwatchd.store.parquet import open_checked
from alfwatchd.tree.rows import Problem

_ENDING = ".pqt"
_MOST_FILES = 100


class OtherFiles:
    """Looks at the files that ONE would read, in the folder of the tables and in the root. Used by one thread.

    Parameters
    ----------
    root, out_dir : Path
    """

    def __init__(self, root: Path, out_dir: Path) -> None:
        self._root = root
        self._out_dir = out_dir
        self._seen: dict[Path, tuple[FileVersion | None, str]] = {}
        """File -> its version, and why ONE cannot read it."""

    def problems(self) -> list[Problem]:
        """Return one problem for each file that keeps ONE from opening the tables; only new versions are read."""
        own = {self._out_dir / SESSIONS, self._out_dir / DATASETS}
        seen = {}
        for folder in dict.fromkeys((self._out_dir, self._root)):
            for path in _tables_in(folder) - own:
                version = file_version(path)
                known, reason = self._seen.get(path, (None, ""))
                seen[path] = version, reason if version and version == known else _why_unreadable(path)
        self._seen = seen
        return [self._say(path, reason) for path, (_, reason) in sorted(seen.items()) if reason]

    def _say(self, path: Path, reason: str) -> Problem:
        place = path.relative_to(self._root) if path.is_relative_to(self._root) else path
        message = (
            f"{reason}, and One opens no tables in a folder with such a file: remove it, or give it a name that does "
            f"not end in {_ENDING}"
        )
        return Problem("foreign_table", printable(str(place)), message)


def _tables_in(folder: Path) -> set[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(_ENDING))
    except OSError:  # told elsewhere
        return set()
    return {folder / name for name in names[:_MOST_FILES]}


def _why_unreadable(path: Path) -> str:
    """Say why ``one.alf.cache.load_tables`` would fail; empty if it reads the file, or leaves it out."""
    try:
        if path.is_dir():
            return "" if any(path.iterdir()) else "an empty folder"
        if path.stat().st_size == 0:
            return "an empty file"
        with open_checked(path) as file:
            names, metadata = file.schema_arrow.names, file.schema_arrow.metadata
    except FileNotFoundError:
        return "a link that leads nowhere" if path.is_symlink() else ""
    except PermissionError:  # this user may not read it; others may
        return ""
    except (OSError, pa.ArrowException, ValueError):
        return "no Parquet file, or a part of one"
    if metadata is None:
        return "a Parquet file without any metadata"
    # A file without a date is left out with a warning.
    is_dated = "date_created" in _parse(metadata, b"one_metadata")
    is_indexed = any(isinstance(each, str) for each in _parse(metadata, b"pandas").get("index_columns", []))
    has_ids = is_indexed or any(re.search(".?id", name) for name in names)
    return "a table without a column for ids" if is_dated and not has_ids else ""


def _parse(metadata: Mapping[bytes, bytes], key: bytes) -> dict[str, Any]:
    try:
        found = parse_json(metadata.get(key, b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
