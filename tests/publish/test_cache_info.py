"""What a publication says of itself: a reader that trusts it must get the right archive, and the latest one."""

from datetime import UTC, datetime, timedelta

import pytest

from alfwatchd.publish import cache_info
from alfwatchd.publish.cache_info import Found, Rows

NOW = datetime(2026, 3, 1, 12, 30, 45)


UTC_NOW = NOW.replace(tzinfo=UTC)


def test_a_generation_that_was_replaced_in_the_future_does_not_stay_for_ever():
    """And no thread waits for eight thousand years, which no clock can."""
    planted = {"a": "9999-12-31T23:59:00+00:00"}
    assert cache_info.expired(planted, "b", ["a", "b"], 60, UTC_NOW) == ([], 60)
    found = Found(name="b", replaced=planted, generations=frozenset(["a", "b"]))
    noted = cache_info.note_replaced(found, "c", UTC_NOW)
    assert noted == {"a": ago(0), "b": ago(0)}
    assert cache_info.expired(noted, "c", ["a", "b"], 60, UTC_NOW + timedelta(seconds=60)) == (["a", "b"], None)


def test_info_is_what_alyx_writes_and_one_key_more():
    described = cache_info.one_metadata("2026-03-01 12:30", "/data", "")
    rows = {"sessions": Rows(2, 100), "datasets": Rows(5, 200)}
    inner = cache_info.inner_info(described, rows, "c0", "n0")
    outer = cache_info.outer_info(inner, "3-ab", "ab" * 32, "https://x.org/t", {"2-cd": "2026-03-01T12:00:00+00:00"})
    own = outer.pop("alfwatchd")
    assert outer == {
        "date_created": "2026-03-01 12:30",
        "origin": "/data",
        "min_api_version": "1.13.0",
        "tables": {"sessions": {"nrecs": 2, "size": 100}, "datasets": {"nrecs": 5, "size": 200}},
        "location": "https://x.org/t/tables/3-ab/cache.zip",
    }
    assert "location" not in inner
    found = cache_info.find_out({**outer, "alfwatchd": own}, inner, {"3-ab", "2-cd"})
    assert found == Found(
        "2026-03-01 12:30", "2026-03-01 12:30", "c0", "c0", "3-ab",
        {"2-cd": "2026-03-01T12:00:00+00:00"}, frozenset({"3-ab", "2-cd"}),
    )  # fmt: skip
    assert cache_info.is_published(found, "c0")


def test_tags_and_no_location():
    described = cache_info.one_metadata("2026-03-01 12:30", "/data", "mine")
    assert described["database_tags"] == ["mine"]
    inner = cache_info.inner_info(described, {}, "c", "n")
    assert "location" not in cache_info.outer_info(inner, "1-a", "", "", {})


@pytest.mark.parametrize("number", [b"1e400", b"null", b"[]", b'"many"'])
def test_texts_in_the_place_of_counts(number):
    info = cache_info.parse_info(b'{"tables": {"sessions": {"nrecs": %s}, "datasets": {"nrecs": 1}}}' % number)
    assert cache_info.counts(info) is None


@pytest.mark.parametrize("junk", [b"", b"[]", b"{", b"\xff", b'{"alfwatchd": 3, "date_created": []}'])
def test_a_json_of_another_program_is_no_trouble(junk):
    info = cache_info.parse_info(junk)
    assert cache_info.find_out(info, info, ["1-a"]) == Found(generations=frozenset(["1-a"]))


@pytest.mark.parametrize(
    "found",
    [
        Found(content="c", zip_content="c", name="1-a"),  # its zip is not there
        Found(content="c", zip_content="d", name="1-a", generations=frozenset(["1-a"])),  # a publisher died half-way
        Found(content="d", zip_content="c", name="1-a", generations=frozenset(["1-a"])),
        Found(),
    ],
)
def test_what_is_not_all_there_is_not_published(found):
    assert not cache_info.is_published(found, "c")


def ago(seconds):
    return (UTC_NOW - timedelta(seconds=seconds)).isoformat()


def test_when_generations_were_replaced_is_noted_once():
    found = Found(name="2-b", replaced={"1-a": ago(50), "0-gone": ago(90)}, generations=frozenset(["1-a", "2-b", "x"]))
    # x was left by a publisher that died.
    assert cache_info.note_replaced(found, "3-c", UTC_NOW) == {"1-a": ago(50), "2-b": ago(0), "x": ago(0)}


@pytest.mark.parametrize(
    ("keep", "gone", "wait"),
    [(0, ["a", "b"], None), (50, ["a", "b"], None), (51, ["a"], 1.0), (100, ["a"], 50.0), (101, [], 1.0)],
)
def test_what_is_removed(keep, gone, wait):
    replaced = {"a": ago(100), "b": ago(50), "named": ago(1000), "odd": "yesterday", "naive": "2020-01-01T00:00:00"}
    generations = ["a", "b", "named", "odd", "naive", "unnoted"]
    assert cache_info.expired(replaced, "named", generations, keep, UTC_NOW) == (gone, wait)


def test_names_tell_zips_apart():
    assert cache_info.generation_name(7, "0123456789abcdef0123") == "7-0123456789abcdef"
