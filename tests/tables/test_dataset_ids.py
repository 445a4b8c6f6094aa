"""Which dataset gets which id: two datasets of one session with one id could not be told apart by One."""

import random
import uuid

import pytest

from alfwatchd.alf import ids
from alfwatchd.tables.adoption import adopt
from alfwatchd.tables.columns import datasets_table
from alfwatchd.tables.earlier import QC_CATEGORIES, EarlierDataset
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import datasets_of, earlier, folder_rows, sessions_of

OLD = "old/2020-01-01/001"


def own(path):
    return ids.session_id(path)


def text(raw):
    return str(uuid.UUID(bytes=raw))


def dataset_rows(rules, *rel_paths, path=OLD):
    files = {name: pack_signature(1, 2, 3, False) for name in rel_paths}
    rows = Snapshot(1, {path: Session(path, (folder_rows("", files),))})
    return {row["rel_path"]: row["id"] for row in datasets_table(rows, rules).to_pylist()}


# (story, ids that earlier tables hold for other datasets, ids that a database has)
RENAMED_DATASETS = [
    ("a database has renamed it", {}, {"new.b.c": "old.b.c"}),
    ("earlier tables have its id elsewhere", {"new.b.c": "old.b.c"}, {}),
    ("both", {"new.b.c": "old.b.c"}, {"newer.b.c": "old.b.c"}),
]


@pytest.mark.parametrize(("story", "before", "known"), RENAMED_DATASETS, ids=[case[0] for case in RENAMED_DATASETS])
def test_no_dataset_has_the_id_of_another_one_of_its_session(story, before, known):
    eid = own(OLD)
    earlier_rows = {path: EarlierDataset(ids.dataset_id(eid, of), 0) for path, of in before.items()}
    rules = TableRules(known=KnownColumns.of(earlier({}, {OLD: earlier_rows})))
    if known:
        of_database = [
            {"eid": text(eid), "id": text(ids.dataset_id(eid, of)), "rel_path": path} for path, of in known.items()
        ]
        rules = rules.adopt(adopt(sessions_of({"id": text(eid), "subject": "old"}), datasets_of(*of_database)))
    found = dataset_rows(rules, "old.b.c", "new.b.c", "newer.b.c")
    assert len(set(found.values())) == 3
    holder = next(iter(known or before))
    assert found[holder] == text(ids.dataset_id(eid, "old.b.c"))
    second = next(each for number, each in enumerate(ids.dataset_ids(eid, "old.b.c")) if number)
    assert found["old.b.c"] == text(second)
    assert dataset_rows(rules, "old.b.c")["old.b.c"] == text(second), "whatever else is here"


def expected(eid, here, known, of_database):
    """Return the id of each dataset, one after the other: of the database, of earlier tables, or the first free one."""
    found = {path: of_database.get(path, known[path].id if path in known else None) for path in here}
    same = {path for path in here if path not in of_database and found[path] is not None}
    reserved = {row.id for row in known.values()} | {*of_database.values()}
    for path in here:
        if path not in of_database and (path not in same or found[path] in of_database.values()):
            found[path] = next(each for each in ids.dataset_ids(eid, path) if each not in reserved)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_many_sessions_at_once_get_the_ids_that_each_gets_alone(seed):
    """All are looked up at once, in columns: an id of a neighbour in a row would be wrong for ever."""
    draw = random.Random(seed)
    names = [f"n{number}.b.c" for number in range(6)]
    sessions, before, known, rows, wanted = {}, {}, [], [], {}
    for number in range(1, 12):
        path = f"s/2020-01-01/{number:03d}"
        eid = own(path)
        pool = [ids.dataset_id(eid, name) for name in names] + [uuid.UUID(int=draw.getrandbits(64), version=4).bytes]

        def some(pool=pool):
            return dict(zip(draw.sample(names, draw.randrange(4)), draw.sample(pool, 4), strict=False))

        before[path] = {name: EarlierDataset(draw.choice([own_id, own_id, None]), draw.randrange(5))
                      for name, own_id in some().items()}  # fmt: skip
        before[path] = {name: row for name, row in before[path].items() if row.id is not None or row.qc}
        of_database = some() if draw.random() < 0.5 else {}
        if of_database:
            known.append({"id": text(eid), "number": number})
            rows += [{"eid": text(eid), "rel_path": name, "id": text(each)} for name, each in of_database.items()]
        here = draw.sample(names, draw.randrange(6))
        files = {name: pack_signature(1, 2, 3, False) for name in here}
        sessions[path] = Session(path, tuple(filter(None, [folder_rows("", files)])))
        left = {name: row for name, row in before[path].items() if name not in of_database}
        wanted |= {
            (text(eid), name): text(each) for name, each in expected(eid, sorted(here), left, of_database).items()
        }
    rules = TableRules(known=KnownColumns.of(earlier({}, {path: rows for path, rows in before.items() if rows})))
    rules = rules.adopt(adopt(sessions_of(*known), datasets_of(*rows)))
    found = datasets_table(Snapshot(1, sessions), rules).to_pylist()
    assert {(row["eid"], row["rel_path"]): row["id"] for row in found} == wanted
    qc = {(text(own(path)), name): QC_CATEGORIES[row.qc] for path, rows in before.items() for name, row in rows.items()}
    in_database = {(row["eid"], row["rel_path"]) for row in rows}
    for row in found:
        key = (row["eid"], row["rel_path"])
        assert row["qc"] == ("NOT_SET" if key in in_database else qc.get(key, "NOT_SET"))
