"""ONE itself loads and finds what the columns say."""

import hashlib
import json
import uuid

import pyarrow.parquet as pq
import pytest
from one.alf.cache import QC_TYPE, load_tables
from one.api import One

from alfwatchd.alf import ids
from alfwatchd.tables.columns import datasets_table, sessions_table
from alfwatchd.tables.earlier import EarlierDataset, EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import earlier, folder_rows

EID_PATH = "lab/s/2020-01-01/001"
EID = uuid.UUID(bytes=ids.session_id(EID_PATH))
DIGEST = hashlib.md5(b"spikes").digest()


def rows(*names):
    return {name: pack_signature(10 * i, 0, i, False) + DIGEST for i, name in enumerate(names, 1)}


SNAPSHOT = Snapshot(
    1,
    {
        session.path: session
        for session in (
            Session(
                "lab/Subjects/s/2020-01-01/001",
                (
                    folder_rows("alf", rows("spikes.times.npy", "spikes.clusters.npy")),
                    folder_rows("alf/#2021-01-01#", rows("spikes.times.npy")),
                ),
            ),
            *(Session(f"t/2020-01-{day:02d}/1", (folder_rows("", rows("a.b.c")),)) for day in range(1, 30)),
            Session("empty/2020-01-01/001"),
        )
    },
)
EARLIER = earlier(
    {EID_PATH: EarlierSession(None, "_iblrig_task", "project")},
    {EID_PATH: {"alf/spikes.clusters.npy": EarlierDataset(None, 3)}},
)


def write(snapshot, rules, folder):
    meta = json.dumps({"date_created": "2024-01-01 12:00", "origin": str(folder)}).encode()
    for name, table in [
        ("sessions", sessions_table(snapshot, rules)),
        ("datasets", datasets_table(snapshot, rules)),
    ]:
        metadata = {**table.schema.metadata, b"one_metadata": meta}
        pq.write_table(table.replace_schema_metadata(metadata), folder / f"{name}.pqt")


def test_one_loads_the_tables_with_their_index_and_types(tmp_path):
    write(SNAPSHOT, TableRules(known=KnownColumns.of(EARLIER)), tmp_path)
    cache = load_tables(tmp_path)
    assert (len(cache.sessions), len(cache.datasets)) == (31, 32)
    assert cache.sessions.index.names == ["id"]
    assert cache.datasets.index.names == ["eid", "id"]
    assert cache.sessions.index.is_monotonic_increasing
    assert cache.datasets.index.is_monotonic_increasing
    assert cache.datasets.index.is_unique
    assert list(cache.datasets["qc"].dtype.categories) == list(QC_TYPE.categories)
    assert cache.datasets["qc"].dtype.ordered
    record = cache.sessions.loc[EID]
    assert (record["lab"], record["subject"], str(record["date"]), record["number"]) == ("lab", "s", "2020-01-01", 1)
    assert (record["task_protocol"], record["projects"]) == ("_iblrig_task", "project")
    files = cache.datasets.loc[EID]
    assert sorted(files["rel_path"][files["default_revision"]]) == [
        "alf/#2021-01-01#/spikes.times.npy",
        "alf/spikes.clusters.npy",
    ]
    dataset = uuid.UUID(bytes=ids.dataset_id(EID.bytes, "alf/spikes.clusters.npy"))
    assert cache.datasets.loc[(EID, dataset), "rel_path"] == "alf/spikes.clusters.npy"
    assert (cache.datasets.loc[(EID, dataset), "file_size"], cache.datasets.loc[(EID, dataset), "qc"]) == (20, "FAIL")


@pytest.mark.parametrize("with_hashes", [False, True])
def test_one_reads_the_hash_or_none(tmp_path, with_hashes):
    write(SNAPSHOT, TableRules(with_hashes=with_hashes), tmp_path)
    assert set(load_tables(tmp_path).datasets["hash"]) == {DIGEST.hex() if with_hashes else None}


def test_one_answers_from_the_tables(tmp_path):
    write(SNAPSHOT, TableRules(known=KnownColumns.of(EARLIER)), tmp_path)
    one = One(cache_dir=tmp_path, mode="local")
    # One compares qc, so unordered or missing categories show here.
    assert one.list_datasets(EID, qc="WARNING") == [
        "alf/#2021-01-01#/spikes.times.npy",
        "alf/spikes.times.npy",
    ]
    assert one.list_datasets(EID, filename="spikes.times.npy", default_revisions_only=True) == [
        "alf/#2021-01-01#/spikes.times.npy"
    ]
    assert one.search(subject="s", lab="lab") == [EID]
    assert one.eid2path(EID) == tmp_path / "lab/Subjects/s/2020-01-01/001"


def test_one_opens_empty_tables(tmp_path):
    write(Snapshot(1, {}), TableRules(), tmp_path)
    one = One(cache_dir=tmp_path, mode="local")
    assert list(one.search()) == []
    assert len(one.list_datasets()) == 0
