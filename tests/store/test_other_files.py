"""A file of others that keeps One from opening is told, and no other one is; ONE itself is asked which these are."""

import json
import os
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from one.alf.cache import load_tables

from alfwatchd.store.other_files import OtherFiles
from kit.program import make_small_tree
from kit.trees import fast_folder
from kit.truth import index

DATED = {b"one_metadata": json.dumps({"date_created": "2026-01-01 10:00", "origin": "x"}).encode()}


@pytest.fixture(scope="module")
def made():
    with fast_folder() as folder:
        make_small_tree(folder / "root")
        index(folder / "root", folder / "root")
        yield folder / "root"


@pytest.fixture
def root(made, tmp_path):
    for name in ("sessions.pqt", "datasets.pqt"):
        shutil.copy(made / name, tmp_path)
    return tmp_path


def torn(path):
    whole = path.with_name("sessions.pqt").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def table(path, columns, metadata):
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)


CASES = {
    "empty": lambda path: path.touch(),
    "torn": torn,
    "text": lambda path: path.write_text("not a table"),
    "zeros": lambda path: path.write_bytes(bytes(5000)),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "dated, without ids": lambda path: table(path, {"x": [1, 2]}, DATED),
    "dated, with ids": lambda path: table(path, {"pid": ["a", "b"]}, DATED),
    "without a date": lambda path: table(path, {"x": [1, 2]}, {}),
    "without metadata": lambda path: pq.write_table(pa.table({"x": [1, 2]}), path, store_schema=False),
    "of pandas": lambda path: pd.DataFrame({"x": [1]}).to_parquet(path),
    "a copy": lambda path: shutil.copy(path.with_name("sessions.pqt"), path),
    "folder": os.mkdir,
    "folder of tables": lambda path: shutil.copytree(path.parent, path, ignore=lambda *_: [path.name]),
    "link to a table": lambda path: path.symlink_to("sessions.pqt"),
}


@pytest.mark.parametrize("name", ["clusters.pqt", ".hidden.pqt", "other.tmp"])
@pytest.mark.parametrize("case", CASES)
def test_a_file_is_told_if_and_only_if_one_fails_at_it(root, case, name):
    """One raises an error of Arrow that names no file; the tables seem to be broken, and they are not."""
    CASES[case](root / name)
    try:
        load_tables(root)
        opens = True
    except Exception:  # noqa: BLE001 - of Arrow, pandas or ONE
        opens = False
    found = OtherFiles(root, root).problems()
    assert [(each.kind, each.path) for each in found] == ([] if opens else [("foreign_table", name)])


def test_both_folders_are_looked_at_and_what_is_mended_is_told_no_more(root, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("tables")
    (out_dir / "sessions.pqt").touch()  # ours, about to be replaced
    (out_dir / "x.pqt").touch()
    (root / "sessions.pqt").write_text("old")
    files = OtherFiles(root, out_dir)
    assert [each.path for each in files.problems()] == [str(out_dir / "x.pqt"), "sessions.pqt"]
    assert len(files.problems()) == 2
    (out_dir / "x.pqt").unlink()
    shutil.copy(root / "datasets.pqt", root / "sessions.pqt")
    assert files.problems() == []
