"""What is carried over from earlier tables; tests/tables/test_carry_over_from_one.py takes tables that ONE writes."""

import datetime
import hashlib
import sys
import uuid

import pyarrow as pa
import pytest

from alfwatchd.alf import ids
from alfwatchd.alf.grammar import SessionKey
from alfwatchd.tables.carry_over import carry_over, dataset_rows, session_keys
from alfwatchd.tables.columns import datasets_table, sessions_table
from alfwatchd.tables.earlier import NOTHING_EARLIER, QC_CATEGORIES, EarlierDataset, EarlierSession
from alfwatchd.tables.known_columns import KnownColumns
from alfwatchd.tables.rules import TableRules
from alfwatchd.tree.packed import pack_signature
from alfwatchd.tree.rows import Session
from alfwatchd.tree.sessions import Snapshot
from kit.rows import datasets_of, earlier, folder_rows, sessions_of

DATE = datetime.date(2020, 1, 1)
S1, S2, LAB_S1 = "s/2020-01-01/001", "s/2020-01-01/002", "lab/s/2020-01-01/001"
V4, OTHER_V4 = (uuid.UUID(int=number, version=4) for number in (0xABC1, 0xABC2))
V3, V5 = (uuid.UUID(int=number, version=version) for number, version in ((0xABC3, 3), (0xABC4, 5)))
MD5 = hashlib.md5(b"content").hexdigest()


def carry(sessions, datasets=None, *, namespace=ids.NAMESPACE, lab=""):
    return carry_over(sessions, datasets if datasets is not None else datasets_of(), namespace, lab)


def own_eid(path=S1, namespace=ids.NAMESPACE):
    return str(uuid.UUID(bytes=ids.session_id(path, namespace)))


def own_id(rel_path="a.b.c", eid=None):
    return str(uuid.UUID(bytes=ids.dataset_id(uuid.UUID(eid or own_eid()).bytes, rel_path)))


# (story, id in the table, eid that stays)
EIDS = [
    ("a random one", str(V4), V4.bytes),
    ("version 3, as ONE makes them", str(V3), V3.bytes),
    ("our own is no news", own_eid(), None),
    ("version 5: One does not take it", str(V5), None),
    ("upper case: One does not take it", str(V4).upper(), None),
    ("without hyphens", V4.hex, None),
    ("hash_ids=False", S1, None),
    ("upstream's crash of a missing id", "nan", None),
    ("none", None, None),
]


@pytest.mark.parametrize(("story", "text", "stays"), EIDS, ids=[case[0] for case in EIDS])
def test_eids(story, text, stays):
    found = carry(sessions_of({"id": text}))
    assert found == earlier({S1: EarlierSession(stays, "", "")} if stays else {}, {})


@pytest.mark.parametrize(("story", "text", "stays"), EIDS[:7], ids=[case[0] for case in EIDS[:7]])
def test_dataset_ids(story, text, stays):
    text = own_id() if text == own_eid() else text
    found = carry(sessions_of({"id": S1}), datasets_of({"id": text}))
    assert found == earlier({}, {S1: {"a.b.c": EarlierDataset(stays, 0)}} if stays else {})


def test_the_ids_that_follow_from_a_kept_eid_are_no_news():
    eid = str(V4)
    found = carry(sessions_of({"id": eid}), datasets_of({"eid": eid, "id": own_id(eid=eid)}))
    assert found == earlier({S1: EarlierSession(V4.bytes, "", "")}, {})


def test_the_ids_that_follow_from_the_eid_of_a_database_are_news():
    """New ids of such a session follow from its path, so this one changed at the next run, and no record told it."""
    eid = str(V4)
    tables = sessions_of({"id": eid}), datasets_of({"eid": eid, "id": own_id(eid=eid)})
    found = carry_over(*tables, ids.NAMESPACE, "", is_adopted=True)
    kept = EarlierDataset(uuid.UUID(own_id(eid=eid)).bytes, 0)
    assert found == earlier({S1: EarlierSession(V4.bytes, "", "")}, {S1: {"a.b.c": kept}})


def test_of_two_folders_that_are_one_session_none_keeps_ids_that_follow_from_an_eid():
    """Both folders would get the same id."""
    eids = [str(V4), str(OTHER_V4)]
    sessions = sessions_of(*({"id": eid} for eid in eids))
    datasets = datasets_of(*({"eid": eid, "id": own_id(eid=eid)} for eid in eids))
    assert not carry_over(sessions, datasets, ids.NAMESPACE, "", is_adopted=True).datasets


def test_ids_of_another_namespace_are_kept():
    namespace = uuid.UUID("01234567-89ab-4def-8123-456789abcdef")
    sessions = sessions_of({"id": own_eid()})
    assert carry(sessions, namespace=namespace).sessions == {S1: EarlierSession(uuid.UUID(own_eid()).bytes, "", "")}
    assert carry(sessions_of({"id": own_eid(namespace=namespace)}), namespace=namespace) == NOTHING_EARLIER


def test_an_id_that_several_datasets_share_is_not_kept():
    # ONE makes dataset ids of the rel_path alone: sessions share them, and load_dataset_from_id fails.
    sessions = sessions_of({"id": str(V4)}, {"id": str(OTHER_V4), "number": 2})
    shared, own = str(V3), str(uuid.UUID(int=9, version=4))
    datasets = datasets_of(
        {"eid": str(V4), "id": shared, "qc": "FAIL"},
        {"eid": str(OTHER_V4), "id": shared},
        {"eid": str(OTHER_V4), "id": own, "rel_path": "d.e.f"},
    )
    found = carry(sessions, datasets)
    assert found.datasets == {
        S1: {"a.b.c": EarlierDataset(None, 3)},
        S2: {"d.e.f": EarlierDataset(uuid.UUID(own).bytes, 0)},
    }


def test_an_eid_that_several_sessions_share_is_kept_by_none():
    sessions = sessions_of({"id": str(V4), "projects": "p"}, {"id": str(V4), "number": 2, "projects": "q"})
    datasets = datasets_of({"eid": str(V4), "id": str(OTHER_V4), "qc": "FAIL"})
    assert carry(sessions, datasets) == earlier(
        {S1: EarlierSession(None, "", "p"), S2: EarlierSession(None, "", "q")}, {}
    )
    assert list(dataset_rows(sessions, datasets, session_keys(sessions))) == []


def test_a_session_that_is_listed_twice_keeps_its_datasets():
    # ONE lists nested sessions twice, with one eid.
    sessions = sessions_of({"id": str(V4)}, {"id": str(V4)})
    datasets = datasets_of({"eid": str(V4), "id": str(OTHER_V4), "qc": "FAIL"})
    assert carry(sessions, datasets) == earlier({}, {S1: {"a.b.c": EarlierDataset(OTHER_V4.bytes, 3)}})


def test_ids_as_paths():
    # make_parquet_db(hash_ids=False): eids are paths, dataset ids are rel_paths.
    sessions = sessions_of({"id": LAB_S1, "lab": "lab"}, {"id": S2, "number": 2, "projects": "p"})
    datasets = datasets_of(
        {"eid": LAB_S1, "id": "a.b.c", "qc": "PASS"}, {"eid": S2, "id": "a.b.c", "hash": MD5}, {"eid": S2, "id": "x"}
    )
    assert carry(sessions, datasets) == earlier(
        {S2: EarlierSession(None, "", "p")},
        {
            LAB_S1: {"a.b.c": EarlierDataset(None, 1)},
        },
    )


@pytest.mark.parametrize(
    ("column", "value"), [("task_protocol", "_iblrig_tasks"), ("projects", "one,two"), ("project", "old")]
)
def test_columns_of_sessions(column, value):
    sessions = sessions_of({"id": own_eid()})
    if column == "project":  # ONE before 1.13
        sessions = sessions.rename_columns(
            ["project" if name == "projects" else name for name in sessions.column_names]
        )
    sessions = sessions.set_column(sessions.column_names.index(column), column, pa.array([value]))
    protocol, projects = (value, "") if column == "task_protocol" else ("", value)
    assert carry(sessions) == earlier({S1: EarlierSession(None, protocol, projects)}, {})


@pytest.mark.parametrize("value", ["", None])
def test_empty_columns_of_sessions_are_no_news(value):
    assert carry(sessions_of({"task_protocol": value, "projects": value, "lab": value})) == NOTHING_EARLIER


@pytest.mark.parametrize(("code", "qc"), list(enumerate(QC_CATEGORIES)))
def test_qc(code, qc):
    ordered = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array([qc]), ordered=True)
    for column in (pa.array([qc]), ordered):
        datasets = datasets_of({}).set_column(6, "qc", column)
        found = carry(sessions_of({"id": S1}), datasets).datasets
        assert found == ({S1: {"a.b.c": EarlierDataset(None, code)}} if code else {})


@pytest.mark.parametrize("qc", [None, "", "fail", "UNHEARD_OF"])
def test_qc_of_other_words_counts_as_not_set(qc):
    assert carry(sessions_of({"id": S1}), datasets_of({"qc": qc})) == NOTHING_EARLIER


@pytest.mark.parametrize(("digest", "file_size"), [(MD5, 7), (MD5, None), ("", 7)])
def test_digests_are_not_carried_over(digest, file_size):
    """Nothing in a table proves of which file its hash is: a wrong one would stay for ever."""
    datasets = datasets_of({"hash": digest, "file_size": file_size})
    assert carry(sessions_of({"id": S1}), datasets) == NOTHING_EARLIER


# (lab in the table, lab that was filled in, the setting now, path that the table's eid is made of, whether it is news)
@pytest.mark.parametrize(
    ("lab", "filled", "now", "path", "is_news"),
    [
        ("lab", "", "", LAB_S1, False),
        ("", "", "", S1, False),
        ("lab", "lab", "lab", LAB_S1, False),
        ("lab", "lab", "lab", S1, True),  # as before the lab became a part of eids
        ("lab", "other", "other", LAB_S1, False),
        ("lab", "other", "other", S1, True),
        ("", "lab", "lab", S1, False),
        ("lab", "", "", S1, True),
        # The setting has changed: what it filled in before stays in the eid.
        ("lab", "lab", "other", LAB_S1, True),
        ("lab", "lab", "", LAB_S1, True),
        ("", "", "lab", S1, True),
        ("lab", "", "other", LAB_S1, False),
    ],
)
def test_the_lab_is_part_of_the_eid_and_a_change_of_the_setting_changes_no_eid(lab, filled, now, path, is_news):
    sessions = sessions_of({"id": own_eid(path), "lab": lab})
    found = carry_over(sessions, datasets_of(), ids.NAMESPACE, filled, now)
    assert found.lab == filled
    key = LAB_S1 if lab else S1
    assert found.sessions == ({key: EarlierSession(uuid.UUID(own_eid(path)).bytes, "", "")} if is_news else {})


# What identifies a session; (what the row says, eid_path or None where it makes no sense).
KEYS = [
    ({}, S1),
    ({"lab": "lab"}, LAB_S1),
    ({"lab": None}, S1),
    ({"number": 1.0}, S1),
    ({"number": 123}, "s/2020-01-01/123"),
    ({"number": None}, None),
    ({"number": float("nan")}, None),
    ({"number": float("inf")}, None),
    ({"number": -1}, None),
    ({"number": "001"}, None),
    ({"date": datetime.datetime(2020, 1, 1, 12)}, S1),
    ({"date": "2020-01-01"}, None),
    ({"date": None}, None),
    ({"subject": None}, None),
    ({"subject": 5}, None),
]


@pytest.mark.parametrize(("row", "eid_path"), KEYS)
def test_rows_that_make_no_sense_are_skipped(row, eid_path):
    sessions = sessions_of(row | {"id": str(V4)})
    (key,) = session_keys(sessions)
    assert (key.eid_path if key else None) == eid_path
    found = carry(sessions, datasets_of({"eid": str(V4), "qc": "FAIL"}))
    assert found.sessions == ({eid_path: EarlierSession(V4.bytes, "", "")} if eid_path else {})
    assert found.datasets == ({eid_path: {"a.b.c": EarlierDataset(None, 3)}} if eid_path else {})


@pytest.mark.parametrize("rows", [{"eid": None}, {"eid": "unheard of"}, {"eid": ["list"]}, {"rel_path": None}])
def test_datasets_without_session_or_path_are_skipped(rows):
    sessions = sessions_of({"id": None}, {"id": S1})
    datasets = datasets_of({"id": str(V4), "qc": "FAIL"} | rows)
    assert carry(sessions, datasets) == NOTHING_EARLIER
    assert list(dataset_rows(sessions, datasets, session_keys(sessions))) == []


def test_missing_columns_count_as_empty():
    sessions = sessions_of({"id": str(V4)}).select(["id", "subject", "date", "number"])
    datasets = datasets_of({"eid": str(V4)}).select(["eid", "rel_path"])
    assert carry(sessions, datasets) == earlier({S1: EarlierSession(V4.bytes, "", "")}, {})
    assert carry(pa.table({}), pa.table({})) == NOTHING_EARLIER
    assert carry(sessions.drop_columns(["id"]), datasets.drop_columns(["eid"])) == NOTHING_EARLIER


@pytest.mark.parametrize(
    ("file_size", "expected"), [(7, 7), (7.0, 7), (0, 0), (None, 0), (float("nan"), 0), (-1, 0), ("7", 0)]
)
def test_dataset_rows_tell_what_was_on_disk(file_size, expected):
    sessions = sessions_of({"id": str(V4), "lab": "lab"})
    datasets = datasets_of({"eid": str(V4), "rel_path": "alf/x.y.z", "file_size": file_size})
    assert list(dataset_rows(sessions, datasets, session_keys(sessions))) == [
        (SessionKey("lab", "s", DATE, 1), "alf/x.y.z", expected, b"")
    ]


@pytest.mark.parametrize(
    ("digest", "expected"), [("00" * 16, bytes(16)), ("FF" * 16, b""), ("00", b""), ("", b""), (None, b"")]
)
def test_dataset_rows_tell_the_digest(digest, expected):
    sessions, datasets = sessions_of({"id": str(V4)}), datasets_of({"eid": str(V4), "hash": digest})
    assert [row[3] for row in dataset_rows(sessions, datasets, session_keys(sessions))] == [expected]


def test_two_folders_that_are_one_session_to_tables_keep_their_two_eids():
    first, second, *_ = (str(uuid.UUID(bytes=eid)) for eid, _ in zip(ids.session_ids(LAB_S1), range(2), strict=False))
    for eids in ((first, second), (second, first)):
        sessions = sessions_of(*({"id": eid, "lab": "lab", "projects": "p"} for eid in eids))
        datasets = datasets_of(*({"eid": eid, "id": own_id(eid=eid)} for eid in eids))
        found = carry(sessions, datasets, lab="lab")
        assert found == earlier({LAB_S1: EarlierSession(None, "", "p")}, {}, "lab")
        both = Snapshot(1, {path: session(path) for path in ("lab/Subjects/s/2020-01-01/001", S1)})
        assert [
            str(uuid.UUID(bytes=eid)) for eid in TableRules(lab="lab", known=KnownColumns.of(found)).eids(both).values()
        ] == [
            first,
            second,
        ]


def test_reading_kept_ids_takes_no_step_of_python_for_each_row():
    """A start with a million ids of a database would take 15 s instead of 3, while no client gets an answer."""
    n_sessions, n_each = 10, 1000
    eids, own_ids = [text_of(n) for n in range(n_sessions)], [text_of((1 << 100) + n) for n in range(10_000)]
    sessions = sessions_of(*({"id": eids[number], "number": number} for number in range(n_sessions)))
    rows = ({"eid": eids[n // n_each], "id": own, "rel_path": f"a{n % n_each}.b.c"} for n, own in enumerate(own_ids))
    datasets = datasets_of(*rows)
    carry(sessions.slice(0, 1), datasets.slice(0, 1))  # what Python does once
    steps = []
    sys.setprofile(lambda _frame, event, _: steps.append(event))
    try:
        found = carry(sessions, datasets)
    finally:
        sys.setprofile(None)
    assert [len(found.datasets.span(key)) for key in found.datasets] == [n_each] * n_sessions
    assert len(steps) < len(own_ids) / 2


def text_of(number):
    return str(uuid.UUID(int=number, version=4))


# Tables -> what earlier tables know -> the same tables.


def session(path, *rel_paths, digest=b""):
    files = {name: pack_signature(7, 1, 2, False) + digest for name in rel_paths}
    return Session(path, tuple(filter(None, [folder_rows("alf", files)])))


ROWS = Snapshot(
    1,
    {
        row.path: row
        for row in (
            session("s/2020-01-01/1", "a.b.c", "d.e.f", digest=bytes.fromhex(MD5)),
            session("lab/Subjects/s/2020-01-01/001", "a.b.c"),
            session("empty/2020-01-01/001"),
        )
    },
)
EARLIER = earlier(
    {S1: EarlierSession(V4.bytes, "protocol", "p,q"), LAB_S1: EarlierSession(None, "", "p")},
    {
        S1: {
            "alf/a.b.c": EarlierDataset(OTHER_V4.bytes, 4),
            "alf/d.e.f": EarlierDataset(None, 1),
        },
        LAB_S1: {"alf/a.b.c": EarlierDataset(V3.bytes, 0)},
    },
)
RULES = {
    "plain": TableRules(),
    "earlier": TableRules(known=KnownColumns.of(EARLIER)),
    "hashes": TableRules(with_hashes=True, known=KnownColumns.of(EARLIER)),
    "lab": TableRules(lab="filled", known=KnownColumns.of(EARLIER)),
    "namespace": TableRules(uuid.UUID("01234567-89ab-4def-8123-456789abcdef"), known=KnownColumns.of(EARLIER)),
}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_what_is_carried_over_makes_the_same_tables_again(rules):
    tables = [make(ROWS, rules) for make in (sessions_table, datasets_table)]
    found = carry_over(*tables, rules.namespace, rules.lab)
    again = TableRules(rules.namespace, rules.lab, rules.with_hashes, KnownColumns.of(found))
    for make, before in zip((sessions_table, datasets_table), tables, strict=True):
        assert make(ROWS, again).equals(before, check_metadata=True)
    if rules.known.earlier == NOTHING_EARLIER:
        assert found == NOTHING_EARLIER


@pytest.mark.parametrize(("before", "after"), [("", "filled"), ("filled", ""), ("filled", "other")])
def test_a_change_of_the_lab_setting_changes_no_id(before, after):
    first = TableRules(lab=before, known=KnownColumns.of(EARLIER))
    tables = [make(ROWS, first) for make in (sessions_table, datasets_table)]
    second = TableRules(lab=after, known=KnownColumns.of(carry_over(*tables, ids.NAMESPACE, before, after)))
    found = [make(ROWS, second) for make in (sessions_table, datasets_table)]
    assert [table["id"] for table in found] == [table["id"] for table in tables]
    assert found[0]["projects"] == tables[0]["projects"]
    assert found[1]["qc"] == tables[1]["qc"]
