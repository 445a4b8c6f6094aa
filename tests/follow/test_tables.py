"""Completeness is judged by what is in the tables on disk: that is what a command will load."""

from __future__ import annotations

from hashlib import md5

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd.errors import TablesError
from alfwatchd.follow.tables import open_sessions, read_some
from kit.program import make_small_tree, program


@pytest.fixture
def made(tmp_path):
    """A program whose tables list six sessions of two datasets."""
    root = tmp_path / "data"
    root.mkdir()
    with program(make_small_tree(root)) as found:
        found.make_tables()
        yield found


def read_all(made):
    with open_sessions(made.out_dir, str(made.root)) as (generation, sessions):
        return generation, list(sessions)


def test_all_sessions_come_with_their_folder_and_datasets(made):
    generation, sessions = read_all(made)
    assert generation > 0
    paths = sorted(each.path for each in sessions)
    assert paths == sorted(f"lab/Subjects/s{n}/2020-01-01/{number:03d}" for n in (1, 2, 3) for number in (1, 2))
    for each in sessions:
        found = {row.rel_path: row.file_size for row in each.datasets}
        assert found == {
            name: (made.root / each.path / name).stat().st_size
            for name in ("alf/spikes.times.npy", "_ibl_trials.choice.npy")
        }


def test_hashes_come_where_they_are_known(made):
    made.make_tables("--hash-files")
    for each in read_all(made)[1]:
        assert {row.rel_path: row.hash for row in each.datasets} == {
            row.rel_path: md5((made.root / each.path / row.rel_path).read_bytes()).hexdigest() for row in each.datasets
        }


def test_some_sessions_are_read_as_they_are_among_all(made):
    generation, sessions = read_all(made)
    wanted = {each.eid: each.path for each in sessions[1:3]}
    found = read_some(made.out_dir, {**wanted, "00000000-0000-3000-8000-000000000000": "none"})
    assert found == (generation, {each.eid: each for each in sessions[1:3]})
    assert read_some(made.out_dir, {}) == (-1, {})


def test_a_dataset_without_a_file_does_not_count(made):
    """With `adopt.keep_missing`, the tables list datasets that only the database knows."""
    path = made.out_dir / "datasets.pqt"
    rows = pq.ParquetFile(path).read()
    there = [name.endswith("spikes.times.npy") for name in rows.column("rel_path").to_pylist()]
    place = rows.schema.get_field_index("exists")
    pq.write_table(rows.set_column(place, "exists", pa.array(there)), path)
    assert all([row.rel_path for row in each.datasets] == ["alf/spikes.times.npy"] for each in read_all(made)[1])


def test_tables_that_cannot_be_read_are_an_error(made):
    (made.out_dir / "datasets.pqt").write_bytes(b"PAR1")
    with pytest.raises(TablesError):
        read_some(made.out_dir, {"a": "b"})
    with pytest.raises(TablesError):
        read_all(made)
