"""Row groups replaced one by one: whatever was replaced in whatever order, the file is the one a plain writer makes."""

import os
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd.grouped import GroupedFile

SCHEMA = pa.schema([("name", pa.string()), ("size", pa.uint64())])


def group(rng, n_rows):
    rows = {"name": [f"{rng.random()}" for _ in range(n_rows)], "size": [rng.randrange(10**9) for _ in range(n_rows)]}
    return pa.table(rows, SCHEMA)


class File:
    """A grouped file that is renamed into place as the store does, and what it should hold."""

    def __init__(self, folder):
        self.path = folder / "datasets.pqt"
        self.grouped = GroupedFile(self.path)
        self.expected = {}
        self.version = 0

    def write(self, tables):
        self.version += 1
        self.expected = {key: table for key, table in {**self.expected, **tables}.items() if len(table)}
        target = self.path.with_suffix(".tmp")
        self.grouped.write(target, SCHEMA.with_metadata({"version": str(self.version)}), tables.items())
        os.replace(target, self.path)

    def check(self):
        found = pq.read_table(self.path)
        assert found.schema.metadata == {b"version": str(self.version).encode()}
        tables = [self.expected[key] for key in sorted(self.expected)]
        expected = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
        assert found.replace_schema_metadata(None).equals(expected)
        assert pq.read_metadata(self.path).num_row_groups == len(tables)
        assert set(self.grouped.groups) == set(self.expected)


@pytest.fixture
def file(tmp_path):
    return File(tmp_path)


@pytest.mark.parametrize("seed", range(5))
def test_any_replacements_give_the_whole_table(file, seed):
    rng = random.Random(seed)
    for _ in range(60):
        keys = rng.sample(range(12), rng.randrange(4))
        file.write({key: group(rng, rng.choice([0, 1, 5, 50, 500])) for key in keys})
        file.check()


def test_holes_are_used_again(file):
    rng = random.Random(1)
    file.write({key: group(rng, 500) for key in range(10)})
    fresh = file.path.stat().st_size
    for number in range(100):
        file.write({number % 10: group(rng, 500)})
    file.check()
    assert file.path.stat().st_size < 1.3 * fresh


@pytest.mark.parametrize(
    ("n_rows", "replaced", "expected"),
    [
        (10_000, {0}, False),
        (10_000, set(range(10)), True),
        (10_000, {99}, False),
        (10_000, set(), False),
        (100, set(range(10)), False),  # a small file
    ],
)
def test_too_much_waste_is_foreseen(file, n_rows, replaced, expected):
    rng = random.Random(2)
    file.write({key: group(rng, n_rows) for key in range(10)})
    fresh = file.path.stat().st_size
    assert file.grouped.would_waste(replaced) is expected
    file.write({key: group(rng, n_rows) for key in replaced})
    assert (file.path.stat().st_size > 1.2 * fresh + (1 << 19)) is expected
    file.check()


def test_a_file_that_shrank_a_lot_is_wasteful_until_it_is_written_anew(file):
    rng = random.Random(2)
    file.write({key: group(rng, 10_000) for key in range(10)})
    file.write({key: group(rng, 0) for key in range(9)})
    file.check()
    assert file.grouped.would_waste(())
    file.grouped.groups = {}
    file.write(dict(file.expected))
    file.check()
    assert not file.grouped.would_waste(())


@pytest.mark.parametrize("replaced", [(), (1, 3), (0, 1, 2, 3)])
def test_a_reader_that_knows_the_old_footer_finds_the_old_rows_in_the_next_version(file, replaced):
    # `pyarrow.parquet.read_table`, which ONE uses, opens a file twice: once for its footer, once for its rows.
    rng = random.Random(3)
    file.write({key: group(rng, 300) for key in range(4)})
    file.write({2: group(rng, 200)})
    old_footer, old_rows = pq.read_metadata(file.path), pq.read_table(file.path)
    file.write({key: group(rng, 100) for key in replaced})
    with file.path.open("rb") as new_version:
        found = pq.ParquetFile(new_version, metadata=old_footer).read()
    assert found.equals(old_rows)


def test_a_file_that_is_not_what_it_was_is_an_error_and_forgets_nothing(file):
    rng = random.Random(4)
    file.write({key: group(rng, 300) for key in range(4)})
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:100])
    with pytest.raises(OSError, match="shorter than it should be"):
        file.grouped.write(file.path.with_suffix(".tmp"), SCHEMA, [(0, group(rng, 1))])
    file.path.write_bytes(whole)
    file.write({0: group(rng, 1)})
    file.check()


def test_no_rows_at_all(file):
    file.write({})
    file.check()
    file.write({0: group(random.Random(5), 0)})
    file.check()
