"""Ids never change for a path, and ONE accepts them: else every stored eid of the field would be lost."""

import itertools
import uuid

import pytest
from one.alf.spec import is_uuid

from alfwatchd.alf import grammar, ids

PATHS = [
    f"{lab}{subject}/2020-01-0{day}/{number:03d}"
    for lab, subject, day, number in itertools.product(("", "lab/", "Lab/"), ("s", "s1", "é"), (1, 2), (0, 1, 12, 123))
]
REL_PATHS = ["a.b.c", "alf/a.b.c", "alf/#2020-01-01#/a.b.c", "alf/probe00/spikes.times.npy", "é.é.é"]

# These ids are in the field: a change here breaks every eid that a user wrote down.
GOLDEN = [
    ("subject/2020-01-01/001", "1f3f3c7e-b78f-397e-b4c5-64914b17882c", None, None),
    (
        "lab/subject/2020-01-01/001",
        "1581141a-afb7-37de-9c3e-f910179da085",
        "alf/spikes.times.npy",
        "1581141a-afb7-37de-8edf-b67b37f53470",
    ),
]


@pytest.mark.parametrize(("eid_path", "eid", "rel_path", "dataset_id"), GOLDEN)
def test_ids_never_change(eid_path, eid, rel_path, dataset_id):
    raw = ids.session_id(eid_path)
    assert str(uuid.UUID(bytes=raw)) == eid
    if rel_path:
        assert str(uuid.UUID(bytes=ids.dataset_id(raw, rel_path))) == dataset_id


def test_eid_is_uuid3_of_the_path_in_the_namespace():
    namespace = uuid.UUID("01234567-89ab-4def-8123-456789abcdef")
    assert ids.session_id("s/2020-01-01/001", namespace) == uuid.uuid3(namespace, "s/2020-01-01/001").bytes
    assert ids.session_id("s/2020-01-01/001", namespace) != ids.session_id("s/2020-01-01/001")


def test_one_accepts_all_ids():
    for path in PATHS:
        eid = ids.session_id(path)
        for raw in (eid, *(ids.dataset_id(eid, rel_path) for rel_path in REL_PATHS)):
            text = str(uuid.UUID(bytes=raw))
            assert is_uuid(text), text
            assert uuid.UUID(text).variant == uuid.RFC_4122
            assert uuid.UUID(text).version == 3
            assert ids.parse_id(text) == raw


def test_ids_are_unique_and_ordered_as_pairs_are():
    eids = [ids.session_id(path) for path in PATHS]
    pairs = [(eid, ids.dataset_id(eid, rel_path)) for eid in eids for rel_path in REL_PATHS]
    assert len(set(eids)) == len(PATHS)
    assert len({own for _, own in pairs}) == len(pairs)
    assert [own for _, own in sorted(pairs)] == sorted(own for _, own in pairs)


def test_sessions_with_equal_rel_paths_have_other_dataset_ids():
    one, other = (ids.session_id(path) for path in PATHS[:2])
    assert ids.dataset_id(one, "a.b.c")[8:] != ids.dataset_id(other, "a.b.c")[8:]


@pytest.mark.parametrize("number", ["1", "01", "001"])
@pytest.mark.parametrize("folder", ["s/2020-01-01", "lab/Subjects/s/2020-01-01"])
def test_padding_of_the_number_does_not_change_the_eid(folder, number):
    key = grammar.parse_session(f"{folder}/{number}")
    padded = grammar.parse_session(f"{folder}/001")
    assert key is not None
    assert padded is not None
    assert key.eid_path == folder.replace("/Subjects", "") + "/001"
    assert ids.session_id(key.eid_path) == ids.session_id(padded.eid_path)


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("1581141a-afb7-37de-9c3e-f910179da085", True),
        ("1581141a-afb7-47de-9c3e-f910179da085", True),
        ("1581141a-afb7-17de-9c3e-f910179da085", False),  # version 1
        ("1581141a-afb7-57de-9c3e-f910179da085", False),  # version 5
        ("1581141a-afb7-37de-1c3e-f910179da085", False),  # another variant than RFC 4122
        ("1581141A-AFB7-37DE-9C3E-F910179DA085", False),
        ("1581141aafb737de9c3ef910179da085", False),  # pragma: allowlist secret
        ("{1581141a-afb7-37de-9c3e-f910179da085}", False),
        ("urn:uuid:1581141a-afb7-37de-9c3e-f910179da085", False),
        ("1581141a-afb7-37de-9c3e-f910179da08５", False),
        ("nan", False),
        ("", False),
        (None, False),
        (float("nan"), False),
        (uuid.UUID("1581141a-afb7-37de-9c3e-f910179da085"), False),
    ],
)
def test_parse_id_takes_only_what_the_tables_may_hold(text, accepted):
    raw = ids.parse_id(text)
    assert raw == (uuid.UUID(text).bytes if accepted else None)


def test_ids_are_read_as_uuid_reads_them():
    for version, variant in itertools.product(range(16), range(16)):
        text = f"2dc8fe1f-cbc9-{version:x}ae8-{variant:x}1a8-b8bea6a8a8cf"
        is_right = version in (3, 4) and 8 <= variant < 12
        assert ids.parse_id(text) == (uuid.UUID(text).bytes if is_right else None), text
        others = (text.upper(), text.replace("-", ""), f"{text} ", f"{text}\n", f"{{{text}}}", text.replace("2", "٢"))
        assert [other for other in others if ids.parse_id(other) is not None] == []
