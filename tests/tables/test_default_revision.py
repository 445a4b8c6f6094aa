"""Which revision One loads by default: with none, or with two, a user gets old data, or an error."""

import uuid

import pytest

from alfwatchd.alf import ids
from alfwatchd.tables.columns import datasets_table
from alfwatchd.tables.default_revision import choose_defaults, default_revisions
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import folder_rows


def text(raw):
    return str(uuid.UUID(bytes=raw))


def session(path, *rel_paths):
    folders = {}
    for rel_path in rel_paths:
        folder, _, name = rel_path.rpartition("/")
        folders.setdefault(folder, {})[name] = pack_signature(1, 2, 3, False)
    return Session(path, tuple(folder_rows(folder, files) for folder, files in sorted(folders.items())))


def snapshot(*sessions):
    return Snapshot(1, {each.path: each for each in sessions})


U1, U2 = (str(uuid.UUID(int=number, version=4)) for number in (1, 2))

# (rel_paths, those that are the default)
REVISIONS = [
    (["a.b.c"], ["a.b.c"]),
    (["a.b.c", "#v1#/a.b.c"], ["#v1#/a.b.c"]),
    (["alf/#v2#/a.b.c", "alf/#v1#/a.b.c", "alf/a.b.c"], ["alf/#v2#/a.b.c"]),
    (["alf/#v10#/a.b.c", "alf/#v9#/a.b.c"], ["alf/#v9#/a.b.c"]),  # lexicographic, not numeric
    (["alf/#2020-01-01#/a.b.c", "alf/#2020-01-01b#/a.b.c"], ["alf/#2020-01-01b#/a.b.c"]),
    (["alf/a.b.c", "alf/#v1#/d.e.f"], ["alf/a.b.c", "alf/#v1#/d.e.f"]),
    (["alf/#v1#/a.b.c", "raw/#v2#/a.b.c", "a.b.c"], ["alf/#v1#/a.b.c", "raw/#v2#/a.b.c", "a.b.c"]),
    (["alf/#v1#/a.b.c", "alf/#v1#/a.b.x.c", "alf/#v2#/a.b.x.c"], ["alf/#v1#/a.b.c", "alf/#v2#/a.b.x.c"]),
    # Data servers of Alyx have an id in each file name: it is another one in each revision.
    ([f"alf/a.b.{U2}.c", f"alf/#v1#/a.b.{U1}.c"], [f"alf/#v1#/a.b.{U1}.c"]),
    ([f"a.b.{U2}.c", f"#v1#/a.b.{U1}.c", f"#v1#/d.e.{U1}.f"], [f"#v1#/a.b.{U1}.c", f"#v1#/d.e.{U1}.f"]),
    (["alf/a.b.c", f"alf/a.b.{U1}.c"], ["alf/a.b.c"]),
    ([f"alf/a.b.{U1}.c", f"alf/a.b.{U2}.c"], [f"alf/a.b.{U2}.c"]),
]


@pytest.mark.parametrize(("rel_paths", "defaults"), REVISIONS)
def test_exactly_one_revision_of_a_dataset_is_the_default(rel_paths, defaults):
    row = session("s/2020-01-01/001", *rel_paths)
    other = session("t/2020-01-01/001", "alf/#v99#/a.b.c")
    order = [rel_path for rel_path, _ in row.datasets()]
    assert default_revisions(row) == [rel_path in defaults for rel_path in order]
    eid = text(ids.session_id("s/2020-01-01/001"))
    table = datasets_table(snapshot(other, row), TableRules())
    rows = [found for found in table.to_pylist() if found["eid"] == eid]
    assert {found["rel_path"] for found in rows} == set(rel_paths)
    assert {found["rel_path"] for found in rows if found["default_revision"]} == set(defaults)


# (story, (rel_path, whether it is here, what the database says: 1, 0 or nothing), the default)
CHOICES = [
    ("nothing is told: the newest", [("a.b.c", True, -1), ("#v1#/a.b.c", True, -1)], "#v1#/a.b.c"),
    ("an old one is told", [("a.b.c", True, 1), ("#v1#/a.b.c", True, 0)], "a.b.c"),
    ("the one that is told is not here", [("a.b.c", False, 1), ("#v1#/a.b.c", True, 0)], "#v1#/a.b.c"),
    ("none is here: the one that is told", [("a.b.c", False, 1), ("#v1#/a.b.c", False, 0)], "a.b.c"),
    ("two are told: the newest", [("a.b.c", True, 1), ("#v1#/a.b.c", True, 1)], "#v1#/a.b.c"),
    ("ids in names", [(f"a.b.{U1}.c", True, 1), (f"#v1#/a.b.{U2}.c", True, 0)], f"a.b.{U1}.c"),
    ("ids in some names", [("a.b.c", True, 1), (f"#v1#/a.b.{U2}.c", True, 1)], f"#v1#/a.b.{U2}.c"),
]


@pytest.mark.parametrize(("story", "rows", "default"), CHOICES, ids=[case[0] for case in CHOICES])
def test_a_database_chooses_among_what_is_here(story, rows, default):
    paths, is_here, told = zip(*rows, strict=True)
    chosen = choose_defaults([path.encode() for path in paths], is_here, told)
    assert [path for path, is_chosen in zip(paths, chosen, strict=True) if is_chosen] == [default]
