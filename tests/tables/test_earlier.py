"""What earlier tables know, as columns: a row that is lost here loses its id, or gets another one's."""

import random
import uuid

import numpy as np
import pytest

from alfwatchd.alf.grammar import parse_session
from alfwatchd.tables.earlier import NO_DATASETS, EarlierDataset, EarlierDatasets, EarlierSession
from kit.rows import earlier

S1, S2, S3 = (f"s/2020-01-01/00{number}" for number in (1, 2, 3))
ROWS = {
    S1: {"b.c.d": EarlierDataset(uuid.UUID(int=1, version=4).bytes, 0), "a.b.c": EarlierDataset(None, 3)},
    S2: {"a.b.c": EarlierDataset(uuid.UUID(int=2, version=4).bytes, 4)},
}


def test_rows_are_found_as_they_were_given():
    known = EarlierDatasets.of(ROWS)
    assert known == ROWS
    assert ([*known], len(known), S1 in known, S3 in known) == ([S1, S2], 2, True, False)
    assert known.get(S3) is None
    assert [len(known.span(key)) for key in (S1, S2, S3)] == [2, 1, 0]
    assert NO_DATASETS == {}
    assert not EarlierDatasets.of({S1: {}})


def test_many_are_looked_up_at_once_and_neighbours_do_not_mix():
    known = EarlierDatasets.of(ROWS)
    paths = [b"a.b.c", b"x.y.z", b"b.c.d", b"a.b.c", b"a.b.c", b"b.c.d"]
    places = known.find([S1, S2, S3], [3, 1, 2], paths)
    assert [known.row(place) if place >= 0 else None for place in places.tolist()] == [
        ROWS[S1]["a.b.c"], None, ROWS[S1]["b.c.d"], ROWS[S2]["a.b.c"], None, None,
    ]  # fmt: skip
    assert NO_DATASETS.find([S1], [1], [b"a.b.c"]).tolist() == [-1]


def test_a_session_without_rows_stays_known():
    """Else its files would get what was noted of them under an older lab."""
    known = EarlierDatasets.of(ROWS)
    left = known.where(known.rows.qc != 4)
    assert (left[S1], left[S2], S2 in left) == (ROWS[S1], {}, True)
    assert known.where(np.ones(3, np.bool_)) is known


def test_without_ids_the_qc_is_left():
    assert EarlierDatasets.of(ROWS).without_ids() == {
        S1: {"a.b.c": EarlierDataset(None, 3)}, S2: {"a.b.c": EarlierDataset(None, 4)},
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_rows_are_added_and_replaced_as_in_a_dict(seed):
    """So come notes of rows that went together with what tables list."""
    draw = random.Random(seed)
    plain, known = {}, NO_DATASETS
    for _ in range(6):
        more = {
            f"s/2020-01-01/{number:03d}": {
                f"n{draw.randrange(9)}.b.c": EarlierDataset(None, 1 + draw.randrange(4)) for _ in range(3)
            }
            for number in draw.sample(range(1, 9), 3)
        }
        known = known.updated(more)
        for key, rows in more.items():
            plain.setdefault(key, {}).update(rows)
        if draw.random() < 0.5:
            gone = draw.randrange(1, 5)
            known = known.where(known.rows.qc != gone)
            plain = {key: {path: row for path, row in rows.items() if row.qc != gone} for key, rows in plain.items()}
        assert known == plain


def test_a_session_in_no_lab_folder_is_found_under_the_lab_that_tables_had_for_it():
    """After a change of the lab setting its ids would be lost."""
    key = parse_session("s/2020-01-01/001")
    only_rows = earlier({}, {f"lab/{S1}": ROWS[S1]}, "lab")
    only_columns = earlier({f"lab/{S1}": EarlierSession(None, "p", "")}, {}, "lab")
    assert only_rows.key_of(key) == only_columns.key_of(key) == f"lab/{S1}"
    assert earlier({}, {}, "lab").key_of(key) == S1
    assert [each.shows for each in (only_rows, only_columns, earlier())] == [True, True, False]
