"""Tables of any version of ONE, as columns."""

import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import one
import pyarrow as pa
import pytest

from alfwatchd.tables.database_columns import read_datasets, read_sessions
from alfwatchd.tables.earlier import QC_CATEGORIES
from kit.rows import datasets_of, sessions_of

V4 = [str(uuid.UUID(int=0xABC0 + number, version=4)) for number in range(4)]
V5 = str(uuid.UUID(int=0xABC5, version=5))
MD5 = "0123456789abcdef" * 2


def text(raw):
    return str(uuid.UUID(bytes=raw.tobytes())) if raw.any() else None


def halves(texts):
    """Return ids as ``iblutil.io.parquet.uuid2np`` writes them: two signed integers each, as the bytes lie."""
    return np.frombuffer(b"".join(uuid.UUID(each).bytes for each in texts), "<i8").reshape(-1, 2)


def with_halves(table, name, texts):
    both = halves(texts)
    table = table.drop_columns([name])
    return table.append_column(f"{name}_0", pa.array(both[:, 0])).append_column(f"{name}_1", pa.array(both[:, 1]))


IDS = [
    # (story, what the column holds, what is read)
    ("hyphenated texts", V4, V4),
    ("one is missing", [V4[0], None, V4[2], V4[3]], [V4[0], None, V4[2], V4[3]]),
    ("one is no UUID", [V4[0], "s/2020-01-01/001", V4[2], V4[3]], [V4[0], None, V4[2], V4[3]]),
    ("one has a version that ONE does not take", [V4[0], V5, V4[2], V4[3]], [V4[0], None, V4[2], V4[3]]),
    ("one is in capitals", [V4[0].upper(), *V4[1:]], V4),
]


@pytest.mark.parametrize(("story", "column", "expected"), IDS, ids=[story for story, *_ in IDS])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_ids_that_are_texts(story, column, expected, kind):
    sessions = sessions_of(*({"id": each} for each in column))
    as_kind = sessions.set_column(0, "id", pa.array(column, pa.string()).cast(kind))
    assert [text(raw) for raw in read_sessions(as_kind).eids] == expected
    datasets = datasets_of(*({"id": each, "eid": each, "rel_path": f"a.b.{at}"} for at, each in enumerate(column)))
    found = read_datasets(datasets)
    assert [text(raw) for raw in found.ids] == expected
    assert [text(found.eids[code]) if code >= 0 else None for code in found.eid_codes] == expected


def test_ids_that_are_pairs_of_integers():
    sessions = with_halves(sessions_of(*({"number": n} for n in range(4))), "id", V4)
    assert [text(raw) for raw in read_sessions(sessions).eids] == V4
    datasets = datasets_of(*({"rel_path": f"a.b.{n}"} for n in range(4)))
    datasets = with_halves(with_halves(datasets, "id", V4), "eid", [V4[0], V4[0], V4[1], V4[0]])
    found = read_datasets(datasets)
    assert [text(raw) for raw in found.ids] == V4
    assert [text(found.eids[code]) for code in found.eid_codes] == [V4[0], V4[0], V4[1], V4[0]]
    assert len(found.eids) == 2


def test_integers_that_pandas_made_floats_of_are_no_ids():
    # Where some are missing, all become floats of 53 bits: to guess the others would be worse than to have none.
    sessions = with_halves(sessions_of({}, {"number": 2}), "id", V4[:2])
    column = sessions.column("id_0").cast(pa.float64(), safe=False)
    sessions = sessions.set_column(sessions.column_names.index("id_0"), "id_0", column)
    assert not read_sessions(sessions).eids.any()


def test_older_and_newer_columns_of_sessions():
    older = sessions_of({"id": V4[0], "projects": "brain", "task_protocol": None})
    found = read_sessions(
        older.rename_columns([{"projects": "project"}.get(name, name) for name in older.column_names])
    )
    assert (found.projects, found.task_protocols) == (["brain"], [""])
    bare = older.select(["id", "lab", "subject", "date", "number"])
    assert (read_sessions(bare).projects, read_sessions(bare).task_protocols) == ([""], [""])


COLUMNS = [
    # (story, name, column of two rows, attribute, what is read)
    ("whole sizes", "file_size", pa.array([7, None], pa.uint64()), "file_sizes", [7, -1]),
    ("sizes that became floats", "file_size", pa.array([7.0, float("nan")]), "file_sizes", [7, -1]),
    ("sizes that make no sense", "file_size", pa.array([-7, 1 << 60]), "file_sizes", [-1, -1]),
    ("sizes of which none is known", "file_size", pa.nulls(2), "file_sizes", [-1, -1]),
    ("qc by name", "qc", pa.array(["PASS", None]), "qc", [1, 0]),
    ("qc as categories", "qc", pa.array(["FAIL", "NOT_SET"]).dictionary_encode(), "qc", [3, 0]),
    ("qc by number", "qc", pa.array([40, 77]), "qc", [3, 0]),
    ("qc of another name", "qc", pa.array(["GREAT", "CRITICAL"]), "qc", [0, 4]),
    ("no default revisions", "default_revision", pa.nulls(2), "defaults", [-1, -1]),
    ("default revisions", "default_revision", pa.array([True, False]), "defaults", [1, 0]),
    ("default revisions, one unknown", "default_revision", pa.array([None, False]), "defaults", [-1, 0]),
]


@pytest.mark.parametrize(("story", "name", "column", "attribute", "expected"), COLUMNS, ids=[c[0] for c in COLUMNS])
def test_columns_of_datasets(story, name, column, attribute, expected):
    table = datasets_of({"rel_path": "a.b.c"}, {"rel_path": "a.b.d"})
    table = table.drop_columns([name] if name in table.column_names else []).append_column(name, column)
    assert getattr(read_datasets(table), attribute).tolist() == expected


@pytest.mark.parametrize("name", ["file_size", "qc", "hash", "exists"])
def test_columns_that_are_not_there_are_unknown(name):
    found = read_datasets(datasets_of({}).drop_columns([name]))
    assert not found.digests.any()
    assert (found.qc.tolist(), len(found.file_sizes)) == ([0], 1)


@pytest.mark.parametrize("others", [[], [None], ["da39a3ee5e6b4b0d3255bfef95601890afd80709"], [""], ["z" * 32]])
def test_only_md5_is_a_digest(others):
    # Alyx may hold sha1 of old files.
    table = datasets_of(*({"hash": each, "rel_path": f"a.b.{at}"} for at, each in enumerate([MD5, *others])))
    assert [row.tobytes().hex() for row in read_datasets(table).digests] == [MD5, *["0" * 32] * len(others)]


@pytest.mark.parametrize(
    "written",
    [MD5.upper(), str(uuid.UUID(MD5)), str(uuid.UUID(MD5)).upper()],
    ids=["upper-case", "with hyphens", "both"],
)
def test_a_md5_counts_however_it_is_written(written):
    # Alyx keeps what it was given; its own documents show a md5 with hyphens.
    table = datasets_of({"hash": MD5, "rel_path": "a.b.c"}, {"hash": written, "rel_path": "a.b.d"})
    assert [row.tobytes().hex() for row in read_datasets(table).digests] == [MD5, MD5]


@pytest.mark.parametrize("projects", ["b,a,c", "c,b,a", "a,b,c"])
def test_projects_are_in_order_however_alyx_joined_them(projects):
    # It joins a set: the order is another one at each run, and the tables would be written and published again.
    assert read_sessions(sessions_of({"projects": projects})).projects == ["a,b,c"]


def test_a_revision_of_no_name_is_no_revision():
    # Alyx under pandas 3 writes such paths for datasets in no revision folder: none of them was matched.
    paths = ["alf/#nan#/a.b.c", "#nan#/a.b.c", "alf/#nano#/a.b.c", "alf/#2020-01-01#/a.b.c", "alf/a.b.c", None]
    found = read_datasets(datasets_of(*({"rel_path": path} for path in paths)))
    assert [found.paths[code].decode() if code >= 0 else None for code in found.path_codes] == [
        "alf/a.b.c",
        "a.b.c",
        "alf/#nano#/a.b.c",
        "alf/#2020-01-01#/a.b.c",
        "alf/a.b.c",
        None,
    ]


def test_paths_are_told_once():
    found = read_datasets(
        datasets_of({"rel_path": "a.b.c"}, {"rel_path": "x.y.z"}, {"rel_path": "a.b.c"}, {"rel_path": None})
    )
    assert [found.paths[code] if code >= 0 else None for code in found.path_codes] == [
        b"a.b.c",
        b"x.y.z",
        b"a.b.c",
        None,
    ]
    assert len(found.paths) == 2


def test_a_database_is_read_without_pandas():
    # It takes 45 MB, and a sixth of a second.
    program = """
import sys
import pyarrow.parquet as pq
from alfwatchd.tables import adoption
adoption.adopt(*(pq.ParquetFile(f"{sys.argv[1]}/{name}.pqt").read() for name in ("sessions", "datasets")))
print("pandas" in sys.modules)
"""
    fixtures = Path(one.__file__).parent / "tests/fixtures"
    command = [sys.executable, "-c", program, str(fixtures)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False\n"


def test_qc_categories_are_those_of_one():
    spec = pytest.importorskip("one.alf.spec")
    values = datasets_of(*({"rel_path": f"a.b.{each.value}"} for each in spec.QC))
    table = values.drop_columns(["qc"]).append_column("qc", pa.array([each.value for each in spec.QC]))
    assert [QC_CATEGORIES[code] for code in read_datasets(table).qc] == [each.name for each in spec.QC]
