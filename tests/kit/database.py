"""Databases for tests of adoption: the one whose tables are inside ONE-api, and small ones; and trees that fit them."""

from __future__ import annotations

import datetime
import json
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import one
import pyarrow as pa
import pyarrow.parquet as pq

from kit.alyx import texts_of

FIXTURES = Path(one.__file__).parent / "tests" / "fixtures"
NAMES = ("sessions", "datasets")
_QC = pa.dictionary(pa.int8(), pa.string(), ordered=True)


def fixture_tables() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows inside ONE-api as newer tables have them: ids as texts, `path` of each session."""
    sessions, datasets = (pq.read_table(FIXTURES / f"{name}.pqt") for name in NAMES)
    of_sessions, of_datasets = sessions.to_pylist(), datasets.to_pylist()
    for row, eid in zip(of_sessions, texts_of(sessions["id_0"], sessions["id_1"]), strict=True):
        row["id"] = eid
        row["path"] = f"{row['lab']}/Subjects/{row['subject']}/{row['date']}/{row['number']:03d}"
        row["projects"] = row.pop("project")
    ids, eids = (texts_of(datasets[f"{name}_0"], datasets[f"{name}_1"]) for name in ("id", "eid"))
    for row, own, eid in zip(of_datasets, ids, eids, strict=True):
        row |= {"id": own, "eid": eid, "file_size": int(row["file_size"] or 0)}
    return of_sessions, of_datasets


def make_tree(root: Path) -> Path:
    """Make the files of the database inside ONE-api, of their sizes, without content, and folders of all sessions."""
    sessions, datasets = fixture_tables()
    paths = {row["id"]: root / row["path"] for row in sessions}
    for path in paths.values():
        path.mkdir(parents=True)
    for row in datasets:
        file = paths[row["eid"]] / row["rel_path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as made:
            made.truncate(row["file_size"])
    return root


def copy_fixture(folder: Path) -> Path:
    """Put the tables inside ONE-api into a folder, as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        shutil.copy(FIXTURES / f"{name}.pqt", folder)
    return folder


def session(path: str, eid: str = "", **more: Any) -> dict[str, Any]:
    """Return the row of a session that is at lab/Subjects/subject/date/number."""
    lab, _, subject, date, number = path.split("/")
    when = datetime.date.fromisoformat(date)
    row = {"lab": lab, "subject": subject, "date": when, "number": int(number), "task_protocol": "", "projects": ""}
    return {"id": eid or str(uuid.uuid4()), **row, **more}


def dataset(eid: str, rel_path: str, **more: Any) -> dict[str, Any]:
    """Return the row of a dataset."""
    row = {"file_size": 0, "hash": None, "exists": True, "qc": "NOT_SET", "default_revision": True}
    return {"id": str(uuid.uuid4()), "eid": eid, "rel_path": rel_path, **row, **more}


def write_database(
    folder: Path,
    sessions: Iterable[dict[str, Any]],
    datasets: Iterable[dict[str, Any]],
    date_created: str = "2026-01-02 03:04",
) -> Path:
    """Write tables as a new Alyx does, with string ids; each file is put in place of the old one."""
    texts = ("id", "lab", "subject", "task_protocol", "projects")
    columns = [(name, pa.string()) for name in texts] + [("date", pa.date32()), ("number", pa.int64())]
    of_sessions = pa.Table.from_pylist(list(sessions), pa.schema(columns))
    columns = [(name, pa.string()) for name in ("id", "eid", "rel_path", "hash")]
    columns += [
        ("file_size", pa.uint64()),
        ("exists", pa.bool_()),
        ("default_revision", pa.bool_()),
        ("qc", pa.string()),
    ]
    of_datasets = pa.Table.from_pylist(list(datasets), pa.schema(columns))
    place = of_datasets.schema.get_field_index("qc")
    qc = of_datasets["qc"].combine_chunks().dictionary_encode().cast(_QC)
    of_datasets = of_datasets.set_column(place, pa.field("qc", _QC), qc)
    about = {"one_metadata": json.dumps({"date_created": date_created, "origin": "a test"})}
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in zip(NAMES, (of_sessions, of_datasets), strict=True):
        pq.write_table(table.replace_schema_metadata(about), folder / f"{name}.new")
        (folder / f"{name}.new").replace(folder / f"{name}.pqt")
    return folder


def pack(folder: Path, file: Path) -> Path:
    """Write the tables in a folder as a zip file."""
    made = shutil.make_archive(str(file.with_suffix("")), "zip", folder)
    return Path(made)
