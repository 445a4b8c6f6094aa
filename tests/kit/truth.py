"""What a daemon's tables are compared with: a fresh full index of the same tree, made in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from one.alf.cache import load_tables

from alfwatchd.api import SyncReply
from alfwatchd.service.configuration import load
from alfwatchd.service.once import run_once
from kit.program import Program, assert_same_tables, generations, read_tables
from kit.trees import fast_folder


def assert_right(made: Program, *, digests: bool = True, **settings: Any) -> SyncReply:
    """Sync, then compare the tables on disk with a fresh full index, and the answers of the daemon with both.

    Parameters
    ----------
    made : Program
    digests : bool
        Whether to compare them, too: a fresh index makes all of them at once, a daemon one by one.
    settings
        Those that a fresh index needs, too.
    """
    reply = sync(made)
    assert reply.exactness == "exact", f"{reply}\n{made.client.status()}"
    # A hasher may just have asked for a look at a file whose attributes changed.
    made.wait(lambda: made.client.status().state == "live")
    assert made.client.status().saved
    made.wait(lambda: len(set(generations(made.out_dir))) == 1)  # a flush of digests may be between both
    assert_equals_fresh_index(made, digests=digests, **settings)
    return reply


def sync(made: Program) -> SyncReply:
    """Sync, and give up rows that are held: most of the few sessions of a story may go while nobody can hear of it."""
    reply = made.client.sync()
    if reply.exactness != "held":
        return reply
    status = made.client.status()
    is_deaf = status.events_lost or not status.watches or made.log.count("daemon started") > 1
    assert is_deaf, f"an event must have told\n{status}"
    made.client.rescan(accept_root=True)
    return made.client.sync()


def assert_equals_fresh_index(made: Program, *, digests: bool = True, **settings: Any) -> None:
    """Compare the tables on disk as they are; parameters as for `assert_right`."""
    with fast_folder() as fresh:
        index(made.root, fresh, **settings)
        assert_same_tables(made.out_dir, fresh, digests=digests)


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
