"""Small files that would take all memory, the stack or the disk, at every door through which files of others come."""

import shutil
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd.alf.ids import md5
from alfwatchd.bounded_json import parse
from alfwatchd.database.sources import read_source
from alfwatchd.errors import AlfwatchdError
from alfwatchd.prune import operations
from alfwatchd.publish import archive, cache_info
from alfwatchd.publish.selection import Selection
from alfwatchd.store import layout, reader
from alfwatchd.store.changed_sessions import compare_tables, open_tables
from alfwatchd.store.id_history import NAME, find_id
from kit.children import in_child, peak_kb
from kit.database import FIXTURES

MOST_KB = 800_000
"""What reading may take in memory, beyond what the process has; each bomb takes gigabytes."""
DEEP = "[" * 100_000
NAMES = ("sessions.pqt", "datasets.pqt")


def repeated(text, n_rows):
    return pa.DictionaryArray.from_arrays(np.zeros(n_rows, np.int32), pa.array([text]))


def ids(n_rows):
    return repeated("2dc8fe1f-cbc9-4ae8-a1a8-b8bea6a8a8cf", n_rows)


BOMBS = {
    "rows of one text": (lambda: {"id": ids(20_000_000), "rel_path": repeated("alf/a.b.npy", 20_000_000)}, {}),
    "rows of one long text": (lambda: {"id": ids(900_000), "rel_path": repeated("a" * 100_000, 900_000)}, {}),
    "nulls": (lambda: {name: pa.nulls(60_000_000, pa.string()) for name in ("id", "rel_path", "hash")}, {}),
    "numbers": (lambda: {"id": ids(9_000_000), "file_size": np.zeros(9_000_000, np.uint64)}, {}),
    "a long text": (lambda: {"id": ["a" * (1 << 29)]}, {"use_dictionary": False, "write_statistics": False}),
    "columns": (lambda: {f"c{number}": np.zeros(900_000, np.int8) for number in range(600)} | {"id": ids(900_000)}, {}),
}


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    """Make each bomb once, with all columns that a reader may want."""
    folder = tmp_path_factory.mktemp("bombs")

    def make():
        for name, (columns, options) in BOMBS.items():
            made = dict(columns().items())
            table = pa.table(made)
            for missing in {"id", "eid", "rel_path", "lab", "subject", "date", "number", "file_size"} - set(made):
                table = table.append_column(missing, pa.nulls(len(table), pa.string()))
            pq.write_table(table, folder / name, compression="zstd", row_group_size=len(table), **options)
        return True

    assert in_child(make)
    return folder


def take_sessions(folder):
    return reader.read_sessions(folder)


def take_ids(folder):
    return reader.find_ids(folder, {"2dc8fe1f-cbc9-4ae8-a1a8-b8bea6a8a8cf"})


def compare(folder):
    other = folder / "other"
    other.mkdir()
    for name in NAMES:
        pq.write_table(pq.read_schema(folder / name).empty_table(), other / name)  # no row group is equal, and skipped
    with open_tables(folder) as old, open_tables(other) as new:
        return old and new and compare_tables(old, new)


def take_bundle(folder):
    with archive.open_bundle(folder, Selection()) as made:
        return made.content


def take_zip(folder):
    with zipfile.ZipFile(folder / "cache.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in NAMES:
            zipped.write(folder / name, name)
    return read_source(str(folder / "cache.zip"), None)


def take_changes(folder):
    shutil.copy(folder / "datasets.pqt", folder / NAME)
    return find_id(folder, folder, "2dc8fe1f-cbc9-4ae8-a1a8-b8bea6a8a8cf")


DOORS = {
    "output folder": reader.read_tables,
    "its sessions": take_sessions,
    "its ids": take_ids,
    "its changes": compare,
    "publication": take_bundle,
    "source": lambda folder: read_source(str(folder), None),
    "zip file": take_zip,
    "prune": operations.read_reference,
    "id changes": take_changes,
}


@pytest.mark.heavy
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("bomb", BOMBS)
def test_no_file_takes_all_memory(bombs, tmp_path, monkeypatch, bomb, door):
    monkeypatch.setattr(archive, "PATIENCE_SECONDS", 0.0)
    for name in NAMES:
        shutil.copy(bombs / bomb, tmp_path / name)

    def run():
        before = peak_kb()
        try:
            door(tmp_path)
        except AlfwatchdError as error:
            return str(error), peak_kb() - before
        return "", peak_kb() - before

    said, taken = in_child(run)
    assert taken < MOST_KB
    assert "Traceback" not in said


def test_lists_are_not_read(tmp_path):
    """One row may have a list of any length."""
    table = pa.table({"id": ["a"], "more": [[1, 2, 3]], "lab": ["b"]})
    pq.write_table(table, tmp_path / "sessions.pqt")
    assert reader.read_sessions(tmp_path).column_names == ["id", "lab"]


def test_types_and_texts_are_those_of_the_file(tmp_path):
    table = pa.table(
        {
            "text": ["a", None, "b"],
            "large": pa.array(["a", "b", None], pa.large_string()),
            "category": pa.array(["a", "b", "a"]).dictionary_encode(),
            "number": [1.5, None, 2.5],
            "bytes": [b"a", b"b", None],
        }
    )
    pq.write_table(table, tmp_path / "sessions.pqt")
    assert reader.read_sessions(tmp_path) == table


# JSON.

JSON_BOMBS = {"deep": DEEP, "deep in an object": '{"a":' * 50_000, "long": "[" + "[]," * (1 << 21) + "[]]"}


@pytest.mark.parametrize("text", JSON_BOMBS.values(), ids=JSON_BOMBS)
def test_json_of_others_is_bounded(text):
    with pytest.raises(ValueError, match="JSON"):
        parse(text)
    with pytest.raises(ValueError, match="JSON"):
        parse(text.encode())
    assert cache_info.parse_info(text.encode()) == {}


@pytest.mark.parametrize("text", JSON_BOMBS.values(), ids=JSON_BOMBS)
@pytest.mark.parametrize("key", [b"one_metadata", reader.METADATA_KEY])
def test_footers_may_hold_any_json(tmp_path, monkeypatch, key, text):
    monkeypatch.setattr(archive, "PATIENCE_SECONDS", 0.0)
    own = {reader.METADATA_KEY: b'{"generation": 1}'}
    for name in NAMES:
        table = pq.read_table(FIXTURES / name).replace_schema_metadata({**own, key: text.encode()})
        pq.write_table(table, tmp_path / name)
    assert reader.read_created(tmp_path) == ""
    assert reader.read_generation(tmp_path)[0] == (0 if key == reader.METADATA_KEY else 1)
    assert reader.read_tables(tmp_path) is not None
    with pytest.raises(AlfwatchdError), archive.open_bundle(tmp_path, Selection()):
        pass


HEADS = [DEEP, "{}", "[]", "null", '{"made_for": {}}', '{"made_for": {}, "sessions": [], "datasets": 1, "groups": 1}',
         '{"made_for": {}, "sessions": {"a": "b"}, "datasets": {}, "groups": {}, "n_bits": 1}',
         '{"made_for": {}, "sessions": {}, "datasets": {}, "groups": {"a": [[1, 2, 3, 4]]}, "n_bits": 1}']  # fmt: skip


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head[:20])
def test_a_layout_that_anybody_made_is_no_layout(tmp_path, head):
    body = f"{head}\nrest".encode()
    (tmp_path / "layout").write_bytes(layout.MAGIC + md5(body).digest() + body)
    assert layout.load_layout(tmp_path / "layout", {}) is None
