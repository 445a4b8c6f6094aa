"""Rows as the tree makes them, and as tables hold them, for tests that need neither."""

import datetime

import pyarrow as pa

from alfwatchd.tables.earlier import Earlier, EarlierDatasets
from alfwatchd.tree.packed import PackedFiles
from alfwatchd.tree.rows import FolderRows


def folder_rows(folder, files):
    """Return the rows of one folder, or None where it holds no dataset."""
    if not files:
        return None
    return FolderRows(folder, PackedFiles.pack(files))


def sessions_of(*rows):
    """Make a sessions table; rows are dicts that say what differs from session s/2020-01-01/001 without an id."""
    date = datetime.date(2020, 1, 1)
    default = {"id": None, "lab": "", "subject": "s", "date": date, "number": 1, "task_protocol": "", "projects": ""}
    return table_of(default, rows)


def datasets_of(*rows):
    default = {
        "eid": "s/2020-01-01/001", "id": None, "rel_path": "a.b.c", "file_size": 7, "hash": "", "exists": True,
        "qc": "NOT_SET",
    }  # fmt: skip
    return table_of(default, rows)


def table_of(default, rows):
    full = [default | row for row in rows]
    return pa.table({name: [row[name] for row in full] for name in full[0]}) if full else pa.table({})


def earlier(sessions=(), datasets=(), lab="", **more):
    """Make what earlier tables know; datasets are dicts by session key, then rel_path."""
    return Earlier(dict(sessions), EarlierDatasets.of(dict(datasets)), lab, **more)
