"""Where the tables of a database are read from: whole, and again only when they have changed."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import one
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alfwatchd.database import source_tables, sources, web_source
from alfwatchd.database.sources import read_source
from alfwatchd.errors import SourceError
from kit.web import web_server

FIXTURES = Path(one.__file__).parent / "tests" / "fixtures"
NAMES = ("sessions.pqt", "datasets.pqt")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    for module in (sources, web_source):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def folder(tmp_path):
    """A folder with the tables of ONE-api."""
    made = tmp_path / "source"
    made.mkdir()
    for name in NAMES:
        shutil.copy(FIXTURES / name, made)
    return made


def zipped(folder, **more):
    """The tables in a folder as Alyx publishes them, with what else it puts there."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in NAMES:
            packed.write(folder / name, name)
        packed.writestr("cache_info.json", '{"date_created": "2021-05-13 20:38"}')
        for name, text in more.items():
            packed.writestr(name, text)
    return content.getvalue()


def change(folder):
    """Replace the sessions by others, with one row less."""
    table = pq.read_table(folder / "sessions.pqt")
    pq.write_table(table.slice(1), folder / "new")
    (folder / "new").replace(folder / "sessions.pqt")


def assert_is_fixture(found):
    """All rows and columns are there, whatever they came through."""
    for table, name in zip((found.sessions, found.datasets), NAMES, strict=True):
        expected = pq.read_table(FIXTURES / name).replace_schema_metadata(None)
        assert table.select(expected.column_names).equals(expected)


def seen_again(found, source):
    """What a later process, which has the mark from a file, reads."""
    return read_source(source, json.loads(json.dumps(found.version)))


@pytest.mark.parametrize(
    "form", ["folder", "zip", "folder with zip", "web zip", "web folder", "web tables", "web info"]
)
def test_each_form_of_source_gives_the_tables_once_and_again_when_they_change(folder, tmp_path, form):
    place = tmp_path / "place"
    place.mkdir()
    with web_server() as web:
        prefix = "/tables/cache.zip" if form != "web info" else "/far/away.zip"

        def put():
            match form.split():
                case ["folder"]:
                    return str(folder)
                case [*_, "zip"] if "web" not in form:
                    file = place / ("cache.zip" if "with" in form else "any.zip")
                    (place / "new").write_bytes(zipped(folder))
                    (place / "new").replace(file)
                    return str(place if "with" in form else file)
                case [_, "tables"]:
                    web.files |= {f"/tables/{name}": (folder / name).read_bytes() for name in NAMES}
                case _:
                    web.files[prefix] = zipped(folder)
            if form == "web info":
                web.files["/tables/cache_info.json"] = json.dumps({"location": f"{web.address}{prefix}"}).encode()
            return f"{web.address}/tables" + ("/cache.zip" if form == "web zip" else "/")

        source = put()
        found = read_source(source, None)
        assert_is_fixture(found)
        assert seen_again(found, source) is None
        assert 200 not in web.sent[-1:]  # nothing was fetched in vain
        change(folder)
        put()
        newer = seen_again(found, source)
        assert len(newer.sessions) == len(found.sessions) - 1
        assert newer.datasets.equals(found.datasets)
        assert newer.version != found.version
        assert seen_again(newer, source) is None


def test_only_the_columns_that_are_wanted_are_read_and_categories_are_texts(folder):
    table = pq.read_table(folder / "datasets.pqt")
    qc = pa.array(["PASS"] * len(table)).dictionary_encode()
    table = (
        table.append_column("qc", qc).append_column("exists_aws", qc).append_column("default_revision", table["exists"])
    )
    pq.write_table(table, folder / "datasets.pqt")
    found = read_source(str(folder), None)
    assert found.datasets.schema.field("qc").type == pa.string()
    assert "exists_aws" not in found.datasets.column_names
    assert found.datasets["default_revision"].equals(table["default_revision"])
    assert found.origin == f"{folder}/sessions.pqt, {folder}/datasets.pqt"


def test_a_version_of_another_source_counts_for_nothing(folder, tmp_path):
    found = read_source(str(folder), None)
    shutil.copytree(folder, tmp_path / "other", copy_function=os.link)
    assert read_source(str(tmp_path / "other"), found.version) is not None


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "datasets.pqt").unlink(), "datasets.pqt: is not there"),
        (shutil.rmtree, "is not there; check adopt.source"),
        (lambda folder: (folder / "sessions.pqt").write_bytes(b""), "sessions.pqt: is damaged"),
        (lambda folder: os.truncate(folder / "datasets.pqt", 9000), "datasets.pqt: is damaged"),
        (
            lambda folder: shutil.copy(folder / "sessions.pqt", folder / "datasets.pqt"),
            "lacks rel_path, eid: this is not a table",
        ),
        (lambda folder: shutil.copy(folder / "datasets.pqt", folder / "sessions.pqt"), "lacks lab, subject, date, num"),
        (
            lambda folder: pq.write_table(pq.read_table(folder / "sessions.pqt").slice(0, 0), folder / "sessions.pqt"),
            "holds no sessions",
        ),
        (lambda folder: ((folder / "sessions.pqt").unlink(), os.mkfifo(folder / "sessions.pqt")), "no regular file"),
        # What would be read as a table in which no session is known.
        (lambda folder: _retype(folder / "sessions.pqt", "date", pa.string()), "column date holds string"),
        (lambda folder: _retype(folder / "sessions.pqt", "number", pa.string()), "column number holds string"),
        (lambda folder: _retype(folder / "datasets.pqt", "rel_path", pa.binary()), "column rel_path holds binary"),
        (lambda folder: _retype(folder / "datasets.pqt", "file_size", pa.string()), "column file_size holds string"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(folder, spoil, says):
    spoil(folder)
    with pytest.raises(SourceError, match=says):
        read_source(str(folder), None)


def _retype(path, name, kind):
    table = pq.read_table(path)
    place, column = table.column_names.index(name), table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    pq.write_table(table.set_column(place, name, column.cast(kind)), path)


def test_a_column_of_no_numbers_is_one_without_values(folder):
    # What pandas makes of texts of which there are none.
    table = pq.read_table(folder / "sessions.pqt")
    nothing = pa.array([float("nan")] * len(table))
    name = "task_protocol"
    place = table.column_names.index(name)
    pq.write_table(table.set_column(place, name, nothing), folder / "sessions.pqt")
    assert read_source(str(folder), None).sessions.column(name).null_count == len(table)


def test_flipped_bits_are_found_where_the_writer_made_checksums(folder):
    pq.write_table(pq.read_table(folder / "datasets.pqt"), folder / "datasets.pqt", write_page_checksum=True)
    content = bytearray((folder / "datasets.pqt").read_bytes())
    content[2000] ^= 1
    (folder / "datasets.pqt").write_bytes(content)
    with pytest.raises(SourceError, match=r"datasets\.pqt: is damaged"):
        read_source(str(folder), None)


def _zip_of(*members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in members:
            packed.writestr(name, text)
    return content.getvalue()


def _huge(content):
    """The same zip file, whose directory says that each member takes 17 gigabytes; needs no ZIP64."""
    with zipfile.ZipFile(io.BytesIO(content)) as packed, io.BytesIO() as out:
        with zipfile.ZipFile(out, "w") as bomb:
            for member in packed.infolist():
                bomb.writestr(member, packed.read(member))
                bomb.filelist[-1].file_size = 17 << 30
        return out.getvalue()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda whole: b"<html>sign in</html>", "any.zip: is damaged or cannot be read"),
        (lambda whole: whole[:-2000], "any.zip: is damaged or cannot be read"),
        (lambda whole: whole[:5000] + b"\0" * 100 + whole[5100:], "any.zip"),
        (lambda whole: _zip_of(("tables/sessions.pqt", b"")), "holds 0 files named sessions.pqt"),
        (lambda whole: _zip_of(("sessions.pqt", b"no table"), ("datasets.pqt", b"")), "sessions.pqt in .*is damaged"),
        (_huge, "would take 18253611008 bytes"),
    ],
)
def test_what_is_wrong_with_a_zip_file_is_said(folder, tmp_path, make, says):
    file = tmp_path / "any.zip"
    file.write_bytes(make(zipped(folder)))
    with pytest.raises(SourceError, match=says):
        read_source(str(file), None)


def test_what_else_is_in_a_zip_file_is_left_there(folder, tmp_path):
    file, scratch = tmp_path / "any.zip", tmp_path / "scratch"
    scratch.mkdir()
    file.write_bytes(zipped(folder, **{"../outside": "x", "QC.json": "{}"}))
    assert_is_fixture(read_source(str(file), None, scratch))
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["any.zip", "scratch", "source", *NAMES])


def test_a_pair_is_never_taken_while_it_is_replaced(folder, monkeypatch):
    plain, times = source_tables.read_file, []

    def read_file(path, columns):
        if len(times) in (1, 3):  # between the two files, twice
            change(folder)
        times.append(path.name)
        return plain(path, columns)

    monkeypatch.setattr(source_tables, "read_file", read_file)
    assert len(read_source(str(folder), None).sessions) == 26 - 2
    assert times == [*NAMES] * 3
    monkeypatch.setattr(source_tables, "read_file", lambda *arguments: (change(folder), plain(*arguments))[1])
    with pytest.raises(SourceError, match="is being replaced all the time"):
        read_source(str(folder), None)


def test_a_million_rows_take_well_under_a_second(folder, scale):
    n_rows = scale(100_000, 1_000_000)
    table = pq.read_table(folder / "datasets.pqt")
    pq.write_table(table.take(np.arange(n_rows) % len(table)), folder / "datasets.pqt")
    started = time.process_time()
    assert len(read_source(str(folder), None).datasets) == n_rows
    assert time.process_time() - started < n_rows * 0.8e-6 + 0.1
