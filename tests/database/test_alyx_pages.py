"""Alyx gives records a page at a time: all of them are read, whatever their order, or it is said that some are not."""

from __future__ import annotations

import uuid
from datetime import date, timedelta
from urllib.parse import parse_qs

import pytest

from alfwatchd.database.alyx_pages import ALL_DATES, Hidden, Part, Unsteady, read_datasets, read_sessions
from kit.alyx import Alyx


def make(n_days, n_each, page_rows=10):
    """A database with some sessions at the midnight of each of some days."""
    sessions = []
    for number in range(n_days * n_each):
        eid, day = str(uuid.uuid5(uuid.NAMESPACE_OID, str(number))), date(2020, 1, 1) + timedelta(number // n_each)
        sessions.append({"id": eid, "url": f"/sessions/{eid}", "start_time": f"{day}T00:00:00"})
    return Alyx(sessions, [], page_rows=page_rows)


def asking(alyx, endpoint="sessions", queries=None):
    def ask(query):
        (queries if queries is not None else []).append(query)
        return alyx.page(endpoint, parse_qs(query))

    return ask


def ids_of(pages):
    return [record["id"] for records in pages for record in records]


def test_a_part_is_halved_by_date_and_a_day_by_id():
    first, last = ALL_DATES.halves()
    assert (first.first, last.last) == (date.min, date.max)
    assert last.first - first.last == timedelta(1)
    day = Part(date(2020, 1, 1), date(2020, 1, 1))
    low, high = day.halves()
    assert (low.high + 1, low.first, high.last) == (high.low, day.first, day.last)
    assert low.query == (
        "date_range=2020-01-01,2020-01-01&django=id__gte,00000000-0000-0000-0000-000000000000,"
        "id__lte,7fffffff-ffff-ffff-ffff-ffffffffffff&"
    )


def test_what_fits_on_a_page_is_asked_for_once():
    queries = []
    alyx = make(2, 3)
    alyx.sessions[0]["start_time"] = None  # a base session
    assert len(ids_of(read_sessions(asking(alyx, queries=queries)))) == 6
    assert queries == ["limit=1000&offset=0"]


@pytest.mark.parametrize(("n_days", "n_each"), [(100, 1), (20, 7), (3, 50)])
def test_each_session_is_read_once_where_a_page_has_ten(n_days, n_each):
    alyx = make(n_days, n_each)
    found = ids_of(read_sessions(asking(alyx)))
    assert sorted(found) == sorted(each["id"] for each in alyx.sessions)


@pytest.mark.parametrize("filters", [("date_range",), ()])
def test_an_older_alyx_that_ignores_filters_is_read_in_pages_of_several_sizes(filters):
    alyx = make(1, 18)
    alyx.filters = filters
    assert sorted(ids_of(read_sessions(asking(alyx)))) == sorted(each["id"] for each in alyx.sessions)


def test_a_session_that_goes_while_it_is_read_is_noticed():
    alyx = make(20, 7)

    def ask(query):
        page = alyx.page("sessions", parse_qs(query))
        alyx.sessions.pop()
        return page

    with pytest.raises(Unsteady):
        ids_of(read_sessions(ask))


def test_datasets_are_asked_for_by_id_only_where_their_pages_overlap():
    alyx = make(10, 10)
    alyx.datasets, queries = alyx.sessions, []
    assert len(ids_of(read_datasets(asking(alyx, "datasets", queries)))) == 100
    assert not any("django" in query for query in queries)

    def ask(query):
        alyx.datasets.reverse()
        return alyx.page("datasets", parse_qs(query))

    assert {*ids_of(read_datasets(ask))} == {each["id"] for each in alyx.datasets}


def test_records_that_are_counted_and_never_shown_are_told():
    with pytest.raises(Hidden, match="Alyx has 20 and shows 10 on its pages"):
        ids_of(read_sessions(lambda query: (make(1, 10).sessions, 20)))
