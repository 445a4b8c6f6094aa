"""Ids read and made in bulk are those that are read and made one by one: else rows lose their ids at a restart."""

import uuid

import numpy as np
import pytest

from alfwatchd.alf import ids
from alfwatchd.tables import arrow
from alfwatchd.tables.raw_ids import join_ids, parse_ids, raw_ids

V3, V4, V5 = (str(uuid.UUID(int=0xABC0, version=version)) for version in (3, 4, 5))
TEXTS = [
    V3, V4, V5, V4.upper(), V4.replace("-", ""), f"{{{V4}}}", f"urn:uuid:{V4}", "", "nan", "s/2020-01-01/001",
    V4[:-1], V4 + "0", V4[:-1] + "g", V4[:-1] + " ", V4[:8] + "_" + V4[9:], V4.replace("-", "0"), "é" * 18,
    V4[:19] + "0" + V4[20:], V4[:19] + "f" + V4[20:], V4[:19] + "b" + V4[20:], "0" * 36, str(uuid.UUID(int=0)),
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_an_id_is_read_as_it_is_alone(text):
    (found,) = parse_ids(arrow.strings([V4, text, V3])[1:2])
    assert found.tobytes() == (ids.parse_id(text) or bytes(16))


def test_many_ids_are_read_as_each_is_alone():
    texts = TEXTS + [str(uuid.UUID(int=number, version=4)) for number in range(70_000)] + TEXTS
    assert [each.tobytes() for each in parse_ids(arrow.strings(texts))] == [
        ids.parse_id(each) or bytes(16) for each in texts
    ]
    assert parse_ids(arrow.strings([])).shape == (0, 16)


def test_ids_made_at_once_are_those_made_one_by_one():
    eids = [ids.session_id(f"s/2020-01-01/{number:03d}") for number in range(300)]
    digests = [ids.md5(eid + b"alf/a.b.c").digest() for eid in eids]
    made = join_ids(raw_ids(eids), raw_ids(digests))
    assert made.tobytes() == b"".join(ids.dataset_id(eid, "alf/a.b.c") for eid in eids)
    assert join_ids(np.zeros((0, 16), np.uint8), np.zeros((0, 16), np.uint8)).shape == (0, 16)
