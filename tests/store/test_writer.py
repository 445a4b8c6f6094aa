"""The two files on disk: each dataset row has its session, and a disk that fails costs no row."""

import datetime
import errno
import json
import os
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from one.alf.cache import load_tables
from one.api import One

from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.errors import TablesError
from alfwatchd.store.reader import (
    METADATA_KEY,
    read_generation,
    read_sessions,
    read_tables,
)
from alfwatchd.store.writer import TableWriter
from alfwatchd.tables.columns import datasets_table, sessions_table
from alfwatchd.tables.earlier import EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.rules import TableRules
from kit.children import mount_tmpfs, needs_root, with_own_mounts
from kit.rows import earlier
from kit.tables import (
    closed_folder,
    contents,
    generation_of,
    open_files,
    read_file,
    snapshot,
    subjects,
)

pytestmark = pytest.mark.usefixtures("no_readers")


@pytest.fixture
def out_dir():
    with closed_folder() as folder:
        yield folder


# What is in the files.


def test_one_opens_what_was_written(out_dir):
    TableWriter(out_dir, "/data/root").write(snapshot("st", 3), TableRules())
    cache = load_tables(out_dir)
    assert (len(cache.sessions), len(cache.datasets)) == (2, 4)
    assert cache["_meta"]["raw"]["sessions"]["origin"] == {"/data/root"}
    assert len(One(cache_dir=out_dir, mode="local").search(subject="s")) == 1


def test_a_damaged_column_of_sessions_holds_up_no_flush(out_dir):
    """It is read where some sessions go and others come: readers of the old datasets still need the old sessions."""
    TableWriter(out_dir, "/data/root").write(snapshot("ab"), TableRules())
    path = out_dir / SESSIONS
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
        columns = {group.column(number).path_in_schema: group.column(number) for number in range(group.num_columns)}
        place = columns["projects"].data_page_offset
    content = path.read_bytes()
    path.write_bytes(content[:place] + b"\x0e" * 8 + content[place + 8 :])
    with pytest.raises(OSError, match="thrift"):
        read_file(path)
    TableWriter(out_dir, "/data/root").write(snapshot("bc", 2), TableRules())
    assert subjects(out_dir) == "bc"


@pytest.mark.parametrize("n_checks", range(4))
def test_what_was_mounted_over_the_folder_gets_no_table(out_dir, n_checks):
    """Before each file is written, and before it goes in place, the folder must be the one that is locked."""
    checks = iter([True] * n_checks)

    def check():
        if not next(checks, False):
            raise OSError(errno.ESTALE, "another folder is there now", str(out_dir))

    table_writer = TableWriter(out_dir, "/data/root", check_folder=check)
    with pytest.raises(TablesError, match="another folder is there now"):
        table_writer.write(snapshot("s", 3), TableRules())
    assert os.listdir(out_dir) == ([SESSIONS] if n_checks >= 2 else [])


def test_metadata(out_dir):
    known = KnownColumns.of(earlier({"s/2020-01-01/001": EarlierSession(None, "", "p")}, {}))
    for number, rules in enumerate((TableRules(), TableRules(lab="lab", with_hashes=True, known=known)), 1):
        TableWriter(out_dir, "/data/root").write(snapshot("s", 3), rules)
        for name in (SESSIONS, DATASETS):
            metadata = pq.read_metadata(out_dir / name).metadata
            one = json.loads(metadata[b"one_metadata"])
            assert one.keys() == {"date_created", "origin"}
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", one["date_created"])
            assert one["origin"] == "/data/root"
            own = json.loads(metadata[METADATA_KEY])
            age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(own.pop("written_at"))
            assert abs(age) < datetime.timedelta(minutes=10)
            assert own == {
                "generation": number,
                "journal": "",
                "namespace": str(rules.namespace),
                "lab": rules.lab,
                "with_hashes": rules.with_hashes,
                "ids_with_lab": True,
                "has_kept": rules.known is known,
                "adopted": "",
                "keep_missing": False,
            }
            assert b"pandas" in metadata


def test_tables_tell_when_their_walk_began(out_dir):
    began = datetime.datetime(2024, 5, 6, 9, 8, 7, 654321, datetime.timezone(datetime.timedelta(hours=2)))
    TableWriter(out_dir, "/data").write(snapshot("s", 3), TableRules(), began)
    for name in (SESSIONS, DATASETS):
        assert json.loads(pq.read_metadata(out_dir / name).metadata[METADATA_KEY])["written_at"] == (
            "2024-05-06T07:08:07+00:00"
        )


def test_what_is_read_is_what_was_written(out_dir):
    rules = TableRules(lab="lab")
    TableWriter(out_dir, "/data").write(snapshot("st", 5), rules)
    stored = read_tables(out_dir)
    assert stored.sessions.equals(sessions_table(snapshot("st"), rules))
    written = datasets_table(snapshot("st"), rules)
    assert read_file(out_dir / DATASETS).cast(written.schema).equals(written)  # before 20, pyarrow makes int8 int32
    assert stored.datasets.to_pylist() == written.to_pylist()
    assert (stored.datasets.schema.field("eid").type, stored.datasets.schema.field("id").type) == (pa.string(),) * 2
    assert (stored.generation, stored.metadata["lab"]) == (1, "lab")
    assert stored.modified == (out_dir / DATASETS).stat().st_mtime
    assert read_generation(out_dir) == (1, stored.metadata)
    assert read_sessions(out_dir).equals(stored.sessions)


def test_both_files_have_the_same_generation_at_rest(out_dir):
    table_writer = TableWriter(out_dir, "/data")
    for generation, present in enumerate(["s", "st", "t", "uv", ""], 1):
        table_writer.write(snapshot(present, generation), TableRules())
        found = {generation_of(out_dir / name) for name in (SESSIONS, DATASETS)}
        assert (found, subjects(out_dir)) == ({generation}, present)


# Disks that fail.


def test_a_file_that_cannot_be_replaced_is_told(out_dir):
    (out_dir / SESSIONS).mkdir()
    (out_dir / SESSIONS / "x").touch()
    with pytest.raises(TablesError, match="could not be written"):
        TableWriter(out_dir, "/data").write(snapshot("s"), TableRules())
    assert [path.name for path in out_dir.iterdir()] == [SESSIONS]


@needs_root
def test_a_full_disk_keeps_what_is_there(out_dir):
    def run():
        place = out_dir / "disk"
        place.mkdir()
        mount_tmpfs(place, "size=256k")
        table_writer = TableWriter(place, "/data")
        table_writer.write(snapshot("s", 1), TableRules())
        before = contents(place)
        with (place / "ballast").open("wb", buffering=0) as ballast:
            try:
                while ballast.write(bytes(4096)):
                    pass
            except OSError as error:
                full = str(error)
        messages = []
        for _ in range(3):
            try:
                table_writer.write(snapshot("st", 2, n_datasets=3000), TableRules())
            except TablesError as error:
                messages.append(str(error))
        after = contents(place)
        (place / "ballast").unlink()
        n_leaked = sum(path.startswith(str(place)) for path in open_files())
        table_writer.write(snapshot("st", 2, n_datasets=10), TableRules())
        return full, messages, before, after, n_leaked, subjects(place), sorted(os.listdir(place))

    full, messages, before, after, n_leaked, found, names = with_own_mounts(run)
    assert "No space left" in full
    assert len(messages) == 3
    assert all("No space left on device" in message for message in messages)
    assert after.keys() == before.keys() | {"ballast"}
    assert {name: after[name] for name in before} == before
    assert (n_leaked, found, names) == (0, "st", [DATASETS, SESSIONS])
