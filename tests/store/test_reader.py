"""Tables that are damaged, of any origin, are told as such."""

import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.alf.ids import NAMESPACE
from alfwatchd.errors import TablesError
from alfwatchd.store import reader
from alfwatchd.store.changed_sessions import compare_tables, open_tables
from alfwatchd.store.parquet_file import GroupedFile
from alfwatchd.tables import carry_over
from kit.children import in_child
from kit.program import make_small_tree
from kit.trees import fast_folder
from kit.truth import index

N_DAMAGES = 500
READERS = (reader.read_generation, reader.read_sessions, reader.read_sessions_alone, reader.read_created)


@pytest.fixture
def tables():
    with fast_folder() as folder:
        make_small_tree(folder / "root")
        index(folder / "root", folder)
        yield folder


def damage(path, chance):
    """Change some bytes, most of them near the end, where the footer is."""
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 2, 5))):
        place = chance.randrange(len(content))
        content[-1 - place // chance.choice((1, 4, 10))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def test_reading_damaged_tables_ends_in_nothing_or_in_an_error_that_says_so(tables):
    whole = {name: (tables / name).read_bytes() for name in (SESSIONS, DATASETS)}
    chance = random.Random()
    for _ in range(N_DAMAGES):
        for name, content in whole.items():
            (tables / name).write_bytes(content)
            damage(tables / name, chance)
        for read in READERS:
            read(tables)
        reader.read_session_ids(tables / SESSIONS)
        with open_tables(tables) as found:
            if found is not None:
                compare_tables(found, found)
        try:
            found = reader.read_tables(tables)
        except TablesError:
            continue
        carry_over.carry_over(found.sessions, found.datasets, NAMESPACE, "")


def test_a_column_whose_name_is_no_text_is_damage(tables):
    path = tables / SESSIONS
    path.write_bytes(path.read_bytes().replace(b"projects", b"\xf0rojects"))
    with pytest.raises((OSError, pa.ArrowException)):
        reader.read_file(path)
    assert reader.read_sessions(tables) is None
    assert reader.read_session_ids(path) == frozenset()


def test_damage_within_a_page_is_no_row(tables):
    path = tables / SESSIONS
    pages = pq.ParquetFile(path).metadata.row_group(0).column(0)
    content = bytearray(path.read_bytes())
    content[(pages.dictionary_page_offset or pages.data_page_offset) + pages.total_compressed_size - 2] ^= 1
    path.write_bytes(content)
    with pytest.raises((OSError, pa.ArrowException)):
        reader.read_file(path)


def test_tables_are_written_over_damaged_ones(tables):
    """In a child: pyarrow 26 ends the process where it is asked for the columns of some damaged footers."""
    whole = (tables / SESSIONS).read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    chance = random.Random()

    def run():
        for _ in range(N_DAMAGES):
            content = bytearray(whole)
            content[-1 - chance.randrange(footer)] ^= 1 << chance.randrange(8)
            (tables / SESSIONS).write_bytes(content)
            file = GroupedFile(tables / SESSIONS)
            file.write(
                tables / "new", pa.schema([("a", pa.int8())]), [(0, pa.table({"a": pa.array([1], pa.int8())}))], 0.0
            )
            assert reader.read_file(tables / "new")["a"].to_pylist() == [1]
        return True

    assert in_child(run)


def test_a_footer_for_which_pyarrow_ends_the_process_is_not_shown_to_it(tables):
    def run():
        shutil.copy(Path(__file__).parent.parent / "data/damaged_footer.pqt", tables / SESSIONS)
        file = GroupedFile(tables / SESSIONS)
        file.write(tables / "new", pa.schema([("a", pa.int8())]), [(0, pa.table({"a": pa.array([1], pa.int8())}))], 0.0)
        return reader.read_sessions(tables) is None, reader.read_file(tables / "new")["a"].to_pylist()

    assert in_child(run) == (True, [1])
