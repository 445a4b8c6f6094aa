"""What a daemon's tables are compared with: a fresh full index of the same tree, made in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from one.alf.cache import load_tables

from alfwatchd.core.replies import SyncReply
from alfwatchd.once import run_once
from alfwatchd.settings import load
from program import Program, assert_same_tables, generations, read_tables
from trees import fast_folder


def assert_right(made: Program, **settings: Any) -> SyncReply:
    """Sync, then compare the tables on disk with a fresh full index; `settings` are those that it needs, too."""
    reply = made.client.sync()
    assert len(set(generations(made.out_dir))) == 1
    assert_equals_fresh_index(made, **settings)
    return reply


def assert_equals_fresh_index(made: Program, **settings: Any) -> None:
    """Compare the tables on disk as they are."""
    with fast_folder() as fresh:
        index(made.root, fresh, **settings)
        assert_same_tables(made.out_dir, fresh)


def index(root: Path, folder: Path, **settings: Any) -> None:
    """Make tables of a tree in a folder."""
    places = {"root": str(root), "out_dir": str(folder), "state_dir": str(folder / "state")}
    run_once(load({**places, **settings}, environ={}).settings)


def assert_whole(folder: Path) -> None:
    """Make sure that the tables on disk are such as a reader can use: both whole, no dataset without its session."""
    for name in ("sessions", "datasets"):
        pq.ParquetFile(folder / f"{name}.pqt", page_checksum_verification=True).read().validate(full=True)
    sessions, datasets = read_tables(folder)
    orphans = set(datasets["eid"].unique().to_pylist()) - set(sessions["id"].to_pylist())
    assert not orphans, f"datasets of no session: {orphans}"
    cache = load_tables(folder)
    assert (len(cache.sessions), len(cache.datasets)) == (len(sessions), len(datasets))


def dates(folder: Path) -> tuple[str, str]:
    """Return what each file tells ONE of when it was made."""
    found = [json.loads(table.schema.metadata[b"one_metadata"])["date_created"] for table in read_tables(folder)]
    return found[0], found[1]
