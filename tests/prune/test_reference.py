"""Tables that make no sense as a whole are refused: what they do not list would be deleted."""

import datetime

import pyarrow as pa
import pytest

from alfwatchd.errors import PruneRefused
from alfwatchd.prune.reference import Origin, make_reference
from kit.rows import datasets_of, sessions_of

ORIGIN = Origin("/reference", datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), 7)
E1 = "s/2020-01-01/001"


def with_dates(of_type):
    dates = pa.array([datetime.datetime(2020, 1, 1)], pa.timestamp("us", of_type))
    table = sessions_of({"id": E1})
    return table.set_column(table.schema.get_field_index("date"), "date", dates)


def rows(n_good, n_odd):
    good = [{"eid": E1, "rel_path": f"a{number}.b.c"} for number in range(n_good)]
    return datasets_of(*good, *({"eid": "gone", "rel_path": f"g{number}.b.c"} for number in range(n_odd)))


def sessions(n_good, n_odd):
    good = [{"id": E1}, *({"id": f"s/2020-01-01/{n:03d}", "number": n} for n in range(2, n_good + 1))]
    return sessions_of(*good, *({"id": f"odd{number}", "subject": None} for number in range(n_odd)))


NO_SENSE = {
    "no datasets": (sessions(1, 0), datasets_of({}).slice(0, 0), "lists no dataset"),
    "no paths": (sessions(1, 0), datasets_of({"rel_path": None}, {"rel_path": None}), "lists no dataset"),
    "paths of null type": (sessions(1, 0), pa.table({"eid": [E1], "rel_path": pa.nulls(1)}), "lists no dataset"),
    "a time zone": (with_dates("Europe/London"), rows(1, 0), r"time zone \(Europe/London\)"),
    "UTC": (with_dates("UTC"), rows(1, 0), r"time zone \(UTC\)"),
    "rows of other sessions": (sessions(1, 0), rows(98, 2), "2 of 100 rows of the datasets table have no session"),
    "sessions without subject": (sessions(98, 2), rows(1, 0), "2 of 100 rows of the sessions table have no subject"),
    "no sessions": (sessions(1, 0).slice(0, 0), rows(1, 0), "1 of 1 rows of the datasets table have no session"),
    "no ids": (sessions(1, 0).drop_columns(["id"]), rows(1, 0), "lack the columns id"),
    "no rel_path": (sessions(1, 0), rows(1, 0).drop_columns(["rel_path"]), "lack the columns rel_path"),
}


@pytest.mark.parametrize(("of_sessions", "of_datasets", "words"), NO_SENSE.values(), ids=NO_SENSE)
def test_tables_that_make_no_sense_are_refused(of_sessions, of_datasets, words):
    with pytest.raises(PruneRefused, match=words) as refusal:
        make_reference(ORIGIN, of_sessions, of_datasets)
    assert "/reference (of 2024-01-01T00:00:00+00:00, generation 7)" in str(refusal.value)
    assert "othing was deleted" in str(refusal.value)


def test_a_few_odd_rows_are_no_reason_to_refuse():
    reference = make_reference(ORIGIN, sessions(99, 1), rows(99, 1))
    assert (len(reference), reference.homeless) == (99, {b"g0.b.c"})
    assert make_reference(ORIGIN, with_dates(None), rows(1, 0)).sessions == {E1: (0,)}


def test_ids_as_halves_are_read():
    def halves(name, *numbers):
        return {f"{name}_0": pa.array(numbers, pa.int64()), f"{name}_1": pa.array([0x4000 << 48 | 1] * len(numbers))}

    plain = sessions_of({}).drop_columns(["id"])
    first, second = 0x40 << 48, (0x40 << 48) + 1
    of_sessions = pa.table({name: plain.column(name) for name in plain.column_names} | halves("id", first))
    of_datasets = pa.table({"rel_path": ["a.b.c"], **halves("eid", first), **halves("id", second)})
    reference = make_reference(ORIGIN, of_sessions, of_datasets)
    assert (len(reference), reference.homeless) == (1, frozenset())
