"""Which rows a target gets: no other lab's rows, and the columns that ONE needs."""

import pyarrow as pa
import pytest

from alfwatchd.publish.selection import ContentDigest, Selection, as_rows_of, plain_ids, select_datasets
from alfwatchd.tables.columns import TableRules, datasets_table, sessions_table
from alfwatchd.tables.earlier import NO_DATASETS, Earlier, EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import folder_rows

PROJECTS = {"a/s1": "brain,steinmetz", "a/s2": "brain", "b/s1": "", "b/s3": "brainwide, steinmetz"}
FILES = {"spikes.times.npy": pack_signature(1, 0, 1, False), "a.b.c": pack_signature(2, 0, 1, False)}


def make(files=FILES):
    paths = {name: "/Subjects/".join(name.split("/")) + "/2020-01-01/001" for name in PROJECTS}
    sessions = {path: Session(path, (folder_rows("alf", files),)) for path in paths.values()}
    known = {f"{name}/2020-01-01/001": EarlierSession(None, "", text) for name, text in PROJECTS.items()}
    snapshot, rules = Snapshot(1, sessions), TableRules(known=KnownColumns.of(Earlier(known, NO_DATASETS)))
    return sessions_table(snapshot, rules), datasets_table(snapshot, rules)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), {"a/s1", "a/s2", "b/s1", "b/s3"}),
        (Selection(labs=("a",)), {"a/s1", "a/s2"}),
        (Selection(subjects=("s1", "s3")), {"a/s1", "b/s1", "b/s3"}),
        (Selection(projects=("brain",)), {"a/s1", "a/s2"}),  # not brainwide
        (Selection(projects=("steinmetz", "nobody")), {"a/s1", "b/s3"}),
        (Selection(projects=("brain",), subjects=("s1",), labs=("a", "b")), {"a/s1"}),
        (Selection(projects=("",)), {"b/s1"}),
        (Selection(labs=("c",)), set()),
    ],
)
def test_sessions_that_fit_every_list(selection, expected):
    sessions, datasets = make()
    chosen = selection.sessions(sessions)
    assert {f"{row['lab']}/{row['subject']}" for row in chosen.to_pylist()} == expected
    own = select_datasets(plain_ids(datasets), chosen.column("id").combine_chunks())
    assert len(own) == 2 * len(expected)
    assert set(own.column("eid").to_pylist()) == set(chosen.column("id").to_pylist())
    assert selection.is_all == (selection == Selection())


def test_dictionaries_hold_no_trace_of_what_is_left_out():
    sessions, datasets = make()
    (chosen,) = Selection(labs=("a",), subjects=("s1",)).sessions(sessions).column("id").to_pylist()
    rows = as_rows_of(datasets.schema, select_datasets(plain_ids(datasets), pa.array([chosen])))
    assert rows.schema == datasets.schema
    assert len(rows.column("eid").chunk(0).dictionary) == 3
    assert len(rows.column("id").chunk(0).dictionary) == 2
    assert as_rows_of(datasets.schema, plain_ids(datasets)).to_pylist() == datasets.to_pylist()


def digest(sessions, datasets, **described):
    found = ContentDigest(described)
    for name, parts in (("sessions", sessions), ("datasets", datasets)):
        for part in parts:
            found.add(name, plain_ids(part))
    return found.hexdigest()


def test_digest_is_that_of_the_rows_however_they_are_cut():
    sessions, datasets = make()
    whole = digest([sessions], [datasets])
    assert (
        digest(
            [sessions.slice(0, 3), sessions.slice(3)], [datasets.slice(0, 1), datasets.slice(1, 4), datasets.slice(5)]
        )
        == whole
    )
    assert digest([sessions.replace_schema_metadata({b"x": b"y"})], [datasets]) == whole


def changed(table, name, value):
    place = table.schema.get_field_index(name)
    values = table.column(name).to_pylist()
    return table.set_column(
        place, table.schema.field(name), pa.array([value, *values[1:]], table.schema.field(name).type)
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("file_size", 77),
        ("exists", False),
        ("rel_path", "alf/a.b.d"),
        ("default_revision", False),
        ("file_size", None),
        ("rel_path", None),
    ],
)
def test_digest_differs_for_each_value(name, value):
    sessions, datasets = make()
    datasets = plain_ids(datasets)
    assert digest([sessions], [changed(datasets, name, value)]) != digest([sessions], [datasets])


def test_digest_differs_for_values_that_join_to_the_same_text():
    first, second = (pa.table({"a": texts}) for texts in (["ab", "c"], ["a", "bc"]))
    assert digest([first], []) != digest([second], [])
    assert digest([first], []) != digest([], [first])
    assert digest([first], [], origin="x") != digest([first], [], origin="y")
    assert digest([pa.table({"a": [None, ""]})], []) != digest([pa.table({"a": ["", None]})], [])


def test_digest_of_qc():
    sessions, datasets = make()
    kind = datasets.schema.field("qc").type
    codes = pa.array([1] + [0] * (len(datasets) - 1), pa.int8())
    qc = pa.DictionaryArray.from_arrays(codes, datasets.column("qc").chunk(0).dictionary, ordered=True)
    assert qc.type == kind
    other = datasets.set_column(datasets.schema.get_field_index("qc"), datasets.schema.field("qc"), qc)
    assert digest([sessions], [other]) != digest([sessions], [datasets])
