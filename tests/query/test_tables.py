"""Tables on disk, of any program, as a question needs them."""

import random
import re
import struct
import threading
import time
import uuid
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import one
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.alf.patterns import DatasetPattern
from alfwatchd.errors import TablesError
from alfwatchd.query import tables as query_tables
from alfwatchd.query.conditions import Conditions
from alfwatchd.query.datasets import list_datasets
from alfwatchd.query.sessions import find_sessions
from alfwatchd.query.tables import find_origin, open_tables
from alfwatchd.store import reader
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.rules import TableRules
from kit.children import as_nobody, in_child, needs_root
from kit.lab import LAB, rewrite, without_generation, write_lab
from kit.tables import snapshot
from kit.trees import fast_folder

FIXTURES = Path(one.__file__).parent / "tests" / "fixtures"
"""Tables that an early ONE wrote: ids of two numbers."""
N_DAMAGES = 60


@pytest.fixture
def folder(tmp_path):
    return write_lab(tmp_path / "tables")


def counted(folder):
    """Return subject and number of each session with what is counted of it, in an order of its own."""
    with open_tables(folder) as tables:
        names = zip(tables.sessions["subject"].to_pylist(), tables.numbers.tolist(), strict=True)
        return sorted(zip(names, tables.count().tolist(), tables.count_bytes(), strict=True))


WHOLE = [(("NL-1", 1), 2, 11), (("NL-1", 2), 1, 2), (("NL-2", 1), 2, (1 << 53) + 3), (("SL", 1), 0, 0)]


def test_datasets_and_bytes_of_each_session(folder):
    found = counted(folder)
    assert found[:2] + found[3:] == WHOLE[:2] + WHOLE[3:]
    assert found[2][:2] == WHOLE[2][:2]
    assert abs(found[2][2] - WHOLE[2][2]) <= 2  # exact up to 2**53 bytes


def plain(table):
    """Give all dictionaries up, as ONE writes tables."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return table


def test_other_types_of_the_same_values_count_the_same(folder):
    """ONE and Alyx write tables, too: texts without dictionaries, dates as times, sizes as fractions."""
    expected = counted(folder)
    without_generation(folder)
    kinds = {"date": pa.timestamp("ns"), "number": pa.int64(), "id": pa.large_string()}

    def with_kinds(table):
        fields = [field.with_type(kinds.get(field.name, field.type)) for field in table.schema]
        return table.cast(pa.schema(fields))

    rewrite(folder, SESSIONS, with_kinds)
    rewrite(folder, DATASETS, lambda table: plain(table).set_column(
        1, "file_size", table["file_size"].cast(pa.float64(), safe=False)))  # fmt: skip
    assert counted(folder) == expected
    with open_tables(folder) as tables:
        assert tables.generation == 0


def test_what_other_tables_do_not_have_is_not_asked_of_them(folder):
    without_generation(folder)
    rewrite(folder, SESSIONS, lambda table: table.select(["id", "subject", "date", "number"]))
    rewrite(folder, DATASETS, lambda table: table.select(["eid", "rel_path"]))
    assert [(count, size) for _, count, size in counted(folder)] == [(2, 0), (1, 0), (2, 0), (0, 0)]


def test_a_dataset_that_is_not_here_does_not_count(folder):
    def leave_spikes_out(table):
        is_other = pc.invert(pc.match_substring(table["rel_path"], "spikes"))
        values = pc.if_else(is_other, is_other, pa.nulls(len(table), pa.bool_()))  # null: not known to be here
        return table.set_column(table.schema.get_field_index("exists"), "exists", values)

    rewrite(folder, DATASETS, leave_spikes_out)
    assert counted(folder) == [(("NL-1", 1), 1, 1), (("NL-1", 2), 1, 2), (("NL-2", 1), 1, 3), (("SL", 1), 0, 0)]
    with open_tables(folder) as tables:
        assert not tables.having(lambda path: "spikes" in path).any()


def test_a_path_that_occurs_often_is_looked_at_once(folder):
    seen = []
    with open_tables(folder) as tables:
        tables.having(lambda path: bool(seen.append(path)))
    assert sorted(seen) == sorted({path for datasets in LAB.values() for path in datasets})


def test_a_dictionary_that_names_a_text_twice_loses_no_row(folder):
    eid = pq.read_table(folder / DATASETS)["eid"].cast(pa.string()).combine_chunks()

    def name_twice(table):
        indices = pa.array(range(len(eid)), pa.int32())
        return table.set_column(
            table.schema.get_field_index("eid"), "eid", pa.DictionaryArray.from_arrays(indices, eid)
        )

    expected = counted(folder)
    rewrite(folder, DATASETS, name_twice)
    assert counted(folder) == expected


def test_datasets_without_a_session_count_for_none(folder):
    rewrite(folder, SESSIONS, lambda table: table.filter(pc.equal(table["subject"], "SL")))
    assert counted(folder) == [(("SL", 1), 0, 0)]


def test_ids_of_two_numbers_become_texts():
    with open_tables(FIXTURES) as tables:
        halves = pq.read_table(FIXTURES / SESSIONS, columns=["id_0", "id_1"]).to_pydict()
        expected = [str(uuid.UUID(bytes=struct.pack("<qq", *each))) for each in zip(*halves.values(), strict=True)]
        assert tables.eids.to_pylist() == expected
        assert tables.count().sum() == sum(pq.read_table(FIXTURES / DATASETS)["exists"].to_pylist())
        row = tables.datasets_of(expected[int(np.argmax(tables.count()))], ["id", "rel_path", "qc"])[0]
        assert row.keys() == {"id", "rel_path"}
        assert uuid.UUID(row["id"])


def test_a_size_that_is_no_number_counts_nothing(folder):
    expected = [(each, count, 0) for each, count, _ in counted(folder)]
    for size in (float("nan"), float("inf"), -5.0, None):
        rewrite(folder, DATASETS, lambda table, size=size: table.set_column(
            1, "file_size", pa.array([size] * len(table), pa.float64())))  # fmt: skip
        assert counted(folder) == expected


def test_a_day_that_python_cannot_tell_leaves_its_session_out(folder):
    rewrite(folder, SESSIONS, lambda table: table.set_column(
        2, "date", pa.array([3_000_000, -800_000, None, 0], pa.int32()).cast(pa.date32())))  # fmt: skip
    with open_tables(folder) as tables:
        assert [str(row.date) for row in find_sessions(tables, Conditions())] == ["1970-01-01"]


def test_damaged_files_give_an_error_that_says_so_or_an_answer(folder):
    """In a child: pyarrow ends the process where it is asked for the columns of some damaged footers."""
    whole = {name: (folder / name).read_bytes() for name in (SESSIONS, DATASETS)}
    chance = random.Random()

    def run():
        n_told = 0
        for _ in range(N_DAMAGES):
            for name, content in whole.items():
                damaged = bytearray(content)
                for _ in range(chance.choice((1, 3))):
                    damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
                (folder / name).write_bytes(damaged)
            try:
                with open_tables(folder) as tables:
                    conditions = Conditions(lacking=(DatasetPattern.parse("spikes.times"),))
                    for session in find_sessions(tables, conditions):
                        list_datasets(tables, session)
            except TablesError:
                n_told += 1
        return n_told

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query_tables, "PATIENCE_SECONDS", 0.0)
        assert in_child(run) > 0


def test_empty_tables_have_no_sessions(tmp_path):
    assert counted(write_lab(tmp_path, {})) == []


REFUSED = [
    (SESSIONS, lambda table: table.drop_columns(["id"]), "has no column id"),
    (DATASETS, lambda table: table.rename_columns([{"eid": "eid_0"}.get(name, name) for name in table.column_names]),
     "has no column eid"),
    (DATASETS, lambda table: table.append_column("eid", table["eid"]), "has no column eid"),
    (SESSIONS, lambda table: table.set_column(6, "id", pa.array([1] * len(table))), "its column id holds int64"),
    (SESSIONS, lambda table: table.set_column(2, "date", pa.array(["soon"] * len(table))), "is damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "says"), REFUSED, ids=[case[2] for case in REFUSED])
def test_tables_that_make_no_sense_are_refused_with_their_name(name, change, says, folder):
    without_generation(folder)
    rewrite(folder, name, change)
    with pytest.raises(TablesError, match=says) as error:
        counted(folder)
    assert str(folder / name) in str(error.value)


def test_tables_that_are_not_there_are_told(tmp_path):
    with pytest.raises(TablesError, match=r"sessions\.pqt: cannot be read"):
        counted(tmp_path)


@needs_root
def test_tables_that_may_not_be_read_are_told_with_who_may_not():
    def read():
        try:
            counted(folder)
        except TablesError as error:
            return str(error)

    with fast_folder() as folder:
        (write_lab(folder) / DATASETS).chmod(0)
        told = as_nobody(read)
    assert re.search(r"datasets\.pqt: cannot be read: Permission denied; let .*65534.* read it", told)


def test_damage_is_told_and_not_counted(folder):
    path = folder / DATASETS
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    with pytest.raises(TablesError, match="is damaged"):
        counted(folder)


def test_the_root_is_what_the_tables_tell(folder):
    assert str(find_origin(folder)) == "/data"
    without_generation(folder)
    assert find_origin(folder) is None


def test_two_tables_of_different_generations_are_read_once_they_match(tmp_path):
    """A flush is between its two files: the sessions are new, the datasets still old."""
    old, new = (write_lab(tmp_path / name) for name in ("old", "new"))
    write_lab(new, {})
    (old / SESSIONS).write_bytes((new / SESSIONS).read_bytes())
    with pytest.raises(TablesError, match="not of one generation"), reader.open_pair_of_any_program(old):
        pass
    opened = threading.Event()

    def finish():
        opened.wait(60)
        (new / DATASETS).rename(old / DATASETS)

    flusher = threading.Thread(target=finish)
    flusher.start()
    sleep, slept = time.sleep, []

    def sleep_and_go_on(seconds):
        slept.append(seconds)
        opened.set()
        sleep(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader.time, "sleep", sleep_and_go_on)
        with open_tables(old) as tables:
            assert (tables.generation, tables.n_sessions) == (2, 0)
    flusher.join()
    assert slept


def test_open_tables_stay_what_they_were_when_they_are_replaced(folder, tmp_path):
    with open_tables(folder) as tables:
        for name in (SESSIONS, DATASETS):
            (write_lab(write_lab(tmp_path / "new"), {}) / name).rename(folder / name)
        assert tables.n_sessions == len(LAB)
        assert np.sum(tables.count()) == sum(map(len, LAB.values()))


def test_a_pair_is_always_of_one_generation_while_the_writer_replaces_it(tmp_path):
    """Each generation has as many sessions as its number tells, and each session one dataset."""
    writer = TableWriter(tmp_path, "/data")

    def write(generation):
        writer.write(snapshot(ascii_lowercase[: 1 + generation % 5], generation, n_datasets=1), TableRules())

    def write_all():
        for generation in range(2, 12):
            write(generation)
        done.set()

    done = threading.Event()
    write(1)
    flusher = threading.Thread(target=write_all)
    flusher.start()
    seen = set()
    while True:
        is_last = done.is_set()
        with open_tables(tmp_path) as tables:
            seen.add(tables.generation)
            assert tables.count().tolist() == [1] * (1 + tables.generation % 5)
        if is_last:
            break
    flusher.join()
    assert 11 in seen
