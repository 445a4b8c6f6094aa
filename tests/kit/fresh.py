"""What the tables should hold: a fresh full index of the same tree with the same settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alfwatchd.index.indexer import Indexer
from alfwatchd.service.once import index
from alfwatchd.service.startup import prepare
from alfwatchd.settings import Settings
from alfwatchd.tables import columns
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.sessions import Snapshot

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class View:
    """What a reader of the tables can know."""

    snapshot: Snapshot
    sessions: Rows
    datasets: Rows
    places: dict[str, str]
    """eid -> session path, relative to the root."""


def make_view(snapshot: Snapshot, rules: TableRules) -> View:
    tables = columns.sessions_table(snapshot, rules), columns.datasets_table(snapshot, rules)
    ordered = columns.sorted_by_eid(snapshot, rules.eids(snapshot))
    sessions, datasets = (table.to_pylist() for table in tables)
    places = {row["id"]: session.path for row, (_, session) in zip(sessions, ordered, strict=True)}
    return View(snapshot, sessions, datasets, places)


def index_afresh(settings: Settings, empty: Path) -> tuple[Indexer, View]:
    """Index the root of some settings as if there had never been tables; `empty` is a folder without any."""
    empty.mkdir(exist_ok=True)
    fresh = prepare(settings.model_copy(update={"out_dir": empty}), None)
    index(fresh)
    fresh.indexer.guard.close()
    return fresh.indexer, make_view(fresh.indexer.tables.snapshot(), fresh.rules)
