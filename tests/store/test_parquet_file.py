"""Row groups replaced one by one: whatever was replaced in whatever order, the file is the one a plain writer makes."""

import math
import os
import random
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd.store import parquet_file
from alfwatchd.store.parquet import open_checked
from alfwatchd.store.parquet_file import Group, GroupedFile, spans_of

SCHEMA = pa.schema([("name", pa.string()), ("size", pa.uint64())])


def group(rng, n_rows):
    rows = {"name": [f"{rng.random()}" for _ in range(n_rows)], "size": [rng.randrange(10**9) for _ in range(n_rows)]}
    return pa.table(rows, SCHEMA)


class File:
    """A grouped file that is renamed into place as the writer does, and what it should hold."""

    def __init__(self, folder):
        self.path = folder / "datasets.pqt"
        self.grouped = GroupedFile(self.path)
        self.expected = {}
        self.version = 0
        self.is_read = False
        self.clock = time

    def write(self, tables):
        self.version += 1
        self.expected = {key: table for key, table in {**self.expected, **tables}.items() if len(table)}
        target = self.path.with_suffix(".tmp")
        last_opened = self.clock.monotonic() if self.is_read else -math.inf
        self.grouped.write(target, SCHEMA.with_metadata({"version": str(self.version)}), tables.items(), last_opened)
        os.utime(target, (self.clock.time(),) * 2)
        os.replace(target, self.path)
        self.grouped.commit()

    def move(self, tables):
        """Write as the writer does, which moves what it is told to."""
        moved = self.grouped.to_move(tables)
        assert len(moved) <= len(tables)
        assert not moved & tables.keys()
        self.write({**tables, **{key: self.expected[key] for key in moved}})

    @property
    def size(self):
        return self.path.stat().st_size

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
    fresh = file.size
    for number in range(100):
        file.write({number % 10: group(rng, 500)})
    file.check()
    assert file.size < 1.3 * fresh


def test_during_a_read_holes_are_not_used_but_the_file_does_not_grow_without_end(file, monkeypatch, clock):
    monkeypatch.setattr(parquet_file, "KEPT_ANYWAY_BYTES", 0)
    rng = random.Random(1)
    file.clock, file.is_read, began = clock, True, clock.now
    file.write({key: group(rng, 500) for key in range(4)})
    fresh, largest = file.size, 0
    for _ in range(10):
        file.write({key: group(rng, 500) for key in range(4)})
        largest = max(largest, file.size)
    file.check()
    assert 3 < largest / fresh < 4.5
    assert clock.now >= began + parquet_file.READING_SECONDS, "it has waited"


@pytest.mark.parametrize("is_read", [False, True])
def test_a_file_that_is_mostly_holes_shrinks_with_each_change(file, is_read, monkeypatch):
    monkeypatch.setattr(parquet_file, "NO_WASTE_BYTES", 0)
    monkeypatch.setattr(parquet_file, "READING_SECONDS", 0.0)
    rng = random.Random(2)
    file.is_read = is_read
    file.write({key: group(rng, 1000) for key in range(20)})
    fresh = file.size
    file.move({key: group(rng, 1000) for key in range(20)})
    assert file.size > 1.9 * fresh, "readers of the version before find theirs"
    sizes = [file.size]
    for number in range(12):
        file.move({number: group(rng, 1000)})
        file.check()
        sizes.append(file.size)
    assert sizes[-1] < 1.3 * fresh
    assert not file.grouped.to_move(())


def test_what_costs_nothing_moves_nothing(file, monkeypatch):
    monkeypatch.setattr(parquet_file, "NO_WASTE_BYTES", 0)
    rng = random.Random(2)
    file.write({key: group(rng, 100) for key in range(10)})
    assert file.grouped.to_move({1}) == set()
    file.write({key: group(rng, 0) for key in range(9)})
    assert file.grouped.to_move(()) == set()
    assert file.grouped.to_move({9}) == set()


@pytest.mark.parametrize("replaced", [(), (1, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("is_known", [False, True])
def test_a_reader_that_knows_the_old_footer_finds_the_old_rows_in_the_next_version(file, replaced, is_known):
    # `pyarrow.parquet.read_table`, which ONE uses, opens a file twice: once for its footer, once for its rows.
    rng = random.Random(3)
    file.write({key: group(rng, 300) for key in range(4)})
    file.write({2: group(rng, 200)})
    old_footer, old_rows = pq.read_metadata(file.path), pq.read_table(file.path)
    tables = {key: group(rng, 100) for key in replaced}
    if not is_known:
        file.grouped = GroupedFile(file.path)
        tables = {**file.expected, **tables}
    file.write(tables)
    assert read_as(old_footer, file.path).equals(old_rows)
    file.check()


def read_as(footer, path):
    """Read rows as a program does that has read the footer before."""
    with path.open("rb") as file:
        return pq.ParquetFile(file, metadata=footer).read()


class Clock:
    """The two clocks of `grouped`, which go on only where they are told to, or where somebody sleeps."""

    def __init__(self):
        self.now = 1e9

    def sleep(self, seconds):
        self.now += seconds

    def monotonic(self):
        return self.now

    time = monotonic


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(parquet_file, "time", made)
    return made


@pytest.mark.parametrize("pause_seconds", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_reader_finds_its_rows_for_as_long_as_it_may_take(file, seed, pause_seconds, clock):
    rng = random.Random(seed)
    file.clock, file.is_read = clock, True
    file.write({key: group(rng, 50) for key in range(8)})
    seen = []
    for _ in range(40):
        seen.append((clock.now, pq.read_metadata(file.path), pq.read_table(file.path)))
        clock.sleep(rng.uniform(0, pause_seconds))
        match rng.randrange(6):
            case 0:
                file.grouped.forget()
                file.write({**file.expected, 0: group(rng, 10)})
            case 1:
                groups, file.grouped = file.grouped.groups, GroupedFile(file.path)
                file.grouped.resume(groups)
                file.move({1: group(rng, 50)})
            case _:
                file.move({key: group(rng, rng.choice([0, 20, 50])) for key in rng.sample(range(8), 3)})
        for when, footer, rows in seen:
            if clock.now < when + parquet_file.READING_SECONDS:
                assert read_as(footer, file.path).equals(rows)
    file.check()


def test_a_file_that_another_program_wrote_is_kept_for_its_readers(file):
    rng = random.Random(6)
    pq.write_table(group(rng, 3000), file.path, row_group_size=1000)
    footer, rows = pq.read_metadata(file.path), pq.read_table(file.path)
    file.write({0: group(rng, 10)})
    assert read_as(footer, file.path).equals(rows)
    file.check()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 is how it begins and ends PAR1", b"x" * 1000])
def test_a_file_that_is_no_table_is_not_kept(file, content):
    file.path.write_bytes(content)
    file.write({0: group(random.Random(7), 10)})
    file.check()
    assert file.grouped.groups[0].span.start == len(b"PAR1")


def test_a_file_of_any_size_is_not_kept(file):
    """A sparse file takes no room; a copy of it would take all that there is."""
    with file.path.open("wb") as foreign:
        foreign.truncate(1 << 42)
        foreign.seek(0, 2)
        foreign.write(bytes(4) + b"PAR1")
    with file.path.open("rb") as foreign:
        assert parquet_file.spans_of(foreign) == []


def test_a_file_that_is_not_what_it_was_is_an_error_and_forgets_nothing(file):
    rng = random.Random(4)
    file.write({key: group(rng, 300) for key in range(4)})
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:100])
    with pytest.raises(OSError, match="shorter than it should be"):
        file.grouped.write(file.path.with_suffix(".tmp"), SCHEMA, [(0, group(rng, 1))], 0.0)
    file.path.write_bytes(whole)
    with pytest.raises(OSError, match="another program writes to it"):
        file.grouped.write(file.path.with_suffix(".tmp"), SCHEMA, [(0, group(rng, 1))], 0.0, (1, 2, 3))
    file.write({0: group(rng, 1)})
    file.check()


def test_no_rows_at_all(file):
    file.write({})
    file.check()
    file.write({0: group(random.Random(5), 0)})
    file.check()


IDS = pa.schema([("eid", pa.dictionary(pa.int32(), pa.string())), ("id", pa.dictionary(pa.int32(), pa.string()))])


def ids(*rows):
    eids, own = (pa.array(column).dictionary_encode() for column in zip(*rows, strict=True))
    return pa.table([eids, own], schema=IDS)


def test_ids_are_dictionaries_to_readers_and_not_on_disk_whichever_version_wrote_their_row_group(tmp_path):
    """An earlier version wrote dictionaries of ids, too; a new one goes on with its row groups."""
    path, old, new = tmp_path / "datasets.pqt", ids(("e1", "a"), ("e1", "b")), ids(("e2", "c"), ("e2", "d"))
    pq.write_table(old, path, compression="zstd")
    packed = pa.BufferOutputStream()
    pq.read_metadata(path).write_metadata_file(packed)
    with path.open("rb") as file:
        (span,) = spans_of(file)
    grouped = GroupedFile(path)
    grouped.resume({0: Group.unpack(span, packed.getvalue().to_pybytes())})
    grouped.write(tmp_path / "new", IDS, [(1, new)], -math.inf)
    os.replace(tmp_path / "new", path)
    grouped.commit()

    with pq.ParquetFile(path) as file:
        assert file.schema_arrow == IDS
        columns = [file.metadata.row_group(number).column(place) for number in range(2) for place in range(2)]
        assert [column.has_dictionary_page for column in columns] == [True, True, True, False]
        assert all(column.is_stats_set for column in columns)
        found = file.read()
    with open_checked(path) as file:
        checked = file.read()
    for table in (found, checked):
        assert table.schema == IDS
        assert table.to_pydict() == {"eid": ["e1", "e1", "e2", "e2"], "id": ["a", "b", "c", "d"]}
