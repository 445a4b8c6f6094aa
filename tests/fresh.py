"""What the tables should hold: a fresh full index of the same tree with the same settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alfwatchd.core import encode
from alfwatchd.core.encoding import Encoding
from alfwatchd.core.tables import Snapshot
from alfwatchd.indexer import Indexer
from alfwatchd.once import index
from alfwatchd.settings import Settings
from alfwatchd.startup import prepare

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class View:
    """What a reader of the tables can know."""

    snapshot: Snapshot
    sessions: Rows
    datasets: Rows
    places: dict[str, str]
    """eid -> session path, relative to the root."""


def make_view(snapshot: Snapshot, encoding: Encoding) -> View:
    tables = encode.sessions_table(snapshot, encoding), encode.datasets_table(snapshot, encoding)
    ordered = encode.sorted_by_eid(snapshot, encoding.eids(snapshot))
    sessions, datasets = (table.to_pylist() for table in tables)
    places = {row["id"]: session.path for row, (_, session) in zip(sessions, ordered, strict=True)}
    return View(snapshot, sessions, datasets, places)


def index_afresh(settings: Settings, empty: Path) -> tuple[Indexer, View]:
    """Index the root of some settings as if there had never been tables; `empty` is a folder without any."""
    empty.mkdir(exist_ok=True)
    fresh = prepare(settings.model_copy(update={"out_dir": empty}), None)
    index(fresh)
    fresh.indexer.guard.close()
    return fresh.indexer, make_view(fresh.indexer.tables.snapshot(), fresh.encoding)
