"""Tables to publish, and a reader that checks whether the files at a target belong together."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alfwatchd.alf.file_names import TABLES
from alfwatchd.atomic import write_atomically
from alfwatchd.settings import Publish
from alfwatchd.tables.columns import TableRules, datasets_table, sessions_table
from alfwatchd.tables.earlier import NO_DATASETS, Earlier, EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import folder_rows

ORIGIN = "/srv/data"
LOCATION = "https://tables.example.org/one"


def entry(target: object, **settings: Any) -> Publish:
    """Make the settings of a target; clients find it at `LOCATION`."""
    return Publish(target=str(target), **({"location": LOCATION} | settings))


def names(target: Path) -> list[str]:
    """Return the names of the generations at a folder."""
    return sorted(path.name for path in (target / TABLES).iterdir())


def write_tables(
    out_dir: Path, generation: int, subjects: Iterable[str] = ("s1", "s2"), projects: dict[str, str] | None = None
) -> None:
    """Write tables like those of the daemon: of each subject (or path of a session) one session of two datasets.

    `projects` are those of the sessions, by subject.
    """
    out_dir.mkdir(exist_ok=True)
    sessions = {}
    for size, subject in enumerate(subjects):
        path = subject if "/" in subject else f"lab/Subjects/{subject}/2020-01-01/001"
        files = {name: pack_signature(10 + size, 0, 1, False) for name in ("spikes.times.npy", "spikes.clusters.npy")}
        sessions[path] = Session(path, (folder_rows("alf", files),))
    earlier = Earlier(
        {
            s.key.eid_path: EarlierSession(None, "task", (projects or {}).get(s.key.subject, ""))
            for s in sessions.values()
        },
        NO_DATASETS,
    )
    snapshot, rules = Snapshot(generation, sessions), TableRules(known=KnownColumns.of(earlier))
    metadata = {
        b"one_metadata": json.dumps({"date_created": "2026-01-01 00:00", "origin": ORIGIN}).encode(),
        b"alfwatchd": json.dumps({"generation": generation}).encode(),
    }
    # Not by `TableWriter`, which gives readers between two generations a third of a second.
    for name, table in (
        ("sessions", sessions_table(snapshot, rules)),
        ("datasets", datasets_table(snapshot, rules)),
    ):
        described = table.replace_schema_metadata({**metadata, **table.schema.metadata})
        write_atomically(out_dir / f"{name}.pqt", partial(write_whole, described))


def write_whole(table: pa.Table, path: Path) -> None:
    with path.open("wb") as file:
        pq.write_table(table, file)


def look(read: Callable[[str], bytes | None], location: str = "") -> tuple[str, str, set[str]] | None:
    """Read what a client reads, and find it whole and consistent.

    Parameters
    ----------
    read : callable
        Key -> content; None if there is none.
    location : str
        Address of the target for clients; empty where the JSON is to tell none.

    Returns
    -------
    tuple or None
        Name of the generation that the JSON names, its date, the subjects in it; None before the first publication.
    """
    text = read("cache_info.json")
    if text is None:
        return None
    info = json.loads(text)
    own = info["alfwatchd"]
    key = f"tables/{own['name']}/cache.zip"
    assert info.get("location", "") == (f"{location}/{key}" if location else "")
    immutable = read(key)
    assert immutable is not None, f"{key} is named and not there"
    assert hashlib.sha256(immutable).hexdigest() == own["sha256"]
    inner, subjects = unpack(immutable)
    for key, value in inner.items():
        if key != "alfwatchd":
            assert info[key] == value, key
    plain = read("cache.zip")
    assert plain is not None
    assert unpack(plain)[0]["date_created"] >= info["date_created"]
    return own["name"], info["date_created"], subjects


def unpack(content: bytes) -> tuple[dict[str, Any], set[str]]:
    """Return the JSON and the subjects in a zip, all of whose dates and numbers agree."""
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        assert zipped.testzip() is None
        assert sorted(zipped.namelist()) == ["cache_info.json", "datasets.pqt", "sessions.pqt"]
        info = json.loads(zipped.read("cache_info.json"))
        files = {name: pq.ParquetFile(io.BytesIO(zipped.read(f"{name}.pqt"))) for name in ("sessions", "datasets")}
    for name, file in files.items():
        described = json.loads(file.schema_arrow.metadata[b"one_metadata"])
        assert described == {key: info[key] for key in described}
        assert info["tables"][name] == {"nrecs": file.metadata.num_rows, "size": file.metadata.serialized_size}
    sessions, datasets = (file.read() for file in files.values())
    assert set(datasets.column("eid").to_pylist()) <= set(sessions.column("id").to_pylist())
    return info, set(sessions.column("subject").to_pylist())


def folder_reader(folder: Path) -> Callable[[str], bytes | None]:
    """Return how the files of a folder are read."""

    def read(key: str) -> bytes | None:
        try:
            return (folder / key).read_bytes()
        except FileNotFoundError:
            return None

    return read
